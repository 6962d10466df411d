"""Numba on the CPU: compiled kernels, and whole epochs in one call.

Its plain kernels take NumPy's arrays, and BLAS does their products. What it is for is the fused
step, :class:`fastnn.backends.numba_step.EpochStep`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from fastnn.backends.base import Plan, Step
from fastnn.backends.blas import find_blas
from fastnn.backends.host import Array, HostBackend
from fastnn.backends.numba_code import Code, code, modules
from fastnn.backends.numba_feed import WORTH_A_THREAD, CompiledFeed
from fastnn.backends.numba_step import EpochStep
from fastnn.kernels.reference import GRADIENT_FACTOR, MATCHED, Adam, Dropped, Momentum
from fastnn.threads import processors, team, together

# What the fused step leaves to the plain one, and so to BLAS: mini-batches of more numbers than
# that, since a whole set is not to be held as floats; and of more multiplications than that, where
# BLAS is faster (benchmarks/NOTES.md).
_MOST_NUMBERS = 1 << 23
_MOST_MULTIPLICATIONS = 2_000_000_000
# From so many samples on they are worth bringing the weights into another layout for; more weights
# than that are not to be held twice for each set that is measured.
_WORTH_A_LAYOUT, _MOST_COPIED = 1000, 1 << 24


class NumbaBackend(HostBackend):
    """Compiled kernels."""

    name: ClassVar[str] = "numba"

    def __init__(self, index: int | None = None, dtype: DTypeLike = "float32") -> None:
        super().__init__(index, dtype)
        modules()  # a Numba that does not fit this NumPy or Python says so here

    @cached_property
    def _code(self) -> Code:
        """The compiled kernels; where they have not been compiled yet, that takes a while."""
        return code(self.dtype)

    @classmethod
    def unavailable(cls, index: int | None = None) -> str | None:
        """Return None, or why Numba cannot be used here."""
        if find_spec("numba") is None:
            return "Numba is not installed (pip install numba)."
        if os.name == "nt":
            return "It waits for its threads by sched_yield, which Windows does not have."
        return super().unavailable(index)

    @property
    def detail(self) -> str:
        """Numba's version, the vector instructions, the threads at most, and the BLAS."""
        import numba

        simd = modules()[0].tiles.SIMD
        return f"Numba {numba.__version__}, {simd}, {processors()} threads, {find_blas().detail}"

    def gather(
        self, rows: Array, order: Array, start: int, stop: int, scale: float, out: Array
    ) -> None:
        """out[i] = scale · rows[order[start + i]]."""
        self._code.kernels.gather(rows, order, start, stop, self.dtype.type(scale), out)

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
        threads = team(multiplications, WORTH_A_THREAD) if find_blas().single else 1
        how = transpose_a, transpose_b, self.dtype.type(alpha), self.dtype.type(beta)

        def multiply(rank: int) -> None:
            start, stop = rows * rank // threads, rows * (rank + 1) // threads
            self._code.blas.matmul(a, b, *how, out, start, stop)

        together(threads, multiply)

    def sum_rows(self, delta: Array, out: Array, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        """out ← alpha · Σ_i delta_i + beta · out."""
        self._code.kernels.sum_rows(delta, self.dtype.type(alpha), self.dtype.type(beta), out)

    def activate(self, b: Array, activation: str, out: Array) -> None:
        """out ← σ(out + b)."""
        self._code.kernels.activate(b, self._code.sigma.CODES[activation], out)

    def hadamard(self, a: Array, activation: str, out: Array) -> None:
        """out ← out ⊙ σ′(z), with a = σ(z)."""
        self._code.kernels.hadamard(a, self._code.sigma.CODES[activation], out)

    def output_delta(self, a: Array, y: Array, activation: str, cost: str, out: Array) -> None:
        """BP1: out = ∇_a C ⊙ σ′(z^L)."""
        factor = self.dtype.type(GRADIENT_FACTOR.get(cost, 1))
        cancelled = "identity" if cost in MATCHED else activation
        self._code.kernels.output_delta(a, y, factor, self._code.sigma.CODES[cancelled], out)

    def momentum(self, w: Array, velocity: Array, gradient: Array, by: Momentum) -> None:
        """v ← μv - s and w ← shrink · w + v, by Nesterov + μv - s."""
        flat, number = (each.ravel() for each in (w, velocity, gradient)), self.dtype.type
        penalties = number(by.l1), number(by.l2), number(by.shrink)
        how = number(by.rate), number(by.mu), by.nesterov, *penalties
        self._code.kernels.momentum(*flat, *how)

    def adam(self, w: Array, mean: Array, square: Array, gradient: Array, by: Adam) -> None:
        """m ← β₁m + (1 - β₁)g, s ← β₂s + (1 - β₂)g², w ← shrink · w - η m̂ / (√ŝ + ε)."""
        betas = by.beta1, 1 - by.beta1, by.beta2, 1 - by.beta2
        unbiased = (1 / (1 - beta**by.taken) for beta in (by.beta1, by.beta2))
        how = by.rate, *betas, by.epsilon, *unbiased, by.l1, by.l2, by.shrink
        flat = (each.ravel() for each in (w, mean, square, gradient))
        self._code.kernels.adam(*flat, *map(self.dtype.type, how))

    def clip(self, gradient: Array, most: float) -> None:
        """g ← g · min(1, most / ‖g‖)."""
        self._code.kernels.clip(gradient, self.dtype.type(most))

    def drop(self, a: Array, by: Dropped, out: Array) -> None:
        """Inverted dropout: out_k = 0 if draw_k < rate, else a_k / (1 - rate)."""
        where = map(np.uint64, (by.key, by.first, by.threshold))
        if out is not a:
            out[...] = a
        self._code.kernels.drop(out.ravel(), *where, self.dtype.type(by.scale))

    def fused_step(self, plan: Plan) -> Step | None:
        """Return the step that takes an epoch in one call, or None for very large mini-batches."""
        return None if _declined(plan) else EpochStep(plan, self._code, self.dtype)

    def fused_feed(
        self, sizes: Sequence[int], rows: Array, scale: float, n: int
    ) -> CompiledFeed | None:
        """Return what feeds them forward in one call, or None where that is not worth a layout."""
        weights = sum(n_in * n_out for n_in, n_out in pairwise(sizes))
        if n < _WORTH_A_LAYOUT or weights > _MOST_COPIED:
            return None
        return CompiledFeed(sizes, rows, scale, self._code, self.dtype)

    def explain(self, plan: Plan) -> str:
        """Return which step the plan gets, and why."""
        reason = _declined(plan)
        return (
            f"plain: no epoch step, since {reason}"
            if reason
            else "epoch: all of it in one compiled call"
        )


def _declined(plan: Plan) -> str | None:
    """Return why a plan is not for the fused step, or None."""
    if plan.update is not None and not plan.update.is_descent:
        return "it is for gradient descent, with momentum and penalties, without clipping"
    if plan.batch_size * max(plan.sizes) > _MOST_NUMBERS:
        return "a mini-batch is so large that it goes in portions"
    weights = sum(n_in * n_out for n_in, n_out in pairwise(plan.sizes))
    if plan.batch_size * weights > _MOST_MULTIPLICATIONS:
        return "for products as large BLAS is faster"
    return None
