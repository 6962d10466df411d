"""Made-up images of any number and size, for benchmarks and tests: as sparse as MNIST's."""

from __future__ import annotations

import numpy as np

from fastnn.checks import fits_memory, whole_number
from fastnn.data.arrays import Array
from fastnn.data.dataset import Dataset, Datasets
from fastnn.errors import ArgumentError

__all__ = ["synthetic"]

# Each class has strokes of its own, and each pixel is lit by chance: 0.23 * 0.75 + 0.77 * 0.02 =
# 0.19 of them, so 81 % are zero, as in MNIST.
_STROKES = 0.23
_LIT_IN_STROKES = 0.75
_LIT_ELSEWHERE = 0.02

_LABEL_BYTES = 8
_BYTES_TO_DRAW_A_PATTERN = 6  # a pixel: a float32, a bool and the uint8 that is kept

_DRAWN_AT_ONCE = 1 << 22  # pixels; bounds what drawing allocates besides the data


def synthetic(
    train: int = 60_000,
    test: int = 10_000,
    features: int = 784,
    classes: int = 10,
    seed: int = 0,
) -> Datasets:
    """Make a data set that can be learnt: noisy pixels around a random pattern for each class.

    Parameters
    ----------
    train, test : int
        The numbers of samples; the classes are as equally frequent as these allow.
    features : int
        The number of pixels in a sample, uint8; 81 % of them are zero.
    classes : int
        The number of classes, at most `train`.
    seed : int
        The same arguments make the same data.

    Raises
    ------
    ArgumentError
        A number is no whole one or out of range, or the data would not fit into memory.
    """
    train = whole_number("train", train, 1)
    test = whole_number("test", test, 1)
    features = whole_number("features", features, 1)
    classes = whole_number("classes", classes, 1)
    seed = whole_number("seed", seed, 0)
    if train < classes:
        raise ArgumentError(f"{train} training samples cannot show {classes} classes")
    fits_memory(
        f"{train + test:,} samples of {features:,} features, {classes:,} classes",
        (train + test) * (features + _LABEL_BYTES) + classes * features * _BYTES_TO_DRAW_A_PATTERN,
    )
    rng = np.random.default_rng(seed)
    strokes = rng.random((classes, features), np.float32) < _STROKES
    lit_below = np.where(strokes, np.uint8(_LIT_IN_STROKES * 256), np.uint8(_LIT_ELSEWHERE * 256))
    return Datasets("synthetic", _samples(rng, lit_below, train), _samples(rng, lit_below, test))


def _samples(rng: np.random.Generator, lit_below: Array, n: int) -> Dataset:
    """Draw `n` samples; pixel j of class c is lit where a byte of noise is < lit_below[c, j]."""
    classes, features = lit_below.shape
    labels = rng.permutation(np.arange(n) % classes)
    x = np.empty((n, features), np.uint8)
    block = max(1, _DRAWN_AT_ONCE // features)
    for start in range(0, n, block):
        rows = x[start : start + block]
        noise = rng.integers(256, size=rows.shape, dtype=np.uint8)
        # Lit pixels take what is left of their noise as brightness: 255 down to 64.
        np.multiply(noise < lit_below[labels[start : start + len(rows)]], 255 - noise, out=rows)
    return Dataset(x, labels)
