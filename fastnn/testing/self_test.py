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
from fastnn.backends.registry import anothers_code
from fastnn.errors import DeviceError
from fastnn.measuring import Contest, in_turns
from fastnn.network import Network
from fastnn.testing.strict import StrictBackend
from fastnn.training import train

__all__ = ["Measured", "SelfTest"]

SECONDS = 0.25  # of timing
# In float64 a small network's parameters may come out so far off.
OFF = 1e-9


class Measured(NamedTuple):
    """What a device did; see :class:`fastnn.measuring.Contender`.

    Attributes
    ----------
    us_per_step
        Microseconds a mini-batch, the median of some turns.
    """

    step: str
    why: str
    prepare_ms: float
    max_relative_error: float
    us_per_step: float


class SelfTest:
    """A small network in float64, then one as is asked for in float32; see :class:`Contest`."""

    def __init__(self, sizes: Sequence[int], batch_size: int) -> None:
        self._contest = Contest(sizes, batch_size)

    def __call__(self, name: str) -> Measured:
        """Have a device train.

        Raises
        ------
        DeviceError
            If it fails or trains wrongly, with a sentence that says how.
        """
        _in_float64(name)
        entered = self._contest.enter(name)
        with anothers_code(name):
            (seconds,) = in_turns([entered.trial], SECONDS)
            return Measured(
                step=entered.step,
                why=entered.why,
                prepare_ms=entered.prepare_ms,
                max_relative_error=entered.max_relative_error,
                us_per_step=1e6 * statistics.median(seconds),
            )


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
