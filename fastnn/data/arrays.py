"""What arrays must be to serve as samples, as labels and as weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn.errors import DataError

__all__ = ["Array", "as_labels", "as_samples", "as_weights"]

Array = npt.NDArray[Any]

# The element types samples may come in, by name, and the type they are kept as.
_KEPT_AS = {
    "uint8": np.uint8,
    "float16": np.float32,
    "float32": np.float32,
    "float64": np.float64,
}

_CHECKED_AT_ONCE = 1 << 20  # elements; bounds what the search for NaN allocates


def as_samples(x: npt.ArrayLike) -> Array:
    """Return `x` as a checked, C-contiguous (n, features) array of uint8, float32 or float64.

    Raises
    ------
    DataError
        `x` is empty, has no axis of features, is of another type, or holds NaN or inf.
    """
    rows = _as_array("x", x)
    if rows.ndim < 2:
        raise DataError(
            "x holds a sample a row, shape (n, features) or (n, height, width), "
            f"but has shape {rows.shape}"
        )
    if rows.size == 0:
        raise DataError(f"x has shape {rows.shape}: there is nothing in it")
    kept_as = _KEPT_AS.get(rows.dtype.name)
    if kept_as is None:
        raise DataError(
            f"x holds {rows.dtype.name}; give pixels 0 to 255 as x.astype(np.uint8), "
            "other numbers as x.astype(np.float32)"
        )
    rows = np.ascontiguousarray(rows.reshape(len(rows), -1), dtype=kept_as)
    if rows.dtype.kind == "f":
        _refuse_nan(rows)
    return rows


def _refuse_nan(rows: Array) -> None:
    """Refuse NaN and inf, a block of rows at a time."""
    block = max(1, _CHECKED_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), block):
        finite = np.isfinite(rows[start : start + block]).all(axis=1)
        if not finite.all():
            raise DataError(f"x holds NaN or inf in sample {start + int(finite.argmin())}")


def as_labels(labels: npt.ArrayLike, samples: int) -> npt.NDArray[np.int64]:
    """Return `labels` as a checked, C-contiguous (samples,) array of int64.

    Raises
    ------
    DataError
        The labels are not one a sample, not integers, or negative.
    """
    numbers = _as_array("labels", labels)
    if numbers.ndim != 1:
        remedy = ""
        if numbers.ndim == 2:
            one_hot = "; if they are one-hot rows, give labels.argmax(axis=1)"
            remedy = "; give labels.ravel()" if numbers.shape[1] == 1 else one_hot
        raise DataError(
            "labels are class numbers, one a sample, shape (n,), "
            f"but have shape {numbers.shape}{remedy}"
        )
    if len(numbers) != samples:
        raise DataError(f"there are {samples} samples in x but {len(numbers)} labels")
    if numbers.dtype.kind not in "iu":
        raise DataError(
            f"labels hold {numbers.dtype.name}; class numbers are integers from 0: "
            "give labels.astype(np.int64)"
        )
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > np.iinfo(np.int64).max:
        raise DataError(f"labels are class numbers from 0, but range from {low} to {high}")
    return np.ascontiguousarray(numbers, dtype=np.int64)


def as_weights(weights: npt.ArrayLike, samples: int) -> npt.NDArray[np.float64]:
    """Return `weights` as a checked, C-contiguous (samples,) array of float64.

    Raises
    ------
    DataError
        The weights are not one a sample, not numbers, not finite, or negative.
    """
    numbers = _as_array("weights", weights)
    if numbers.ndim != 1:
        remedy = "; give weights.ravel()" if numbers.size == samples else ""
        raise DataError(
            f"weights are numbers, one a sample, shape (n,), but have shape {numbers.shape}{remedy}"
        )
    if len(numbers) != samples:
        raise DataError(f"there are {samples} samples in x but {len(numbers)} weights")
    if numbers.dtype.kind not in "biuf":
        raise DataError(f"weights hold {numbers.dtype.name}, not numbers")
    numbers = np.ascontiguousarray(numbers, dtype=np.float64)
    good = np.isfinite(numbers) & (numbers >= 0)
    if not good.all():
        worst = int(good.argmin())
        raise DataError(
            f"weights are finite and 0 or more, but sample {worst}'s is {numbers[worst]:g}"
        )
    return numbers


def _as_array(what: str, values: npt.ArrayLike) -> Array:
    """Return `values` as an array, or say that they make none."""
    if np.ma.is_masked(values):
        raise DataError(f"{what} has masked values: fill them in, or leave their samples out")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{what} cannot be made an array: {error}") from error
