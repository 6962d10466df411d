"""Numba on the CPU: compiled kernels, and whole epochs in one call.

Its plain kernels take NumPy's arrays, and BLAS does their products. What it is for is the fused
step, :class:`fastnn.backends.numba_step.EpochStep`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn.backends.base import Plan, Step
from fastnn.backends.blas import find_blas
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.backends.threads import processors, together
from fastnn.kernels.reference import GRADIENT_FACTOR, MATCHED

Array = NDArray[Any]

# With so many multiplications each, a further thread is worth its start.
_WORTH_A_THREAD = 10_000_000
# Numbers that a mini-batch may fill: what is larger, up to a whole set, is not held as floats.
_PORTION = 1 << 23


class NumbaBackend(NumpyBackend):
    """Arrays are NumPy's own; host and device are the same memory."""

    name: ClassVar[str] = "numba"

    def __init__(self, index: int | None = None, dtype: DTypeLike = "float32") -> None:
        super().__init__(index, dtype)
        from fastnn.backends.numba_code import code

        self._code = code(self.dtype)
        self._kernels = self._code.kernels
        self._codes = self._code.sigma.CODES
        self._number = self.dtype.type

    @classmethod
    def unavailable(cls, index: int | None = None) -> str | None:
        """Return None, or why Numba cannot be used here."""
        if find_spec("numba") is None:
            return "Numba is not installed (pip install numba)."
        return super().unavailable(index)

    @property
    def detail(self) -> str:
        """Numba's version, the vector instructions, and the BLAS."""
        import numba

        return f"Numba {numba.__version__}, {self._code.tiles.SIMD}, {find_blas().detail}"

    def asarray(self, host: Array) -> Array:
        """Return the host array itself, made C-ordered and aligned if it is not."""
        return np.require(host, requirements=["C_CONTIGUOUS", "ALIGNED"])

    def gather(
        self, rows: Array, order: Array, start: int, stop: int, scale: float, out: Array
    ) -> None:
        """out[i] = scale · rows[order[start + i]]."""
        self._kernels.gather(rows, order, start, stop, self._number(scale), out)

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
        """out ← alpha · op(a) op(b) + beta · out."""
        rows, columns = out.shape
        multiplications = columns * a.size  # rows · columns · the length of the sums
        team = 1
        if find_blas().single:
            team = max(1, min(processors(), rows, multiplications // _WORTH_A_THREAD))
        how = transpose_a, transpose_b, self._number(alpha), self._number(beta)

        def multiply(rank: int) -> None:
            start, stop = rows * rank // team, rows * (rank + 1) // team
            self._code.blas.matmul(a, b, *how, out, start, stop)

        together(team, multiply)

    def sum_rows(self, delta: Array, out: Array, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        """out ← alpha · Σ_i delta_i + beta · out."""
        self._kernels.sum_rows(delta, self._number(alpha), self._number(beta), out)

    def activate(self, b: Array, activation: str, out: Array) -> None:
        """out ← σ(out + b)."""
        self._kernels.activate(b, self._codes[activation], out)

    def hadamard(self, a: Array, activation: str, out: Array) -> None:
        """out ← out ⊙ σ′(z), with a = σ(z)."""
        self._kernels.hadamard(a, self._codes[activation], out)

    def output_delta(self, a: Array, y: Array, activation: str, cost: str, out: Array) -> None:
        """BP1: out = ∇_a C ⊙ σ′(z^L)."""
        factor = self._number(GRADIENT_FACTOR.get(cost, 1))
        cancelled = "identity" if cost in MATCHED else activation
        self._kernels.output_delta(a, y, factor, self._codes[cancelled], out)

    def fused_step(self, plan: Plan) -> Step | None:
        """Return the step that takes an epoch in one call, or None for very large mini-batches."""
        if plan.batch_size * max(plan.sizes) > _PORTION:
            return None
        from fastnn.backends.numba_step import EpochStep

        return EpochStep(plan, self._code, self.dtype)
