"""Samples as the book has them, pairs (x, y) of a column and a desired output, and as a Dataset."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn.checks import whole_number
from fastnn.data import Dataset
from fastnn.errors import DataError

__all__ = ["Array", "Pair", "as_column", "as_dataset", "as_digit", "as_pairs", "vectorized_result"]

Array: TypeAlias = NDArray[Any]
Pair: TypeAlias = tuple[Any, Any]

_REAL = "biuf"  # kinds of numbers
_AT_ONCE = 256  # samples; of MNIST's, so many stay in a cache


def vectorized_result(j: int) -> Array:
    """Return the desired output for a digit j, 0 to 9: (10, 1), 1 in row j and 0 elsewhere.

    Raises
    ------
    ArgumentError
        If j is no digit.
    """
    return as_column(whole_number("j", j, 0, 9), 10)


def as_column(y: Any, n_out: int) -> Array:
    """Return the desired output (n_out, 1) that a y stands for, a column or a class number."""
    if not isinstance(y, Integral):
        return np.asarray(y)
    column = np.zeros((n_out, 1))
    column[int(y)] = 1
    return column


def as_digit(y: Any) -> int:
    """Return the class that a y stands for, a class number or the largest of a column."""
    return int(y) if isinstance(y, Integral) else int(np.argmax(y))


def as_pairs(what: str, data: Iterable[Pair], sizes: Sequence[int]) -> list[Pair]:
    """Return samples as a list of pairs that fit a network.

    Parameters
    ----------
    what
        What the book calls them: "training_data".
    data
        Any iterable of pairs, which is gone through once: x (sizes[0], 1), and y (sizes[-1], 1)
        or a class number.
    sizes
        The network's.

    Raises
    ------
    DataError
        If it is empty, or something in it is no such pair: the sentence says where.
    """
    n_in, n_out = sizes[0], sizes[-1]
    try:
        pairs = [(np.asarray(x), y) for x, y in data]
    except (TypeError, ValueError):
        raise DataError(f"{what} must be a list of pairs (x, y), or a zip of x and y") from None
    if not pairs:
        raise DataError(
            f"{what} is empty; a zip gives its pairs only once, list(zip(...)) keeps them"
        )
    for number, (x, y) in enumerate(pairs):
        if x.shape != (n_in, 1) or x.dtype.kind not in _REAL:
            raise DataError(
                f"x of {what}[{number}] is {x.dtype.name} of shape {x.shape}; this network takes "
                f"columns of real numbers, of shape ({n_in}, 1)"
            )
        if not _is_output(y, n_out):
            raise DataError(
                f"y of {what}[{number}] is {reprlib.repr(y)}; for this network it is a column of "
                f"shape ({n_out}, 1), or a whole number from 0 to {n_out - 1}"
            )
    return pairs


def _is_output(y: Any, n_out: int) -> bool:
    if isinstance(y, Integral):
        return 0 <= int(y) < n_out
    try:
        column = np.asarray(y)
    except ValueError:  # rows of different lengths
        return False
    return column.shape == (n_out, 1) and column.dtype.kind in _REAL


def as_dataset(pairs: Sequence[Pair], n_out: int) -> Dataset | None:
    """Return pairs that fit a network as a Dataset, or None if a y is not one-hot.

    Where all x are k/255 with whole k from 0 to 255, as pixels are, the Dataset holds bytes.

    Raises
    ------
    DataError
        If an x holds NaN or inf.
    """
    y = np.concatenate([as_column(y, n_out) for _, y in pairs], axis=1)
    if not (((y == 0) | (y == 1)).all() and (y.sum(axis=0) == 1).all()):
        return None
    columns = [x for x, _ in pairs]
    rows = _bytes(columns)
    if rows is None:
        rows = _rows(columns)
        # Whole numbers mean themselves; a Dataset would take bytes for pixels.
        rows = rows if rows.dtype.kind == "f" else rows.astype(np.float64)
    return Dataset(rows, y.argmax(axis=0))


def _rows(columns: Sequence[Array]) -> Array:
    return np.stack(columns)[:, :, 0]


def _bytes(columns: Sequence[Array]) -> Array | None:
    """Return the rows' k where all numbers are k/255 to the last bit, else None."""
    found = np.empty((len(columns), len(columns[0])), np.uint8)
    for start in range(0, len(columns), _AT_ONCE):
        rows = _rows(columns[start : start + _AT_ONCE])
        if rows.dtype.kind != "f" or not ((rows >= 0) & (rows <= 1)).all():
            return None
        pixels = np.rint(rows * 255).astype(np.uint8)
        if (pixels.astype(rows.dtype) / rows.dtype.type(255) != rows).any():
            return None
        found[start : start + _AT_ONCE] = pixels
    return found
