"""The specification: every kernel in a few lines of NumPy that read like the text.

Samples are rows. With m samples in a mini-batch and layers of n_in and n_out units::

    a_prev (m, n_in)    w (n_out, n_in)    b (n_out,)    a, y, delta (m, n_out)

A C-ordered (m, n) matrix has the very bytes of the text's (n, m) matrix with samples as columns, so
``a.T`` is the text's A. The functions return new arrays and compute in the precision they are
given; a device writes into buffers instead, and the conformance suite compares it with these in
float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

LEAK = 0.01  # the slope of leaky-relu below zero


def softmax(z: Array) -> Array:
    """a_j = exp(z_j) / Σ_k exp(z_k), each row shifted by its maximum so that nothing overflows."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    a: Array = e / e.sum(axis=1, keepdims=True)
    return a


# σ(z). The sigmoid as a tanh is exact and cannot overflow.
SIGMA: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda z: 0.5 * np.tanh(0.5 * z) + 0.5,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "leaky-relu": lambda z: np.where(z > 0, z, LEAK * z),
    "identity": lambda z: z,
    "softmax": softmax,
}

# σ′(z), written with a = σ(z), so that z need not be kept. Softmax couples its units and has no
# such factor.
SIGMA_PRIME: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda a: a * (1 - a),
    "tanh": lambda a: 1 - a * a,
    "relu": lambda a: (a > 0).astype(a.dtype),
    "leaky-relu": lambda a: np.where(a > 0, 1, LEAK).astype(a.dtype),
    "identity": np.ones_like,
}

# Costs made for one output activation: σ′ cancels against ∇_a C, and BP1 is the plain difference a
# - y.
MATCHED = {"cross-entropy": "sigmoid", "log-likelihood": "softmax"}

# The other costs: ∇_a C = factor · (a - y).
GRADIENT_FACTOR = {"quadratic": 1, "squared-error": 2}


def gather(rows: Array, order: Array, start: int, stop: int, scale: float) -> Array:
    """out[i] = scale · rows[order[start + i]].

    rows (n, k) of bytes or floats, order (n,) -> (stop - start, k)
    """
    return scale * rows[order[start:stop]]


def matmul(
    a: Array,
    b: Array,
    out: Array,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    alpha: float = 1.0,
    beta: float = 0.0,
) -> Array:
    """out ← alpha · op(a) op(b) + beta · out, where op may transpose; beta = 0 overwrites any NaN.

    op(a) (m, k), op(b) (k, n) -> (m, n)
    """
    product = alpha * (a.T if transpose_a else a) @ (b.T if transpose_b else b)
    return product + beta * out if beta else product


def activate(z: Array, b: Array, activation: str) -> Array:
    """a = σ(z + b).

    z (m, n), b (n,) -> (m, n)
    """
    return SIGMA[activation](z + b)


def hadamard(d: Array, a: Array, activation: str) -> Array:
    """d ⊙ σ′(z), with a = σ(z).

    d, a (m, n) -> (m, n)
    """
    return d * SIGMA_PRIME[activation](a)


def sum_rows(delta: Array, out: Array, *, alpha: float = 1.0, beta: float = 0.0) -> Array:
    """out ← alpha · Σ_i delta_i + beta · out; beta = 0 overwrites any NaN.

    delta (m, n) -> (n,)
    """
    total: Array = alpha * delta.sum(axis=0)
    return total + beta * out if beta else total


def forward(a_prev: Array, w: Array, b: Array, activation: str) -> Array:
    """a = σ(a_prev wᵀ + b).

    a_prev (m, n_in), w (n_out, n_in), b (n_out,) -> (m, n_out)
    """
    return activate(a_prev @ w.T, b, activation)


def output_delta(a: Array, y: Array, activation: str, cost: str) -> Array:
    """BP1: δ^L = ∇_a C ⊙ σ′(z^L), of each sample's own cost.

    a, y (m, n_out) -> (m, n_out)
    """
    if cost in MATCHED:
        return a - y
    return hadamard(GRADIENT_FACTOR[cost] * (a - y), a, activation)


def scale_rows(delta: Array, weights: Array) -> Array:
    """w_i δ_i: the deltas of samples that count w_i times.

    delta (m, n), weights (m, 1) -> (m, n)
    """
    return weights * delta


def propagate_delta(delta: Array, w: Array, a: Array, activation: str) -> Array:
    """BP2: δ^l = (δ^{l+1} w^{l+1}) ⊙ σ′(z^l).

    delta (m, n_out), w (n_out, n_in), a (m, n_in) -> (m, n_in)
    """
    return hadamard(delta @ w, a, activation)


def gradient(delta: Array, a_prev: Array, scale: float) -> tuple[Array, Array]:
    """BP4, BP3: ∂C/∂w = scale · δᵀ a_prev, ∂C/∂b = scale · Σ_i δ_i; scale = 1/m for m samples.

    delta (m, n_out), a_prev (m, n_in) -> (n_out, n_in), (n_out,)
    """
    return scale * delta.T @ a_prev, scale * delta.sum(axis=0)


def descend(
    w: Array, b: Array, delta: Array, a_prev: Array, rate: float, shrink: float
) -> tuple[Array, Array]:
    """w ← shrink · w - rate · δᵀ a_prev, b ← b - rate · Σ_i δ_i; rate = η/m for m samples.

    w (n_out, n_in), b (n_out,), delta (m, n_out), a_prev (m, n_in) -> the new w and b
    """
    return shrink * w - rate * delta.T @ a_prev, b - rate * delta.sum(axis=0)


class Momentum(NamedTuple):
    """The numbers of an update by momentum."""

    rate: float  # η
    mu: float
    nesterov: bool
    l1: float  # λ/n of the penalties; 0 for biases
    l2: float
    shrink: float  # what w is multiplied by beside the update; 1 for biases


def momentum(w: Array, velocity: Array, gradient: Array, by: Momentum) -> tuple[Array, Array]:
    """v ← μv - s and w ← shrink · w + v, by Nesterov + μv - s; s = η (∂C/∂w + λ₁ sgn w + λ₂ w).

    w, velocity, gradient of one shape -> the new w and velocity
    """
    step = by.rate * (gradient + by.l1 * np.sign(w) + by.l2 * w)
    velocity = by.mu * velocity - step
    return by.shrink * w + (by.mu * velocity - step if by.nesterov else velocity), velocity


class Adam(NamedTuple):
    """The numbers of an update by Adam; the last three as for :class:`Momentum`."""

    rate: float  # η
    beta1: float
    beta2: float
    epsilon: float
    taken: int  # mini-batches so far, this one among them
    l1: float
    l2: float
    shrink: float


def adam(
    w: Array, mean: Array, square: Array, gradient: Array, by: Adam
) -> tuple[Array, Array, Array]:
    """m ← β₁m + (1 - β₁)g, s ← β₂s + (1 - β₂)g², w ← shrink · w - η m̂ / (√ŝ + ε).

    g = ∂C/∂w + λ₁ sgn w + λ₂ w, m̂ = m / (1 - β₁ᵗ), ŝ = s / (1 - β₂ᵗ) with t mini-batches taken.

    w, mean, square, gradient of one shape -> the new w, mean and square
    """
    g = gradient + by.l1 * np.sign(w) + by.l2 * w
    mean = by.beta1 * mean + (1 - by.beta1) * g
    square = by.beta2 * square + (1 - by.beta2) * g * g
    root = np.sqrt(square / (1 - by.beta2**by.taken))
    unbiased = mean / (1 - by.beta1**by.taken)
    return by.shrink * w - by.rate * unbiased / (root + by.epsilon), mean, square


def clip(gradient: Array, most: float) -> Array:
    """g ← g · min(1, most / ‖g‖), with the Euclidean length of all of it.

    gradient (k,) -> (k,)
    """
    largest = np.abs(gradient).max()
    if not largest:
        return gradient
    parts = gradient / largest  # whose squares stay in their range
    root = np.sqrt(np.sum(parts * parts))
    return parts * (most / root) if largest * root > most else gradient


def draws(key: int, first: int, count: int) -> Array:
    """Return so many numbers of 64 bits of a key's stream, from the one with the number first on.

    A counter-based generator has no state: each number is a hash of its place, so that any device
    draws any part of the stream, in any order. The hash is SplitMix64's (Steele, Lea and Flood,
    2014), with z = key + (place + 1) · γ in arithmetic modulo 2⁶⁴.
    """
    z = np.uint64(key) + (np.arange(count, dtype=np.uint64) + np.uint64(first + 1)) * GAMMA
    z = (z ^ (z >> np.uint64(30))) * MIX[0]
    z = (z ^ (z >> np.uint64(27))) * MIX[1]
    return z ^ (z >> np.uint64(31))


GAMMA = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ divided by the golden ratio, made odd
MIX = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Dropped(NamedTuple):
    """Which numbers of a matrix are dropped: number k, row by row, by number first + k of a key."""

    key: int
    first: int
    rate: float  # from 0 to below 1

    @property
    def threshold(self) -> int:
        """What the upper 32 bits of a draw are below, or the number is dropped."""
        return int(self.rate * 2**32)

    @property
    def scale(self) -> float:
        """What the numbers that stay are multiplied by, so that the mean stays as well."""
        return 1 / (1 - self.rate)


def drop(a: Array, by: Dropped) -> Array:
    """Inverted dropout: out_k = 0 if draw_k < rate, else a_k / (1 - rate), draws from [0, 1).

    a (m, n) -> (m, n)
    """
    draw = draws(by.key, by.first, a.size).reshape(a.shape) >> np.uint64(32)
    scaled: Array = a * a.dtype.type(by.scale)
    scaled[draw < by.threshold] = 0
    return scaled
