"""Dropout: of each sample's way through the network, units chosen at random are left out.

What a unit that stays has to say is divided by 1 - rate, so that the layer above sees as much on
average. Which units rest is drawn by the sample's place in the epoch's order: the same on every
device, in whatever mini-batches and calls the samples are taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from fastnn.backends.base import Array, Backend
from fastnn.checks import number_between
from fastnn.errors import ArgumentError
from fastnn.kernels.reference import Dropped

__all__ = ["Dropout", "Rates", "layer_rates"]

Rates: TypeAlias = float | Sequence[float]


def layer_rates(given: Rates, hidden: int) -> tuple[float, ...] | None:
    """Return which part of the input and of each hidden layer is dropped; None if it is nothing.

    Parameters
    ----------
    given
        A part for every hidden layer, or one for the input and one for each hidden layer, from 0 to
        below 1.
    hidden
        How many hidden layers there are.

    Raises
    ------
    ArgumentError
        For a part out of its range, or too few or too many of them.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        rate = number_between("dropout", given, 0, 1)
        if rate and not hidden:
            raise ArgumentError(f"dropout {rate:g} is for hidden layers, and the network has none")
        rates = [0.0, *hidden * [rate]]
    else:
        rates = [number_between("dropout", part, 0, 1) for part in given]
        if len(rates) != 1 + hidden:
            raise ArgumentError(
                f"dropout is one part for all hidden layers, or {1 + hidden}, for the input and "
                f"for each hidden layer; not {len(rates)}"
            )
    return tuple(rates) if any(rates) else None


class Dropout:
    """Which units rest in a training.

    Parameters
    ----------
    backend
        The device.
    rates
        Which part of the input and of each hidden layer is dropped, from 0 to below 1.
    sizes
        Units of every layer, input first.
    n
        Samples in an epoch.
    seed
        Of the draws: each layer has a stream of its own, a number for each unit of each sample.

    Attributes
    ----------
    rates
        As given.
    keys
        Of the layers' streams.
    epoch
        The number of the epoch, from 1; whoever trains sets it.
    """

    def __init__(
        self, backend: Backend, rates: Sequence[float], sizes: Sequence[int], n: int, seed: int
    ) -> None:
        self.rates, self.epoch = tuple(rates), 1
        self._backend, self._sizes, self._n = backend, sizes, n
        # Of the seed's other streams epoch e's order has (e,).
        places = [(0, layer) for layer in range(len(rates))]
        streams = [np.random.SeedSequence(seed, spawn_key=place) for place in places]
        self.keys = [int(stream.generate_state(1, np.uint64)[0]) for stream in streams]

    def __call__(self, start: int, layer: int, a: Array, out: Array) -> None:
        """Let out be a layer's numbers, (m, n), without those of units that rest.

        Parameters
        ----------
        start
            The place of the first sample in the epoch's order.
        layer
            0 for the input, 1 for the first hidden layer.
        a
            Activations, or what back-propagation brought to them.
        out
            May be the same array, and is where no unit of the layer rests.
        """
        if not self.rates[layer]:
            return
        first = ((self.epoch - 1) * self._n + start) * self._sizes[layer]
        self._backend.drop(a, Dropped(self.keys[layer], first, self.rates[layer]), out)
