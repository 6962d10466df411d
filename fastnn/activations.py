"""The activation functions by name, and which layer has which.

Their formulas σ and σ′ stand in :mod:`fastnn.kernels.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.errors import ArgumentError, did_you_mean
from fastnn.kernels.reference import SIGMA, SIGMA_PRIME

__all__ = ["HIDDEN", "OUTPUT", "layer_activations"]

HIDDEN = tuple(SIGMA_PRIME)
OUTPUT = tuple(SIGMA)


def layer_activations(
    activation: str | Sequence[str], output: str, n_hidden: int
) -> tuple[str, ...]:
    """Return one name a layer, the output layer last.

    Parameters
    ----------
    activation
        One name for all hidden layers, or a sequence with one each.
    output
        The name for the output layer; "softmax" may only stand here.
    n_hidden
        The number of hidden layers.

    Raises
    ------
    ArgumentError
        For an unknown name, softmax in a hidden layer, or a sequence of the wrong length.
    """
    hidden = (activation,) * n_hidden if isinstance(activation, str) else tuple(activation)
    # A single name is checked even where there is no hidden layer for it to apply to.
    for name in hidden or ((activation,) if isinstance(activation, str) else ()):
        if name == "softmax":
            raise ArgumentError("softmax is for the output layer; a hidden layer cannot have it")
        if name not in HIDDEN:
            raise ArgumentError(did_you_mean("activation", str(name), HIDDEN))
    if output not in OUTPUT:
        raise ArgumentError(did_you_mean("output activation", str(output), OUTPUT))
    if len(hidden) != n_hidden:
        raise ArgumentError(
            f"{len(hidden)} activations were given for {n_hidden} hidden layers; "
            "give one name for all, or one each"
        )
    return (*hidden, output)
