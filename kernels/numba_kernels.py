"""The kernels of the reference, compiled: one pass over memory each.

Those on flat arrays are what a whole epoch is made of as well (:mod:`fastnn.kernels.numba_epoch`);
those with the reference's names take a device's matrices.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numba import njit

from fastnn.kernels.numba_sigma import (
    FLAGS,
    LEAKY_RELU,
    RELU,
    SIGMOID,
    SOFTMAX,
    TANH,
    exp,
    like,
    sigma,
    sigma_prime,
)
from fastnn.kernels.reference import GAMMA, MIX

Array: TypeAlias = Any


@njit(**FLAGS)
def apply_sigma(z: Array, activation: int) -> None:
    """z ← σ(z), number by number. A loop for each σ: a loop that chooses is not vectorised."""
    if activation == SIGMOID:
        for i in range(z.size):
            z[i] = sigma(z[i], SIGMOID)
    elif activation == TANH:
        for i in range(z.size):
            z[i] = sigma(z[i], TANH)
    elif activation == RELU:
        for i in range(z.size):
            z[i] = sigma(z[i], RELU)
    elif activation == LEAKY_RELU:
        for i in range(z.size):
            z[i] = sigma(z[i], LEAKY_RELU)


@njit(**FLAGS)
def apply_softmax(z: Array) -> None:
    """z ← softmax(z) of one row, shifted by its maximum so that nothing overflows."""
    highest = z[0]
    for j in range(z.size):
        highest = max(highest, z[j])
    for j in range(z.size):
        z[j] = exp(z[j] - highest)
    total = like(highest, 0)
    for j in range(z.size):
        total += z[j]
    for j in range(z.size):
        z[j] /= total


@njit(**FLAGS)
def times_sigma_prime(d: Array, a: Array, activation: int) -> None:
    """d ← d ⊙ σ′(z), with a = σ(z)."""
    if activation == SIGMOID:
        for i in range(d.size):
            d[i] *= sigma_prime(a[i], SIGMOID)
    elif activation == TANH:
        for i in range(d.size):
            d[i] *= sigma_prime(a[i], TANH)
    elif activation == RELU:
        for i in range(d.size):
            d[i] *= sigma_prime(a[i], RELU)
    elif activation == LEAKY_RELU:
        for i in range(d.size):
            d[i] *= sigma_prime(a[i], LEAKY_RELU)


@njit(**FLAGS)
def gather(rows: Array, order: Array, start: int, stop: int, scale: float, out: Array) -> None:
    """out[i] = scale · rows[order[start + i]]."""
    for i in range(stop - start):
        row, scaled = rows[order[start + i]], out[i]
        for j in range(row.size):
            scaled[j] = scale * like(scale, row[j])


@njit(**FLAGS)
def sum_rows(delta: Array, alpha: float, beta: float, out: Array) -> None:
    """out ← alpha · Σ_i delta_i + beta · out; beta = 0 overwrites any NaN.

    The sum is in float64: many small numbers in float32 would be rounded by the size of their sum.
    """
    total = np.zeros(out.size)
    for i in range(delta.shape[0]):
        row = delta[i]
        for j in range(row.size):
            total[j] += row[j]
    for j in range(out.size):
        out[j] = alpha * total[j] + (beta * out[j] if beta != 0 else beta)


@njit(**FLAGS)
def activate(b: Array, activation: int, out: Array) -> None:
    """out ← σ(out + b), softmax along the row."""
    for i in range(out.shape[0]):
        row = out[i]
        for j in range(row.size):
            row[j] += b[j]
        if activation == SOFTMAX:
            apply_softmax(row)
        else:
            apply_sigma(row, activation)


@njit(**FLAGS)
def hadamard(a: Array, activation: int, out: Array) -> None:
    """out ← out ⊙ σ′(z), with a = σ(z)."""
    times_sigma_prime(out.ravel(), a.ravel(), activation)


@njit(**FLAGS)
def output_delta(a: Array, y: Array, factor: float, activation: int, out: Array) -> None:
    """BP1: out = factor · (a - y) ⊙ σ′(z^L), the identity's where cost and activation match."""
    for i in range(a.shape[0]):
        row, a_row, y_row = out[i], a[i], y[i]
        for j in range(row.size):
            row[j] = factor * (a_row[j] - y_row[j])
        times_sigma_prime(row, a_row, activation)


@njit(**FLAGS)
def momentum(
    w: Array,
    velocity: Array,
    gradient: Array,
    rate: float,
    mu: float,
    nesterov: bool,
    l1: float,
    l2: float,
    shrink: float,
) -> None:
    """v ← μv - s and w ← shrink · w + v, by Nesterov + μv - s; s = η (∂C/∂w + λ₁ sgn w + λ₂ w)."""
    # w moves by v = μv - s, or by μ²v - (1 + μ)s.
    of_v, of_s = (mu * mu, mu + like(mu, 1)) if nesterov else (mu, like(mu, 1))
    for i in range(w.size):
        step = rate * (gradient[i] + l1 * np.sign(w[i]) + l2 * w[i])
        w[i] = shrink * w[i] + (of_v * velocity[i] - of_s * step)
        velocity[i] = mu * velocity[i] - step


@njit(**FLAGS)
def adam(
    w: Array,
    mean: Array,
    square: Array,
    gradient: Array,
    rate: float,
    beta1: float,
    rest1: float,
    beta2: float,
    rest2: float,
    epsilon: float,
    of_mean: float,
    of_square: float,
    l1: float,
    l2: float,
    shrink: float,
) -> None:
    """m ← β₁m + (1 - β₁)g, s ← β₂s + (1 - β₂)g², w ← shrink · w - η m̂ / (√ŝ + ε).

    g = ∂C/∂w + λ₁ sgn w + λ₂ w; m̂ = of_mean · m, ŝ = of_square · s. Rests are 1 - β, which in short
    precision would lose what counts.
    """
    for i in range(w.size):
        g = gradient[i] + l1 * np.sign(w[i]) + l2 * w[i]
        m = beta1 * mean[i] + rest1 * g
        s = beta2 * square[i] + rest2 * g * g
        w[i] = shrink * w[i] - rate * (of_mean * m) / (np.sqrt(of_square * s) + epsilon)
        mean[i], square[i] = m, s


@njit(**FLAGS)
def clip(gradient: Array, most: float) -> None:
    """g ← g · min(1, most / ‖g‖)."""
    largest = like(most, 0)
    for i in range(gradient.size):
        largest = max(largest, abs(gradient[i]))
    if largest == 0:
        return
    squares = 0.0  # of parts of the largest, which stay in their range
    for i in range(gradient.size):
        part = gradient[i] / largest
        squares += part * part
    length = np.sqrt(squares)
    if length * largest > most:
        for i in range(gradient.size):
            gradient[i] = like(most, gradient[i] / largest * (most / length))


@njit(**FLAGS)
def drop(out: Array, key: int, first: int, threshold: int, scale: float) -> None:
    """out_k ← 0 if draw_k < rate, else scale · out_k; draws are the reference's.

    In place, since of two arrays that may be the same the compiler makes no vectors. All that is
    whole is of 64 bits without a sign, or Numba computes in floats.
    """
    z = key + first * GAMMA
    for k in range(out.size):
        z += GAMMA
        x = (z ^ (z >> np.uint64(30))) * MIX[0]
        x = (x ^ (x >> np.uint64(27))) * MIX[1]
        x ^= x >> np.uint64(31)
        out[k] = scale * out[k] if x >> np.uint64(32) >= threshold else like(scale, 0)
