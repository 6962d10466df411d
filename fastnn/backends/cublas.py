"""Products by cuBLAS, on a handle of our own.

CuPy's own calls of cuBLAS refuse to be recorded into a graph. Here the library that CuPy loaded is
called by ctypes, with the factors either from the host or from the GPU, where a recorded call finds
what they are by then.
"""

from __future__ import annotations

import weakref
from ctypes import byref, c_double, c_float, c_int, c_size_t, c_void_p
from typing import Any, NamedTuple

import numpy as np

from fastnn.errors import DeviceError

__all__ = ["WORKSPACE_BYTES", "Cublas", "Matrix"]

WORKSPACE_BYTES = 32 << 20  # as NVIDIA advises for Hopper; given beforehand, none is taken later

_GEMM = {"float32": (c_float, "cublasSgemm_v2"), "float64": (c_double, "cublasDgemm_v2")}
_DEFAULT_MATH, _TF32 = 0, 3
_STATUS = {
    1: "it is not initialised",
    3: "memory could not be had",
    7: "an argument is out of its range",
    8: "the GPU lacks what is asked for",
    13: "the computation failed on the GPU",
    14: "an operation inside the library failed",
    15: "this is not supported",
}


class Matrix(NamedTuple):
    """Where a C-ordered matrix lies on the GPU."""

    address: int
    rows: int
    columns: int


class Cublas:
    """cuBLAS on one stream.

    Parameters
    ----------
    library
        The library, by ctypes.
    stream, workspace
        Addresses of a CUDA stream and of WORKSPACE_BYTES of the GPU's memory.
    tf32
        Whether products in float32 may round their factors to 11 bits.
    kept
        Whatever those two are of: it lives until cuBLAS is done with them.
    """

    def __init__(
        self, library: Any, stream: int, workspace: int, tf32: bool, kept: Any = None
    ) -> None:
        self._library, self._handle = library, c_void_p()
        self._call("cublasCreate_v2", byref(self._handle), handle=False)
        self._call("cublasSetStream_v2", c_void_p(stream))
        self._call("cublasSetWorkspace_v2", c_void_p(workspace), c_size_t(WORKSPACE_BYTES))
        self._call("cublasSetMathMode", c_int(_TF32 if tf32 else _DEFAULT_MATH))
        weakref.finalize(self, _destroy, library, self._handle, kept).atexit = False

    def gemm(
        self,
        dtype: np.dtype[Any],
        a: Matrix,
        b: Matrix,
        out: Matrix,
        transpose_a: bool,
        transpose_b: bool,
        alpha: float | int,
        beta: float | int,
    ) -> None:
        """out ← alpha · op(a) op(b) + beta · out.

        cuBLAS stores columns where we store rows: to it each matrix is its own transpose, and what
        it is told to do is outᵀ ← alpha · op(b)ᵀ op(a)ᵀ + beta · outᵀ.

        Parameters
        ----------
        dtype
            float32 or float64, of all matrices.
        alpha, beta
            Both floats, or both ints: the addresses on the GPU where they are found.
        """
        number, name = _GEMM[dtype.name]
        on_gpu = isinstance(alpha, int)
        factors = [
            c_void_p(factor) if isinstance(factor, int) else byref(number(factor))
            for factor in (alpha, beta)
        ]
        length = a.rows if transpose_a else a.columns
        self._call("cublasSetPointerMode_v2", c_int(on_gpu))
        self._call(
            name,
            c_int(transpose_b),
            c_int(transpose_a),
            c_int(out.columns),
            c_int(out.rows),
            c_int(length),
            factors[0],
            c_void_p(b.address),
            c_int(b.columns),
            c_void_p(a.address),
            c_int(a.columns),
            factors[1],
            c_void_p(out.address),
            c_int(out.columns),
        )

    def _call(self, function: str, *arguments: Any, handle: bool = True) -> None:
        own = (self._handle,) if handle else ()
        status = getattr(self._library, function)(*own, *arguments)
        if status:
            what = _STATUS.get(status, "it does not say why")
            raise DeviceError(f"cuBLAS failed in {function}: {what} (status {status})")


def _destroy(library: Any, handle: c_void_p, kept: Any) -> None:
    library.cublasDestroy_v2(handle)
