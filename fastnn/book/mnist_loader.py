"""The book's mnist_loader.py: MNIST in the forms that its programs take."""

from __future__ import annotations

import os
from typing import TypeAlias

import numpy as np

from fastnn.book.samples import Array, Pair, vectorized_result
from fastnn.data import Dataset, load_dataset
from fastnn.errors import DataError

__all__ = ["load_data", "load_data_wrapper", "vectorized_result"]

PathLike: TypeAlias = str | os.PathLike[str]
Arrays: TypeAlias = tuple[Array, Array]

_PART = 6  # of six training images one is for validation


def load_data(source: PathLike = "mnist") -> tuple[Arrays, Arrays, Arrays]:
    """Return the training, the validation and the test data, each as images and digits.

    Parameters
    ----------
    source
        As for :func:`fastnn.load_dataset`: "mnist" (default), which is downloaded once, a folder
        of its IDX files, "digits" and so on. Of the training images the last sixth is for
        validation: of MNIST's 60,000 the last 10,000.

    Returns
    -------
    training_data, validation_data, test_data
        Pairs of images (n, 784), float32 from 0 to 1 (k/255), and digits (n,); n is 50,000, 10,000
        and 10,000.

    Raises
    ------
    ArgumentError
        If the source is no text or path.
    DataError
        If the data are missing or malformed, cannot be downloaded, or have other classes than
        the ten digits.
    """
    data = load_dataset(source)
    if data.classes > 10:
        raise DataError(f"{data.name} has {data.classes} classes; the book's programs take ten")
    x, labels = data.train.x, data.train.labels
    n = len(x) - len(x) // _PART
    validation = _arrays(Dataset(x[n:], labels[n:]))
    return _arrays(Dataset(x[:n], labels[:n])), validation, _arrays(data.test)


def _arrays(data: Dataset) -> Arrays:
    x = data.x / np.float32(255) if data.x.dtype == np.uint8 else data.x
    return x.astype(np.float32, copy=False), data.labels


def load_data_wrapper(
    source: PathLike = "mnist",
) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Return the training, the validation and the test data, as the networks take them.

    Parameters
    ----------
    source
        As for :func:`load_data`, which says what is raised, too.

    Returns
    -------
    training_data, validation_data, test_data
        Lists of pairs (x, y): 50,000, 10,000 and 10,000 of them. x is an image as a column
        (784, 1), float32 from 0 to 1. y is the desired output (10, 1) in the training data, and
        the digit, an int, in the others.
    """
    training, validation, test = load_data(source)
    outputs = [vectorized_result(j) for j in range(10)]
    return (
        [(x, outputs[y].copy()) for x, y in zip(training[0][:, :, None], training[1], strict=True)],
        _with_digits(validation),
        _with_digits(test),
    )


def _with_digits(arrays: Arrays) -> list[Pair]:
    x, digits = arrays
    return list(zip(x[:, :, None], digits.tolist(), strict=True))
