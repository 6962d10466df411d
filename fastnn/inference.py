"""Samples on a device, and what a network makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.backends.base import Array, Backend, Layer
from fastnn.backprop import feed_forward
from fastnn.checks import fits_memory
from fastnn.errors import DataError

__all__ = ["Portions", "Samples"]

# So many numbers a buffer at the most: the portions stay in a CPU's cache and are enough for a GPU.
PORTION = 1 << 20


class Samples:
    """Samples on a device, fed through a network: in the device's own way, or in portions.

    Parameters
    ----------
    backend, sizes
        The network's.
    x
        (n, sizes[0]), as :func:`fastnn.data.arrays.as_samples` gives them. Bytes stay bytes; they
        are scaled as they are fed.

    Attributes
    ----------
    rows
        x on the device.
    scale
        What the rows are to be multiplied by: 1/255 for bytes, 1 for floats.

    Raises
    ------
    DataError
        If a number is beyond the backend's precision.
    ArgumentError
        If the outputs would not fit into this machine's memory.
    """

    def __init__(self, backend: Backend, sizes: Sequence[int], x: NDArray[Any]) -> None:
        if x.dtype != np.uint8 and x.dtype != backend.dtype:
            with np.errstate(over="ignore"):
                x = x.astype(backend.dtype)
            if not np.isfinite(x).all():
                raise DataError(f"a sample holds a number too large for {backend.dtype}")
        self.rows: Array = backend.asarray(x)
        self.scale = 1 / 255 if x.dtype == np.uint8 else 1.0
        self._backend = backend

        n, n_out = len(x), sizes[-1]
        fits_memory(f"the outputs for {n:,} samples", n * n_out * backend.dtype.itemsize)
        self._shape = (n, n_out)
        self._outputs = backend.empty((n * n_out,), backend.dtype)  # one read from the device
        self._feed = backend.fused_feed(sizes, self.rows, self.scale, n) or Portions(
            backend, sizes, self.rows, self.scale, n
        )

    def outputs(self, layers: Sequence[Layer]) -> NDArray[Any]:
        """Return the outputs of the layers, (n, sizes[-1]), on the host.

        What overflows shows as outputs that are not finite, for the caller to look for.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            self._feed(layers, self._outputs)
        return self._backend.to_numpy(self._outputs).reshape(self._shape)


class Portions:
    """The plain :class:`fastnn.backends.base.Feed`, in portions over the methods of any backend."""

    def __init__(
        self, backend: Backend, sizes: Sequence[int], rows: Array, scale: float, n: int
    ) -> None:
        self._backend, self._rows, self._scale = backend, rows, scale
        portion = min(n, max(1, PORTION // max(sizes)))
        self._spans = [(start, min(start + portion, n)) for start in range(0, n, portion)]
        self._order = backend.asarray(np.arange(n, dtype=np.int32))
        self._shapes = [(stop - start, sizes[-1]) for start, stop in self._spans]

        def buffers(m: int) -> list[Array]:
            return [backend.empty((m, units), backend.dtype) for units in sizes[:-1]]

        self._full, self._tail = buffers(portion), buffers(n % portion or portion)

    def __call__(self, layers: Sequence[Layer], out: Array) -> None:
        """Let out be the outputs, one sample after the other."""
        # Each portion's last layer writes its part of the whole.
        parts = self._backend.views(out, self._shapes)
        for (start, stop), part in zip(self._spans, parts, strict=True):
            hidden = self._tail if stop == self._spans[-1][1] else self._full
            self._backend.gather(self._rows, self._order, start, stop, self._scale, hidden[0])
            feed_forward(self._backend, layers, [*hidden, part])
