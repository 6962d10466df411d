"""GEMM by name: compiled code calls whatever BLAS :func:`bind` has been given.

A name, not an address, is what the compiled code holds, so that it can be kept on disk and used by
another process.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import llvmlite.binding
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastnn.kernels.numba_sigma import FLAGS

Array: TypeAlias = Any

_NAMES = {types.float32: "fastnn_sgemm", types.float64: "fastnn_dgemm"}


def bind(sgemm: int, dgemm: int) -> None:
    """Say at which addresses the BLAS lies: Fortran's SGEMM and DGEMM, with 32-bit integers."""
    llvmlite.binding.add_symbol("fastnn_sgemm", sgemm)
    llvmlite.binding.add_symbol("fastnn_dgemm", dgemm)


@intrinsic
def _gemm(  # type: ignore[no-untyped-def]
    typing, transpose_a, transpose_b, m, n, k, alpha, a, a_at, lda, b, b_at, ldb, beta, c, c_at, ldc
):
    """C ← alpha · op(A) op(B) + beta · C by columns, as in Fortran: all arguments are pointers.

    Each matrix begins at its place in its array.
    """
    number = c.dtype

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        given, pointers = iter(zip(signature.args, arguments, strict=True)), []
        for kind, value in given:
            if isinstance(kind, types.Array):
                _, place = next(given)
                array = context.make_array(kind)(context, builder, value)
                pointers.append(builder.gep(array.data, [place]))
            else:
                pointers.append(cgutils.alloca_once_value(builder, value))
        routine = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer.type for pointer in pointers]),
            _NAMES[number],
        )
        builder.call(routine, pointers)
        return context.get_dummy_value()

    letter, whole, place = types.uint8, types.int32, types.int64
    matrices = [part for array in (a, b, c) for part in (array, place, whole)]
    before_c, of_c = matrices[:6], matrices[6:]
    arguments = (letter, letter, whole, whole, whole, number, *before_c, number, *of_c)
    return types.void(*arguments), generate


@njit(**FLAGS)
def matmul(
    a: Array,
    b: Array,
    transpose_a: bool,
    transpose_b: bool,
    alpha: float,
    beta: float,
    out: Array,
    start: int,
    stop: int,
) -> None:
    """out ← alpha · op(a) op(b) + beta · out, of the rows start to stop.

    As outᵀ ← alpha · op(b)ᵀ op(a)ᵀ + beta · outᵀ: BLAS stores columns where we store rows.
    """
    n, t = ord("N"), ord("T")
    k = a.shape[0] if transpose_a else a.shape[1]
    _gemm(
        t if transpose_b else n,
        t if transpose_a else n,
        out.shape[1],
        stop - start,
        k,
        alpha,
        b,
        0,
        b.shape[1],
        a,
        start if transpose_a else start * a.shape[1],
        a.shape[1],
        beta,
        out,
        start * out.shape[1],
        out.shape[1],
    )
