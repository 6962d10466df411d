"""A network on a device and the step that trains it, without the loop: to try and to time it."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from fastnn.backprop import step_for
from fastnn.data import Dataset
from fastnn.network import Network
from fastnn.training import epoch_order, plan_for

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
        self, network: Network, data: Dataset, batch_size: int, fused: bool = True
    ) -> None:
        self.network, self.plan = network, plan_for(network, data, batch_size)
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
                self.step(self._order, first, min(first + span, stop), rate, 1.0)

    def seconds(self, at_least: float) -> float:
        """Return the seconds of a full mini-batch, timed over a while.

        Parameters
        ----------
        at_least
            For how long, in seconds; at first it is found out how many mini-batches that are.
        """
        m, n = self.plan.batch_size, self.plan.n
        many, most = 1, max(1, n // m)
        while True:
            began, done = perf_counter(), 0
            while done < many:
                now = min(many - done, most)
                self._enqueue(0, now * m, RATE)
                done += now
            self.network.backend.synchronize()
            took = perf_counter() - began
            if took >= at_least / 2:
                return took / done
            many = max(2 * many, int(many * at_least / max(took, 1e-9)))
