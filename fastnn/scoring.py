"""How well a network does on labelled samples."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.backends.base import Plan
from fastnn.costs import mean_cost
from fastnn.data import Dataset
from fastnn.errors import ArgumentError, DataError
from fastnn.history import Score
from fastnn.inference import Samples
from fastnn.network import Network

__all__ = ["LabelledSamples", "Scorer", "check_network", "evaluate", "fitting"]

LabelledSamples: TypeAlias = (
    Dataset | tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike]
)


def evaluate(network: Network, data: LabelledSamples) -> Score:
    """Return the mean cost of a network on a labelled set, and the part of it classified rightly.

    Parameters
    ----------
    network
        The network.
    data
        A :class:`fastnn.Dataset` or a pair (x, class numbers), as in :func:`train`.

    Returns
    -------
    fastnn.Score
        The cost and the accuracy, 0 to 1.

    Raises
    ------
    DataError
        If the set does not fit the network, or the cost is beyond all numbers.
    """
    check_network(network)
    with np.errstate(over="ignore", invalid="ignore"):
        score = Scorer(network, fitting(network, "given", data))()
    if not np.isfinite(score.cost):
        raise DataError("the cost is not a finite number: are the samples in their range?")
    return score


class Scorer:
    """A labelled set on the network's device, to be measured again and again."""

    def __init__(self, network: Network, data: Dataset) -> None:
        self._network, self.data = network, data
        self.samples = Samples(network.backend, network.sizes, data.x)
        # One-hot, as bytes: a row a sample, with a 1 at its class.
        self.targets: NDArray[np.uint8] = np.zeros((len(data), network.sizes[-1]), np.uint8)
        self.targets[np.arange(len(data)), data.labels] = 1

    def plan(self, batch_size: int) -> Plan:
        """Return what it takes to train on the set, all samples alike."""
        network = self._network
        return Plan(
            layers=network.layers,
            sizes=network.sizes,
            cost=network.cost,
            inputs=self.samples.rows,
            scale=self.samples.scale,
            targets=network.backend.asarray(self.targets),
            n=len(self.targets),
            batch_size=batch_size,
        )

    def __call__(self, weights: NDArray[Any] | None = None) -> Score:
        """Return the score of the network as it is now; with weights (n, 1) the cost by these."""
        outputs = self.samples.outputs(self._network.layers)
        return Score(
            cost=mean_cost(self._network.cost, outputs, self.targets, weights),
            accuracy=float(np.mean(outputs.argmax(axis=1) == self.data.labels)),
        )


def check_network(network: object) -> None:
    """Raise an ArgumentError if it is none."""
    if not isinstance(network, Network):
        raise ArgumentError(f"network must be a fastnn.Network, not {type(network).__name__}")


def fitting(network: Network, what: str, data: LabelledSamples) -> Dataset:
    """Return the data as a Dataset whose samples and labels fit the network."""
    dataset = Dataset.of(data)
    n_in, n_out = network.sizes[0], network.sizes[-1]
    if dataset.features != n_in:
        raise DataError(
            f"the {what} set's samples have {dataset.features} numbers each; "
            f"the network takes {n_in}"
        )
    if (largest := int(dataset.labels.max())) >= n_out:
        raise DataError(
            f"the {what} set has the class number {largest}; the network's {n_out} outputs "
            f"stand for 0 to {n_out - 1}"
        )
    return dataset
