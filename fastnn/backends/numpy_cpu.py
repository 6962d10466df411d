"""NumPy on the CPU: the device that is always there.

Whole-array operations, written into their buffers. Products are called through SciPy's BLAS, which
has alpha and beta: the update of the weights is one call straight into them, twice as fast as
NumPy's product, scaling and subtraction. At the book's sizes a step is some thirty calls of about a
microsecond, so that what a call costs counts more than what it computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import scipy
from numpy.typing import DTypeLike
from scipy.linalg.blas import dgemm, dgemv, sgemm, sgemv

from fastnn.backends.host import Array, HostBackend
from fastnn.kernels.reference import GRADIENT_FACTOR, LEAK, MATCHED, SIGMA_PRIME

# An array, since NumPy takes twice as long over a Python number; exact in both precisions.
_HALF = np.array(0.5, np.float32)


def _sigmoid(z: Array) -> None:
    z *= _HALF
    np.tanh(z, out=z)
    z *= _HALF
    z += _HALF


def _tanh(z: Array) -> None:
    np.tanh(z, out=z)


def _relu(z: Array) -> None:
    np.maximum(z, 0, out=z)


def _leaky_relu(z: Array) -> None:
    np.maximum(z, LEAK * z, out=z)


def _identity(z: Array) -> None:
    pass


def _softmax(z: Array) -> None:
    z -= z.max(axis=1, keepdims=True)
    np.exp(z, out=z)
    z /= z.sum(axis=1, keepdims=True)


_SIGMA: dict[str, Callable[[Array], None]] = {
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "relu": _relu,
    "leaky-relu": _leaky_relu,
    "identity": _identity,
    "softmax": _softmax,
}


class NumpyBackend(HostBackend):
    """Operations on whole arrays."""

    name: ClassVar[str] = "numpy"

    def __init__(self, index: int | None = None, dtype: DTypeLike = "float32") -> None:
        super().__init__(index, dtype)
        single = self.dtype == np.float32
        self._gemm, self._gemv = (sgemm, sgemv) if single else (dgemm, dgemv)
        self._ones = np.ones(1, self.dtype)

    @property
    def detail(self) -> str:
        """NumPy's version, and the BLAS that does the products, as SciPy loaded it."""
        from threadpoolctl import threadpool_info

        # SciPy's wheel brings a BLAS of its own beside NumPy's; elsewhere there is one for both.
        blas = sorted(
            (lib for lib in threadpool_info() if lib["user_api"] == "blas"),
            key=lambda lib: "scipy.libs" not in lib["filepath"],
        )
        about = [
            f"{lib['internal_api']} {lib['version']} ({lib.get('architecture', 'unknown')}), "
            f"{lib['num_threads']} threads"
            for lib in blas[:1]
        ]
        return ", ".join([f"NumPy {np.__version__}", f"SciPy {scipy.__version__}", *about])

    def gather(
        self, rows: Array, order: Array, start: int, stop: int, scale: float, out: Array
    ) -> None:
        """out[i] = scale · rows[order[start + i]]."""
        out[...] = rows.take(order[start:stop], axis=0)
        if scale != 1:
            out *= scale

    def matmul(
        self,
        a: Array,
        b: Array,
        out: Array,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        """outᵀ ← alpha · op(b)ᵀ op(a)ᵀ + beta · outᵀ: BLAS stores columns where we store rows."""
        self._gemm(alpha, b.T, a.T, beta, out.T, transpose_b, transpose_a, 1)

    def sum_rows(self, delta: Array, out: Array, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        """out ← alpha · Σ_i delta_i + beta · out."""
        m = len(delta)
        ones = self._ones
        if m > len(ones):
            ones = self._ones = np.ones(m, self.dtype)
        if not beta:
            out.fill(0)  # unlike GEMM, GEMV lets a NaN through
        # Behind out: offsets and strides of both vectors, no transposition, overwrite.
        self._gemv(alpha, delta.T, ones[:m], beta, out, 0, 1, 0, 1, 0, 1)

    def activate(self, b: Array, activation: str, out: Array) -> None:
        """out ← σ(out + b)."""
        out += b
        _SIGMA[activation](out)

    def hadamard(self, a: Array, activation: str, out: Array) -> None:
        """out ← out ⊙ σ′(z), with a = σ(z)."""
        out *= SIGMA_PRIME[activation](a)

    def output_delta(self, a: Array, y: Array, activation: str, cost: str, out: Array) -> None:
        """BP1: out = ∇_a C ⊙ σ′(z^L)."""
        np.subtract(a, y, out=out)
        if cost not in MATCHED:
            out *= GRADIENT_FACTOR[cost]
            self.hadamard(a, activation, out)
