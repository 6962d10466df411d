"""A network on a device and the step that trains it, without the loop: to try and to time it."""

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

__all__ = ["Trial"]

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

    def seconds(self, at_least: float) -> float:
        """Return the seconds of a full mini-batch in a long run.

        What a call of many mini-batches costs once, such as bringing the weights into a layout of
        the step's own, a training has seldom: it is left out, by comparing such calls with calls of
        one. The shortest of some timings counts, since what else the machine does only adds to
        them; they take turns, so that it does not to all of a kind.

        Parameters
        ----------
        at_least
            Seconds of timing, about.
        """
        most, half = max(1, self.plan.n // self.plan.batch_size), at_least / 2
        by_call = self.step.stride > 1 and most > 1
        one = self._timed(1, 1)
        if one > half / 2 and not by_call:
            return min(one, self._timed(1, 1), self._timed(1, 1))
        many = min(most, max(3 if by_call else 1, int(half / one)))
        calls = max(1, round(half / (many * one)))
        took = math.inf
        for _ in range(2):
            one = min(one, self._timed(1, 1))
            took = min(took, self._timed(many, calls) / calls)
        if by_call:
            return max(took - one, 0) / (many - 1) or took / many
        return min(took / many, one)

    def _timed(self, mini_batches: int, calls: int) -> float:
        began = perf_counter()
        for _ in range(calls):
            self._enqueue(0, mini_batches * self.plan.batch_size, RATE)
        self.network.backend.synchronize()
        return perf_counter() - began
