"""What every peer is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np

import fastnn

Arrays = list[np.ndarray]
T = TypeVar("T")

# At 0.5 rounding grows to a hundredth within an epoch of 784-1024-1024-10.
RATE = 0.1


@dataclass(frozen=True, eq=False)
class Task:
    """Sigmoid units and cross-entropy, by SGD at RATE, from these parameters.

    Attributes
    ----------
    weights, biases
        To start from: (n_out, n_in) and (n_out,) a layer.
    data
        The images, as bytes.
    batch_size
        Samples in a mini-batch; the last of an epoch holds what is left over.
    platform
        "cpu" or "cuda".
    precision
        Of products: "fp32", or "tf32" for NVIDIA's shorter one.
    """

    weights: Arrays
    biases: Arrays
    data: fastnn.Dataset
    batch_size: int
    platform: str = "cpu"
    precision: str = "fp32"

    @cached_property
    def sizes(self) -> list[int]:
        return [self.weights[0].shape[1], *map(len, self.biases)]

    @cached_property
    def x(self) -> np.ndarray:
        """The images as floats from 0 to 1: (n, features)."""
        return self.data.x.reshape(len(self.data), -1).astype(np.float32) / 255

    @cached_property
    def y(self) -> np.ndarray:
        """The labels one-hot, as floats: (n, classes)."""
        return np.eye(self.sizes[-1], dtype=np.float32)[self.data.labels]


class Peer(NamedTuple):
    """A training under way.

    Attributes
    ----------
    epoch
        Trains on the samples of an order, and ends when the device is done.
    parameters
        Returns the weights and then the biases, as they are now.
    form
        How it goes about it, where it had a choice.
    """

    epoch: Callable[[np.ndarray], Any]
    parameters: Callable[[], Arrays]
    form: str = ""


TRIES = 3


def fastest(forms: Iterable[T], train: Callable[[T], None]) -> T:
    """Return the form that trains the fastest: each first prepares, then they take turns."""
    seconds: dict[T, list[float]] = {form: [] for form in forms}
    for form in seconds:
        train(form)
    for _ in range(TRIES if len(seconds) > 1 else 0):
        for form, mine in seconds.items():
            began = perf_counter()
            train(form)
            mine.append(perf_counter() - began)
    return min(seconds, key=lambda form: min(seconds[form], default=0))
