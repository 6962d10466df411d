"""A quick look at a device where it runs: whether it trains rightly, and how fast.

``fastnn devices`` shows it. The proof is :class:`fastnn.testing.BackendConformance`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.backends.base import Backend, Plan, Step
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.backends.registry import anothers_code, device
from fastnn.backprop import BackpropStep
from fastnn.data import Dataset, synthetic
from fastnn.errors import DeviceError
from fastnn.network import Network
from fastnn.testing.strict import StrictBackend
from fastnn.training import epoch_order, train

__all__ = ["Measured", "SelfTest"]

STEPS = 100
# The clock runs for so many rounds of them at the most, and for so long.
ROUNDS, SECONDS = 7, 0.3
# In float64 a small network's parameters may come out so far off.
OFF = 1e-9


class Measured(NamedTuple):
    """What a device did with the mini-batches of a network, in float32.

    Attributes
    ----------
    step
        The name of its step.
    why
        Why it is that one, in a sentence, if the device says so.
    prepare_ms
        Milliseconds to make the step, compiling included, and to take a first mini-batch.
    max_relative_error
        How far the parameters are off after 100 mini-batches, compared with NumPy in float64:
        the largest difference in an array, in parts of its largest magnitude.
    us_per_step
        Microseconds a mini-batch, the median of some rounds of 100.
    """

    step: str
    why: str
    prepare_ms: float
    max_relative_error: float
    us_per_step: float


class SelfTest:
    """100 mini-batches of a network of sigmoid units, for any number of devices.

    Parameters
    ----------
    sizes
        Units of every layer, input first.
    batch_size
        Samples in a mini-batch.

    Raises
    ------
    ArgumentError
        If that is too large for this machine.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int) -> None:
        self._sizes, self._batch_size = list(sizes), batch_size
        n = STEPS * batch_size
        made = synthetic(n, 1, features=sizes[0], classes=min(n, sizes[-1]))
        self._data = made.train
        # A step changes z by about as much as this times the units, and rounding must not grow.
        self._rate = 8 / max(sizes)
        # The longest sum in a product, and the rounding of each mini-batch on top of the last.
        k = max(batch_size, *sizes)
        self._tolerance = 8 * float(np.finfo(np.float32).eps) * k**0.5 * STEPS
        exact = _Training(NumpyBackend(dtype="float64"), self._sizes, self._data, batch_size)
        exact.run(BackpropStep(exact.backend, exact.plan), self._rate)
        self._right = exact.parameters()

    def __call__(self, name: str) -> Measured:
        """Have a device train.

        Raises
        ------
        DeviceError
            If it fails or trains wrongly, with a sentence that says how.
        """
        _in_float64(name)
        with anothers_code(name):
            measured = self._measured(name)
        if not measured.max_relative_error < self._tolerance:
            raise DeviceError(
                f"it trains wrongly: after {STEPS} mini-batches by the {measured.step} step the "
                f"parameters are {measured.max_relative_error:.1g} off"
            )
        return measured

    def _measured(self, name: str) -> Measured:
        backend = device(name, "float32")
        training = _Training(backend, self._sizes, self._data, self._batch_size)
        began = perf_counter()
        step = backend.fused_step(training.plan) or BackpropStep(backend, training.plan)
        training.run(step, self._rate, stop=self._batch_size)
        prepared = perf_counter() - began
        training.run(step, self._rate, start=self._batch_size)
        errors = [
            np.abs(got - right).max() / np.abs(right).max()
            for got, right in zip(training.parameters(), self._right, strict=True)
        ]
        seconds: list[float] = []
        while len(seconds) < ROUNDS and sum(seconds) < SECONDS:
            began = perf_counter()
            training.run(step, self._rate)
            seconds.append(perf_counter() - began)
        return Measured(
            step=step.name,
            why=backend.explain(training.plan),
            prepare_ms=1e3 * prepared,
            max_relative_error=float(np.max(errors)),  # NaN, if one is
            us_per_step=1e6 * statistics.median(seconds) / STEPS,
        )


class _Training:
    """A network on a device, and what it is to train on."""

    def __init__(self, backend: Backend, sizes: list[int], data: Dataset, batch_size: int) -> None:
        self.backend, self._network = backend, Network(sizes, device=backend)
        targets = np.zeros((len(data), sizes[-1]), np.uint8)
        targets[np.arange(len(data)), data.labels] = 1
        self.plan = Plan(
            layers=self._network.layers,
            sizes=self._network.sizes,
            cost=self._network.cost,
            inputs=backend.asarray(data.x),
            scale=1 / 255,
            targets=backend.asarray(targets),
            n=len(data),
            batch_size=batch_size,
        )
        self._order = backend.asarray(epoch_order(len(data), seed=0, epoch=1))

    def run(self, step: Step, rate: float, start: int = 0, stop: int | None = None) -> None:
        """Train on the samples from start to stop in their order, and wait until that is done."""
        stop = self.plan.n if stop is None else stop
        span = self.plan.batch_size * step.stride
        # What overflows on the host shows in the parameters.
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(start, stop, span):
                step(self._order, first, min(first + span, stop), rate, 1.0)
            self.backend.synchronize()

    def parameters(self) -> list[NDArray[Any]]:
        return [*self._network.weights, *self._network.biases]


def _in_float64(name: str) -> None:
    """Train a small network by both steps of a device; raise a DeviceError if one is wrong."""
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 256, (23, 6), dtype=np.uint8), np.arange(23) % 3

    def trained(on: str | Backend, fused: bool) -> NDArray[Any]:
        network = Network([6, 5, 3], device=on, dtype="float64")
        train(network, (x, labels), epochs=2, batch_size=5, fused=fused)
        return network.backend.to_numpy(network.buffer)

    right = trained(StrictBackend(dtype="float64"), fused=False)
    for fused in (False, True):
        with anothers_code(name):
            off = np.abs(trained(name, fused) - right).max() / np.abs(right).max()
        if not off < OFF:
            step = "its own step" if fused else "the plain step"
            raise DeviceError(f"it trains wrongly: by {step} the weights come out {off:.1g} off")
