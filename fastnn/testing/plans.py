"""A plan without the loop, for tests that take a step by hand."""

from __future__ import annotations

from typing import Any

from fastnn.backends.base import Plan
from fastnn.data import Dataset
from fastnn.descent import Descent
from fastnn.network import Network
from fastnn.scoring import Scorer, fitting

__all__ = ["plan_for"]


def plan_for(network: Network, data: Dataset, batch_size: int, **descent: Any) -> Plan:
    """Return what a step needs to train a network on a set; the rest is as in :class:`Descent`."""
    training = Scorer(network, fitting(network, "training", data))
    return Descent(**descent).plan(network, training, batch_size)
