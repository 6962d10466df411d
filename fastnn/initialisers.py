"""Where training starts: weights and biases drawn on the host, the same for every device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.errors import known_name

__all__ = ["INITIALISERS", "initial_parameters"]

# name -> (variance of the weights for n_in and n_out units, variance of the biases)
_VARIANCES: dict[str, tuple[Callable[[int, int], float], float]] = {
    "scaled": (lambda n_in, n_out: 1 / n_in, 1.0),
    "normal": (lambda n_in, n_out: 1.0, 1.0),
    "glorot": (lambda n_in, n_out: 2 / (n_in + n_out), 0.0),
    "he": (lambda n_in, n_out: 2 / n_in, 0.0),
}

INITIALISERS = tuple(_VARIANCES)


def initial_parameters(
    sizes: Sequence[int], init: str, seed: int
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Draw W (n_out, n_in) and b (n_out,) of every layer from normal distributions of mean 0.

    ==========  ====================  ========  =================================================
    init        Var W                 Var b     source
    ==========  ====================  ========  =================================================
    scaled      1/n_in                1         Nielsen, chapter 3
    normal      1                     1         Nielsen, chapter 1
    glorot      2/(n_in + n_out)      0         Glorot and Bengio, 2010
    he          2/n_in                0         He, Zhang, Ren and Sun, 2015
    ==========  ====================  ========  =================================================

    The stream is PCG64 from ``seed``: W then b, from the first layer to the last, in float64.
    """
    weight_variance, bias_variance = _VARIANCES[known_name("initialiser", init, INITIALISERS)]
    rng = np.random.default_rng(seed)
    weights, biases = [], []
    for n_in, n_out in pairwise(sizes):
        weights.append(rng.standard_normal((n_out, n_in)) * weight_variance(n_in, n_out) ** 0.5)
        biases.append(rng.standard_normal(n_out) * bias_variance**0.5)
    return weights, biases
