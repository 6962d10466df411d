"""Devices side by side on one network: each checked first, then timed in turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.backends.base import Backend
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.backends.registry import anothers_code, device
from fastnn.comparing import apart, rounding
from fastnn.data import Dataset, synthetic
from fastnn.errors import DeviceError
from fastnn.network import Network
from fastnn.threads import come_to_rest
from fastnn.trial import Stopwatch, Trial

__all__ = ["ROUNDS", "Contender", "Contest", "in_turns"]

# Mini-batches after which devices are compared: of so many samples, but for very large ones.
STEPS, SAMPLES, FEWEST = 100, 200_000, 4
# Bytes of samples at the least, about MNIST's: a training finds most of them in no cache.
AS_LARGE = 47_000_000
ROUNDS = 5


class Contender(NamedTuple):
    """A device that trains the network of a contest rightly.

    Attributes
    ----------
    device
        Its name.
    trial
        The network on it, with the step that trains it.
    max_relative_error
        How far the parameters are off after some mini-batches, compared with NumPy in float64:
        the largest difference in an array, in parts of its largest magnitude.
    """

    device: str
    trial: Trial
    max_relative_error: float

    @property
    def step(self) -> str:
        """The name of its step."""
        return self.trial.step.name

    @property
    def why(self) -> str:
        """Why it is that one, in a sentence, if the device says so."""
        return self.trial.why

    @property
    def prepare_ms(self) -> float:
        """Milliseconds to make the step, compiling included, and to take a first mini-batch."""
        return 1e3 * self.trial.prepare_seconds


class Contest:
    """Some mini-batches of a network of sigmoid units, for any number of devices, in float32.

    Parameters
    ----------
    sizes
        Units of every layer, input first.
    batch_size
        Samples in a mini-batch.
    steps
        Mini-batches after which devices are compared; also an attribute. Default 100, or fewer if
        they are large.

    Raises
    ------
    ArgumentError
        If that is too large for this machine.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, steps: int | None = None) -> None:
        if steps is None:
            steps = min(STEPS, max(FEWEST, SAMPLES // batch_size))
        self._sizes, self._batch_size, self.steps = list(sizes), batch_size, steps
        self._n = n = steps * batch_size
        few = synthetic(n, 1, features=sizes[0], classes=min(n, sizes[-1])).train
        times = -(-AS_LARGE // few.x.nbytes)
        self._data = Dataset(np.tile(few.x, (times, 1)), np.tile(few.labels, times))
        # A step changes z by about as much as this times the units, and rounding must not grow.
        self._rate = 8 / max(sizes)
        # The longest sum in a product, and the rounding of each mini-batch on top of the last.
        k = max(batch_size, *sizes)
        self._tolerance = rounding(k) * steps
        self._right = self._trained(self._trial(NumpyBackend(dtype="float64"), fused=False))

    def enter(self, name: str, fused: bool = True) -> Contender:
        """Have a device train.

        Parameters
        ----------
        name
            The device's.
        fused
            Whether it may take its own step.

        Raises
        ------
        DeviceError
            If it cannot be used, fails, or trains wrongly, with a sentence that says how.
        """
        backend = device(name, "float32")
        with anothers_code(name):
            trial = self._trial(backend, fused)
            entered = Contender(backend.spec, trial, apart(self._trained(trial), self._right))
            step = entered.step
        if not entered.max_relative_error < self._tolerance:
            raise DeviceError(
                f"it trains wrongly: after {self.steps} mini-batches by the {step} step the "
                f"parameters are {entered.max_relative_error:.1g} off"
            )
        return entered

    def _trial(self, backend: Backend, fused: bool) -> Trial:
        return Trial(Network(self._sizes, device=backend), self._data, self._batch_size, fused)

    def _trained(self, trial: Trial) -> list[NDArray[Any]]:
        trial.run(0, self._n, self._rate)
        return [*trial.network.weights, *trial.network.biases]


def in_turns(trials: Sequence[Trial], seconds: float) -> list[list[float]]:
    """Time trials one after the other, again and again: what the machine does, it does to all.

    Parameters
    ----------
    trials
        What is timed.
    seconds
        For how long, each in all.

    Returns
    -------
    For each trial the seconds of a full mini-batch, one a turn.
    """
    times: list[list[float]] = [[] for _ in trials]
    for _ in range(ROUNDS):
        for mine, trial in zip(times, trials, strict=True):
            come_to_rest()
            watch = Stopwatch(trial, seconds / ROUNDS / 2)
            watch.turn()
            mine.append(watch.turn())
    return times
