"""How the cost descends: class weights, the optimiser, penalties, gradient's length, dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from fastnn.backends.base import Array, Plan
from fastnn.checks import number_between, positive_number, weights_of_classes
from fastnn.data import Dataset
from fastnn.dropout import Dropout, Rates, layer_rates
from fastnn.errors import ArgumentError, DataError
from fastnn.network import Network
from fastnn.optimisers import SGD, Optimiser, Update, optimiser_of
from fastnn.scoring import Scorer

__all__ = ["Descent"]


@dataclass(frozen=True)
class Descent:
    """How the parameters follow from the gradients, whatever the data and the device.

    Parameters
    ----------
    optimiser, l1, l2, clip_norm, dropout, class_weights
        As in :func:`fastnn.train`.

    Raises
    ------
    ArgumentError
        For a name that is none, or a number out of its range.
    """

    optimiser: Optimiser = field(default_factory=SGD)  # or its name
    l1: float = 0.0
    l2: float = 0.0
    clip_norm: float | None = None
    dropout: Rates = 0.0
    class_weights: str | Sequence[float] | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("optimiser", optimiser_of(self.optimiser))
        put("l1", number_between("l1", self.l1, 0))
        put("l2", number_between("l2", self.l2, 0))
        if self.clip_norm is not None:
            put("clip_norm", positive_number("clip_norm", self.clip_norm))
        if self.class_weights is not None:
            put("class_weights", weights_of_classes(self.class_weights))

    def described(self) -> dict[str, Any]:
        """Return it as JSON can hold it, the optimiser with its name."""
        return {
            **asdict(self),
            "optimiser": {"name": self.optimiser.name, **asdict(self.optimiser)},
        }

    def decay(self, n: int) -> float:
        """Return what shrinks the weights beside the update, with n training samples.

        A mini-batch at the rate η has the factor 1 - η · decay for them.
        """
        return self.l2 / n if self.optimiser.decoupled else 0.0

    def plan(self, network: Network, training: Scorer, batch_size: int, seed: int = 0) -> Plan:
        """Return what a step needs to train a network on a set; the seed is that of dropout.

        Raises
        ------
        ArgumentError
            If there are not as many parts or class weights as the network has layers or outputs.
        DataError
            If the samples' weights are all 0, or beyond the backend's precision.
        """
        backend, sizes, plan = network.backend, network.sizes, training.plan(batch_size)
        plan = replace(plan, weights=self._weights(network, training.data))
        if rates := layer_rates(self.dropout, len(sizes) - 2):
            plan = replace(plan, dropout=Dropout(backend, rates, sizes, plan.n, seed))
        if self.optimiser == SGD() and not self.l1 and self.clip_norm is None:
            return plan  # and no subclass of SGD, which is no equal
        within = 0.0 if self.optimiser.decoupled else self.l2 / plan.n
        given = backend, network.layers, sizes, self.optimiser
        return replace(plan, update=Update(*given, self.l1 / plan.n, within, self.clip_norm))

    def check_classes(self, n_out: int) -> None:
        """Raise an ArgumentError unless each of so many outputs has a class weight, if any has."""
        weights = self.class_weights
        if weights is not None and not isinstance(weights, str) and len(weights) != n_out:
            raise ArgumentError(
                f"class_weights has {len(weights)} numbers; the network's {n_out} outputs stand "
                "for a class each"
            )

    def _weights(self, network: Network, data: Dataset) -> Array | None:
        """Return on the device how much each sample's cost counts, (n, 1); None if all do alike."""
        self.check_classes(network.sizes[-1])
        if self.class_weights is not None:
            data = data.weighted(self.class_weights)
        if data.weights is None:
            return None
        with np.errstate(over="ignore"):
            weights = data.weights.astype(network.backend.dtype)
        if not np.isfinite(weights).all():
            raise DataError(f"a sample's weight is too large for {weights.dtype}")
        if not weights.any():
            raise DataError("the training samples' weights are all 0: there is nothing to learn")
        return network.backend.asarray(weights[:, np.newaxis])
