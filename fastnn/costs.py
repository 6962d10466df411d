"""The costs of the texts, as numbers for a person to read.

Their gradients, which training uses, are BP1: ``output_delta`` in :mod:`fastnn.kernels.reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.errors import ArgumentError, known_name
from fastnn.kernels.reference import MATCHED

__all__ = ["COSTS", "check_pair", "mean_cost"]

Array = NDArray[Any]


def _log(p: Array) -> Array:
    """ln p, where a probability below the resolution of p's type counts as that resolution.

    Without the floor one saturated float32 output would make the whole reported cost infinite.
    """
    logarithm: Array = np.log(np.maximum(p, np.finfo(p.dtype).eps / 2))
    return logarithm


# Σ over outputs and samples; a: outputs (n, n_out), y: targets of the same shape.
_TOTAL: dict[str, Callable[[Array, Array], Array]] = {
    "quadratic": lambda a, y: 0.5 * np.square(y - a),
    "squared-error": lambda a, y: np.square(y - a),
    "cross-entropy": lambda a, y: -(y * _log(a) + (1 - y) * _log(1 - a)),
    "log-likelihood": lambda a, y: -(y * _log(a)),
}

COSTS = tuple(_TOTAL)

# So many numbers at a time stay in the cache, with all that is made of them on the way.
_BLOCK = 1 << 15


def mean_cost(cost: str, a: Array, y: Array, weights: Array | None = None) -> float:
    """C, the mean over the samples of each one's cost.

    ==================  ==================================================
    ``quadratic``       1/2n Σ ‖y - a‖²
    ``squared-error``   1/n Σ ‖y - a‖²  (some lecture notes' convention)
    ``cross-entropy``   -1/n Σ Σ_j [y_j ln a_j + (1 - y_j) ln(1 - a_j)]
    ``log-likelihood``  -1/n Σ ln a_label
    ==================  ==================================================

    Parameters
    ----------
    cost
        One of :data:`COSTS`.
    a, y
        Outputs and targets, (n, n_out) each.
    weights
        How much each sample's cost counts, (n, 1); None where all count once.
    """
    total, rows = 0.0, max(1, _BLOCK // a.shape[1])
    for start in range(0, len(a), rows):
        some = slice(start, start + rows)
        costs = _TOTAL[cost](a[some], y[some])
        if weights is not None:
            costs *= weights[some]
        total += float(np.sum(costs, dtype=np.float64))
    return total / len(a)


def check_pair(cost: str, output: str) -> None:
    """Refuse a cost that makes no sense with the output activation.

    Raises
    ------
    ArgumentError
        For an unknown cost; for cross-entropy without sigmoid or log-likelihood without softmax,
        which are defined on probabilities; for softmax with a cost that treats its outputs as
        independent.
    """
    known_name("cost", cost, COSTS)
    if output == "softmax" and cost != "log-likelihood":
        advice = "softmax goes with 'log-likelihood'"
    elif cost in MATCHED and output != MATCHED[cost]:
        advice = f"it goes with output {MATCHED[cost]!r}; 'quadratic' goes with {output!r}"
    else:
        return
    raise ArgumentError(f"cost {cost!r} makes no sense with output {output!r}: {advice}")
