"""Samples on a device, and what a network makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.backends.base import Array, Backend, Layer
from fastnn.backprop import feed_forward
from fastnn.errors import DataError

__all__ = ["Samples"]

# So many numbers a buffer at the most: the portions stay in a CPU's cache and are enough for a GPU.
PORTION = 1 << 20


class Samples:
    """Samples on a device, fed through a network in portions.

    Parameters
    ----------
    backend, sizes
        The network's.
    x
        (n, sizes[0]), uint8 or floats, n ≥ 1. Bytes stay bytes; they are scaled portion by portion.

    Attributes
    ----------
    rows
        x on the device.
    scale
        What the rows are to be multiplied by: 1/255 for bytes, 1 for floats.

    Raises
    ------
    DataError
        If x is of another type or width.
    """

    def __init__(self, backend: Backend, sizes: Sequence[int], x: NDArray[Any]) -> None:
        if x.ndim != 2 or x.shape[1] != sizes[0]:
            shape = " × ".join(map(str, x.shape))
            raise DataError(
                f"the network takes samples of {sizes[0]} numbers, one a row; these are {shape}"
            )
        if x.dtype != np.uint8:
            if not np.issubdtype(x.dtype, np.floating):
                raise DataError(
                    "samples must be uint8 (scaled by 1/255) or floats (taken as they are), "
                    f"not {x.dtype}"
                )
            x = x.astype(backend.dtype, copy=False)
        self.rows: Array = backend.asarray(x)
        self.scale = 1 / 255 if x.dtype == np.uint8 else 1.0
        self._backend = backend

        n, n_out = len(x), sizes[-1]
        portion = min(n, max(1, PORTION // max(sizes)))
        self._spans = [(start, min(start + portion, n)) for start in range(0, n, portion)]
        self._order = backend.asarray(np.arange(n, dtype=np.int32))

        def buffers(m: int) -> list[Array]:
            return [backend.empty((m, units), backend.dtype) for units in sizes[:-1]]

        self._full, self._tail = buffers(portion), buffers(n % portion or portion)
        # Each portion's last layer writes its part of the whole: one read from the device.
        self._shape = (n, n_out)
        self._flat = backend.empty((n * n_out,), backend.dtype)
        self._parts = backend.views(
            self._flat, [(stop - start, n_out) for start, stop in self._spans]
        )

    def outputs(self, layers: Sequence[Layer]) -> NDArray[Any]:
        """Return the outputs of the layers, (n, sizes[-1]), on the host."""
        for (start, stop), part in zip(self._spans, self._parts, strict=True):
            hidden = self._tail if stop == self._shape[0] else self._full
            self._backend.gather(self.rows, self._order, start, stop, self.scale, hidden[0])
            feed_forward(self._backend, layers, [*hidden, part])
        return self._backend.to_numpy(self._flat).reshape(self._shape)
