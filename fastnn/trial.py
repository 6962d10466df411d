"""A network on a device and the step that trains it, without the loop: to try and to time."""

from __future__ import annotations

import math
from time import perf_counter
from typing import Any

import numpy as np

from fastnn.backprop import step_for
from fastnn.data import Dataset
from fastnn.descent import Descent
from fastnn.network import Network
from fastnn.scoring import Scorer
from fastnn.training import epoch_order

__all__ = ["Stopwatch", "Trial"]

# Nothing is learned in a trial: steps so small keep the weights where they are, and finite.
RATE = 1e-6


class Trial:
    """A step on its plan, made and taken once, so that all that is made at first use is made.

    Parameters
    ----------
    network
        What is trained; its parameters change.
    data
        What it is trained on.
    batch_size
        Samples in a mini-batch.
    fused
        Whether the device may take its own step.
    descent
        Of :class:`fastnn.descent.Descent`.

    Attributes
    ----------
    step, plan
        The step, and the plan it trains by.
    why
        Why it is that one, in a sentence, if the device says so.
    prepare_seconds
        What it took to make the step, compiling included, and to take a first mini-batch.
    """

    def __init__(
        self,
        network: Network,
        data: Dataset,
        batch_size: int,
        fused: bool = True,
        **descent: Any,
    ) -> None:
        how, self.network = Descent(**descent), network
        self.plan = how.plan(network, Scorer(network, data), batch_size)
        self._shrink = 1 - RATE * how.decay(len(data))
        self._order = network.backend.asarray(epoch_order(len(data), seed=0, epoch=1))
        # Asked before the step takes memory, on which it may depend.
        self.why = network.backend.explain(self.plan) if fused else ""
        began = perf_counter()
        self.step = step_for(network.backend, self.plan, fused)
        self.run(0, min(batch_size, len(data)), RATE)
        self.prepare_seconds = perf_counter() - began

    def run(self, start: int, stop: int, rate: float) -> None:
        """Train on the samples from start to stop of an order, and wait until that is done."""
        self._enqueue(start, stop, rate)
        self.network.backend.synchronize()

    def _enqueue(self, start: int, stop: int, rate: float) -> None:
        span = self.plan.batch_size * self.step.stride
        # What overflows on the host shows in the parameters.
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(start, stop, span):
                self.step(self._order, first, min(first + span, stop), rate, self._shrink)

    def timed(self, mini_batches: int) -> float:
        """Return the seconds of a call that takes so many mini-batches, the first ones."""
        began = perf_counter()
        self._enqueue(0, mini_batches * self.plan.batch_size, RATE)
        self.network.backend.synchronize()
        return max(perf_counter() - began, 1e-9)  # on a coarse clock it could be 0


class Stopwatch:
    """Times a trial, in turns: what else the machine does then only adds to a time.

    Parameters
    ----------
    trial
        What is timed.
    a_turn
        Seconds of a turn, about.
    """

    def __init__(self, trial: Trial, a_turn: float) -> None:
        self.trial, self._a_turn = trial, a_turn
        self._most = max(1, trial.plan.n // trial.plan.batch_size)
        self._by_call = trial.step.stride > 1 and self._most > 1
        self._many = self._calls = 0
        self._one = self._took = math.inf

    def turn(self) -> float:
        """Return the seconds of a full mini-batch in a long run, from the shortest times so far.

        What a call of many mini-batches costs once, such as bringing the weights into a layout of
        the step's own, a training has seldom: it is left out, by comparing such calls with calls of
        one.
        """
        for _ in range(self._calls or self._settle() - 1):
            self._one = min(self._one, self.trial.timed(1))
            self._took = min(self._took, self.trial.timed(self._many))
        if self._by_call:
            return max(self._took - self._one, 0) / (self._many - 1) or self._took / self._many
        return min(self._took / self._many, self._one)

    def _settle(self) -> int:
        """Return how many calls last a turn, and find of how many mini-batches; take the first.

        What one mini-batch takes does not tell: most of that may be what a call costs once. Of one
        that is a turn by itself there are two: in the first, threads of BLAS may have to begin.
        """
        self._one = self.trial.timed(1)
        self._many = min(3, self._most) if self._by_call else 1
        took = self.trial.timed(self._many)
        while took < self._a_turn / 2 and self._many < self._most:
            likely = math.ceil(self._many * self._a_turn / took)
            self._many = min(4 * self._many, likely, self._most)
            took = self.trial.timed(self._many)
        self._took, self._calls = took, max(1, round(self._a_turn / (self._one + took)))
        return self._calls
