"""What devices have in common whose arrays are NumPy's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn.backends.base import Backend, Shape, pieces

__all__ = ["Array", "HostBackend"]

Array = NDArray[Any]


class HostBackend(Backend):
    """The crossings of a device whose memory is the host's."""

    def asarray(self, host: Array) -> Array:
        """Return the host array itself, made C-ordered and aligned if it is not."""
        return np.require(host, requirements=["C_CONTIGUOUS", "ALIGNED"])

    def to_numpy(self, array: Array) -> Array:
        """Return a copy."""
        return array.copy()

    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        """Return np.empty."""
        return np.empty(shape, dtype)

    def views(self, flat: Array, shapes: Sequence[Shape]) -> list[Array]:
        """Return reshaped slices."""
        return pieces(flat, shapes)

    def scale_rows(self, weights: Array, out: Array) -> None:
        """out[i] ← w_i · out[i]."""
        out *= weights

    def _on_the_host(
        self,
        kernel: Callable[..., tuple[Array, ...]],
        outs: Sequence[Array],
        inputs: Sequence[Array],
        *how: Any,
    ) -> None:
        """Let the outs be what a kernel of the reference makes of them and the inputs."""
        for out, result in zip(outs, kernel(*outs, *inputs, *how), strict=True):
            out[...] = result
