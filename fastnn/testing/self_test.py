"""A quick look at a device where it runs: whether it trains rightly, and how fast.

``fastnn devices`` shows it. The proof is :class:`fastnn.testing.BackendConformance`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.backends.base import Backend
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.backends.registry import anothers_code, device
from fastnn.data import synthetic
from fastnn.errors import DeviceError
from fastnn.network import Network
from fastnn.testing.strict import StrictBackend
from fastnn.training import train
from fastnn.trial import Trial

__all__ = ["Measured", "SelfTest"]

STEPS = 100
# The clock runs so often, for so long.
ROUNDS, SECONDS = 5, 0.05
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
        Microseconds a mini-batch, the median of some rounds.
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
        self._right = self._trained(self._trial(NumpyBackend(dtype="float64")))

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
        trial = self._trial(device(name, "float32"))
        pairs = zip(self._trained(trial), self._right, strict=True)
        errors = [np.abs(got - right).max() / np.abs(right).max() for got, right in pairs]
        seconds = [trial.seconds(SECONDS) for _ in range(ROUNDS)]
        return Measured(
            step=trial.step.name,
            why=trial.network.backend.explain(trial.plan),
            prepare_ms=1e3 * trial.prepare_seconds,
            max_relative_error=float(np.max(errors)),  # NaN, if one is
            us_per_step=1e6 * statistics.median(seconds),
        )

    def _trial(self, backend: Backend) -> Trial:
        return Trial(Network(self._sizes, device=backend), self._data, self._batch_size)

    def _trained(self, trial: Trial) -> list[NDArray[Any]]:
        trial.run(0, len(self._data), self._rate)
        return [*trial.network.weights, *trial.network.biases]


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
