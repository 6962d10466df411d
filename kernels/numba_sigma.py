"""σ and σ′ number by number, in a form that the compiler turns into vector code.

Everything comes from one exponential, e^x = 2^n · e^r with |r| ≤ ½ ln 2, whose series is short.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from fastnn.kernels.reference import LEAK, SIGMA

Number: TypeAlias = Any  # float32 or float64

# No sum is reordered, and none is fused with a product unless it says so: a number comes out the
# same in vector code and out of it, for vectors of any length and any number of threads. NaN and
# infinity stay what they are: divergence must show.
FLAGS: dict[str, Any] = {
    "fastmath": {"nsz"},
    "error_model": "numpy",
    "nogil": True,
    "cache": True,
}

CODES = {name: code for code, name in enumerate(SIGMA)}
SIGMOID, TANH, RELU = CODES["sigmoid"], CODES["tanh"], CODES["relu"]
LEAKY_RELU, IDENTITY, SOFTMAX = CODES["leaky-relu"], CODES["identity"], CODES["softmax"]


@intrinsic
def _exp_parts(typing, x):  # type: ignore[no-untyped-def]
    """e^x = s + s·q with s = 2^n and q = e^r - 1, where n is the whole number nearest to x / ln 2.

    x is taken for the nearest one that has an s: beyond, e^x saturates. q is its Taylor series, to
    r^7 in float32 and r^13 in float64; what is left out is less than a quarter of an ulp.
    """
    single = x == types.float32
    mantissa, bias, terms = (23, 127, 7) if single else (52, 1023, 13)

    def generate(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        number = context.get_value_type(x)
        bits = ir.IntType(32 if single else 64)
        (value,) = arguments

        def constant(c: float) -> ir.Constant:
            return ir.Constant(number, c)

        def clamped(value: Any, limit: float, beyond: str) -> Any:
            # So that NaN stays NaN: it is beyond nothing.
            return b.select(b.fcmp_ordered(beyond, value, constant(limit)), constant(limit), value)

        # ln 2 in two parts, the first with so few digits that n times it is exact.
        high = math.ldexp(math.floor(math.ldexp(math.log(2), 10)), -10)
        if not single:
            high = math.ldexp(math.floor(math.ldexp(math.log(2), 30)), -30)
        # ln 2 - high to double the precision: the tail of ln 2 beyond a float64 is 2.3e-17.
        low = (math.log(2) - high) + 2.319046813846299e-17
        value = clamped(value, (bias + 0.4) * math.log(2), ">")
        value = clamped(value, -(bias - 1.4) * math.log(2), "<")
        # Adding 1.5 · 2^mantissa rounds to a whole number, which is then in the lowest bits.
        magic = constant(1.5 * 2.0**mantissa)
        shifted = b.fadd(b.fmul(value, constant(1 / math.log(2))), magic)
        n = b.fsub(shifted, magic)
        s = b.shl(b.add(b.bitcast(shifted, bits), bits(bias)), bits(mantissa))
        r = b.fma(n, constant(-low), b.fma(n, constant(-high), value))
        q = constant(1 / math.factorial(terms))
        for k in range(terms - 1, 1, -1):
            q = b.fma(q, r, constant(1 / math.factorial(k)))
        q = b.fma(b.fmul(q, r), r, r)
        parts = [b.bitcast(s, number), q]
        return context.make_tuple(b, signature.return_type, parts)

    return types.UniTuple(x, 2)(x), generate


@intrinsic
def like(typing, x, number):  # type: ignore[no-untyped-def]
    """Return a number in x's precision; a Python constant makes float64 of all that it touches."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return context.cast(b, arguments[1], signature.args[1], signature.return_type)

    return x(x, number), generate


@intrinsic
def fma(typing, x, y, z):  # type: ignore[no-untyped-def]
    """x · y + z, rounded once."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return b.fma(*arguments)

    return x(x, x, x), generate


@njit(**FLAGS)
def exp(x: Number) -> Number:
    """e^x, for x ≤ 88 in float32 and x ≤ 709 in float64."""
    s, q = _exp_parts(x)
    return fma(s, q, s)


@njit(**FLAGS)
def sigmoid(z: Number) -> Number:
    """1 / (1 + e^-z)."""
    one = like(z, 1.0)
    return one / (one + exp(-z))


@njit(**FLAGS)
def tanh(z: Number) -> Number:
    """(e^2|z| - 1) / (e^2|z| + 1) with z's sign; e^2|z| - 1 is as exact near 0 as elsewhere."""
    one, two = like(z, 1.0), like(z, 2.0)
    positive = z if z > like(z, 0.0) else -z
    s, q = _exp_parts(positive + positive)
    over = fma(s, q, s - one)
    under = over + two
    factor = one / under
    a = over * factor
    # What the division and the sum under it have lost is put back.
    rest = fma(-a, under, over)
    a += fma(-a, over - (under - two), rest) * factor
    return a if z > like(z, 0.0) else -a


@njit(**FLAGS)
def sigma(z: Number, activation: int) -> Number:
    """σ(z) of every activation but softmax, which takes a row."""
    if activation == SIGMOID:
        return sigmoid(z)
    if activation == TANH:
        return tanh(z)
    if activation == RELU:
        return z if z > like(z, 0.0) or z != z else like(z, 0.0)
    if activation == LEAKY_RELU:
        return z if z > like(z, 0.0) else z * like(z, LEAK)
    return z


@njit(**FLAGS)
def sigma_prime(a: Number, activation: int) -> Number:
    """σ′(z), with a = σ(z)."""
    one = like(a, 1.0)
    if activation == SIGMOID:
        return a * (one - a)
    if activation == TANH:
        return one - a * a
    if activation == RELU:
        return one if a > like(a, 0.0) else like(a, 0.0)
    if activation == LEAKY_RELU:
        return one if a > like(a, 0.0) else like(a, LEAK)
    return one
