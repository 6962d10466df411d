"""A device that forgives nothing, where no real one is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn.backends.base import Backend, Shape
from fastnn.kernels import reference

__all__ = ["StrictBackend"]

Array = NDArray[Any]


class _Handle:
    """An opaque array: whatever is done to it outside its backend is an error."""

    __array__ = None  # NumPy may not look inside
    __iter__ = None
    __len__ = None

    def __init__(self, owner: StrictBackend, memory: Array) -> None:
        self._owner, self._memory = owner, memory


class StrictBackend(Backend):
    """The reference kernels behind opaque handles, as on a GPU with every mistake made loud.

    Host memory is copied at the crossings; fresh memory is full of NaN; an array of another
    backend, of the wrong dtype or shape, or an ``out`` that overlaps an input raises a TypeError or
    ValueError.
    """

    name: ClassVar[str] = "strict"

    def _open(self, handle: Any) -> Array:
        if not isinstance(handle, _Handle) or handle._owner is not self:
            raise TypeError(f"this is no array of this backend: {handle!r}")
        return handle._memory

    def _floats(self, *handles: Any) -> list[Array]:
        arrays = [self._open(handle) for handle in handles]
        if any(array.dtype != self.dtype for array in arrays):
            raise TypeError(f"not all of {self.dtype}: {[str(array.dtype) for array in arrays]}")
        return arrays

    def _write(self, out: Any, value: Array, *inputs: Array) -> None:
        (memory,) = self._floats(out)
        if memory.shape != value.shape:
            raise ValueError(f"a result of shape {value.shape} into an array of {memory.shape}")
        if any(np.shares_memory(memory, array) for array in inputs):
            raise ValueError("out overlaps an input")
        memory[...] = value

    def asarray(self, host: Array) -> _Handle:
        """Return a copy behind a handle."""
        if not isinstance(host, np.ndarray):
            raise TypeError(f"not a NumPy array: {type(host).__name__}")
        return _Handle(self, host.copy(order="C"))

    def to_numpy(self, array: _Handle) -> Array:
        """Return a copy of what the handle holds."""
        return self._open(array).copy()

    def empty(self, shape: Shape, dtype: DTypeLike) -> _Handle:
        """Return memory full of NaN, or of the largest number of an integer type."""
        kind = np.dtype(dtype)
        trap = np.nan if np.issubdtype(kind, np.floating) else np.iinfo(kind).max
        return _Handle(self, np.full(shape, trap, kind))

    def views(self, flat: _Handle, shapes: Sequence[Shape]) -> list[_Handle]:
        """Return handles on consecutive pieces."""
        memory, start, pieces = self._open(flat), 0, []
        for shape in shapes:
            stop = start + int(np.prod(shape))
            if memory.ndim != 1 or stop > memory.size:
                raise ValueError(f"no room for {list(shapes)} in an array of {memory.shape}")
            pieces.append(_Handle(self, memory[start:stop].reshape(shape)))
            start = stop
        return pieces

    def gather(
        self, rows: _Handle, order: _Handle, start: int, stop: int, scale: float, out: _Handle
    ) -> None:
        """See :func:`fastnn.kernels.reference.gather`."""
        source, places = self._open(rows), self._open(order)
        if source.dtype not in (np.uint8, self.dtype) or places.dtype != np.int32:
            raise TypeError(f"rows of {source.dtype}, order of {places.dtype}")
        if not 0 <= start <= stop <= len(places):
            raise ValueError(f"no samples {start} to {stop} in an order of {len(places)}")
        value = reference.gather(source, places, start, stop, scale)
        self._write(out, value, source, places)

    def matmul(
        self,
        a: _Handle,
        b: _Handle,
        out: _Handle,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        """See :func:`fastnn.kernels.reference.matmul`."""
        left, right, target = self._floats(a, b, out)
        value = reference.matmul(
            left,
            right,
            target,
            transpose_a=transpose_a,
            transpose_b=transpose_b,
            alpha=alpha,
            beta=beta,
        )
        self._write(out, value, left, right)

    def sum_rows(
        self, delta: _Handle, out: _Handle, *, alpha: float = 1.0, beta: float = 0.0
    ) -> None:
        """See :func:`fastnn.kernels.reference.sum_rows`."""
        d, target = self._floats(delta, out)
        self._write(out, reference.sum_rows(d, target, alpha=alpha, beta=beta), d)

    def activate(self, b: _Handle, activation: str, out: _Handle) -> None:
        """See :func:`fastnn.kernels.reference.activate`."""
        bias, z = self._floats(b, out)
        _refuse_spreading(bias, z[0])
        self._write(out, reference.activate(z, bias, activation), bias)

    def hadamard(self, a: _Handle, activation: str, out: _Handle) -> None:
        """See :func:`fastnn.kernels.reference.hadamard`."""
        factor, d = self._floats(a, out)
        _refuse_spreading(factor, d)
        self._write(out, reference.hadamard(d, factor, activation), factor)

    def output_delta(
        self, a: _Handle, y: _Handle, activation: str, cost: str, out: _Handle
    ) -> None:
        """See :func:`fastnn.kernels.reference.output_delta`."""
        outputs, targets = self._floats(a, y)
        _refuse_spreading(outputs, targets)
        value = reference.output_delta(outputs, targets, activation, cost)
        self._write(out, value, outputs, targets)


def _refuse_spreading(a: Array, b: Array) -> None:
    """NumPy would spread a (1, n) over an (m, n); a kernel would read beyond its end."""
    if a.shape != b.shape:
        raise ValueError(f"arrays of shapes {a.shape} and {b.shape}, which should be the same")
