"""The same training on several devices, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn.backends.base import Backend
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.backends.registry import device
from fastnn.data import Dataset
from fastnn.history import Epoch
from fastnn.network import Network
from fastnn.training import train

__all__ = ["Comparison", "Course", "apart", "compare", "rounding"]

Arrays = list[NDArray[Any]]

# Rounding takes right devices about as far from the exact parameters as it takes NumPy; a wrong
# term takes one thousands of times as far.
MARGIN = 16


class Course(NamedTuple):
    """What a training came to on one device, epoch by epoch.

    Attributes
    ----------
    device, step
        The device, and the name of its step.
    costs
        Of the training set.
    off
        How far the parameters are from the exact ones: the largest difference in an array, in parts
        of its largest magnitude.
    agrees
        Whether that is no more than rounding does.
    """

    device: str
    step: str
    costs: list[float]
    off: list[float]
    agrees: bool


class Comparison(NamedTuple):
    """Trainings beside the exact one, which is NumPy's in float64.

    Attributes
    ----------
    exact
        Its costs, an epoch each.
    allowed
        How far off the others may be after each epoch.
    courses
        The others, one a device.
    """

    exact: list[float]
    allowed: list[float]
    courses: list[Course]

    @property
    def agree(self) -> bool:
        """Whether all stay together."""
        return all(course.agrees for course in self.courses)


def compare(
    devices: Sequence[str | Backend],
    sizes: Sequence[int],
    train_set: Dataset,
    *,
    epochs: int = 3,
    seed: int = 0,
    **training: Any,
) -> Comparison:
    """Train the same network from the same start in the same order on each device, in float32.

    Right devices differ by rounding, which a training carries on and may make grow. How much it
    does in this very one is seen on NumPy: in float32 it parts from itself in float64. A device may
    be off by :data:`MARGIN` times as much.

    Parameters
    ----------
    devices
        Names or backends.
    sizes
        Of the network.
    train_set
        What it is trained on.
    epochs, seed
        How many, and the seed of weights and order.
    training
        What else :func:`fastnn.train` takes.

    Raises
    ------
    DeviceError
        If a device is unknown or cannot be used.
    Diverged
        If the training leaves the finite numbers.
    """
    backends = [device(each, "float32") for each in devices]

    def trained(backend: Backend) -> tuple[str, list[float], list[Arrays]]:
        network = Network(sizes, seed=seed, device=backend)
        costs, parameters = list[float](), list[Arrays]()

        def keep(epoch: Epoch) -> None:
            costs.append(epoch.train_cost)
            parameters.append([*network.weights, *network.biases])

        history = train(network, train_set, epochs=epochs, seed=seed, on_epoch=keep, **training)
        return history.step, costs, parameters

    _, exact, right = trained(NumpyBackend(dtype="float64"))
    *_, rounded = trained(NumpyBackend())
    # So much may a device be off, however lucky NumPy was.
    least = rounding(max(*sizes, training.get("batch_size") or len(train_set)))
    allowed = [max(least, MARGIN * off) for off in _off(rounded, right)]
    courses = []
    for backend in backends:
        step, costs, parameters = trained(backend)
        off = _off(parameters, right)
        agrees = all(o <= a for o, a in zip(off, allowed, strict=True))
        courses.append(Course(backend.spec, step, costs, off, agrees))
    return Comparison(exact, allowed, courses)


def _off(got: list[Arrays], right: list[Arrays]) -> list[float]:
    """Return how far parameters are off after each epoch."""
    return [apart(*pair) for pair in zip(got, right, strict=True)]


def apart(got: Arrays, right: Arrays) -> float:
    """Return the largest difference in an array, in parts of its largest magnitude; NaN for NaN."""
    pairs = zip(got, right, strict=True)
    return float(np.max([np.abs(g - r).max() / np.abs(r).max() for g, r in pairs]))


def rounding(k: int, dtype: DTypeLike = np.float32) -> float:
    """Return how far rounding may take results with sums of k terms, in any order: 8 · eps · √k.

    In parts of the largest magnitude; eps is the dtype's. Errors of single terms have any sign, so
    that they grow as a random walk does.
    """
    return 8 * float(np.finfo(dtype).eps) * math.sqrt(k)
