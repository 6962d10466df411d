"""The activation functions by name, and which layer has which.

Their formulas σ and σ′ stand in :mod:`fastnn.kernels.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.errors import ArgumentError, known_name
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
    if not isinstance(activation, Sequence):
        raise ArgumentError(f"activation must be a name or a list of names, not {activation!r}")
    # A single name is checked even where there is no hidden layer for it to apply to.
    for name in (activation,) if isinstance(activation, str) else activation:
        if name == "softmax":
            raise ArgumentError("softmax is for the output layer; a hidden layer cannot have it")
        known_name("activation", name, HIDDEN)
    hidden = (activation,) * n_hidden if isinstance(activation, str) else tuple(activation)
    known_name("output activation", output, OUTPUT)
    if len(hidden) != n_hidden:
        raise ArgumentError(
            f"{len(hidden)} activations were given for {n_hidden} hidden layers; "
            "give one name for all, or one each"
        )
    return (*hidden, output)
