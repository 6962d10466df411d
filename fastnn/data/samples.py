"""Samples without labels, to be classified."""

from __future__ import annotations

import math
import os

from fastnn.data.arrays import Array, as_samples
from fastnn.data.idx import read_idx
from fastnn.data.npz import array_names, read_arrays, read_npy
from fastnn.data.reading import reading
from fastnn.errors import DataError

__all__ = ["read_samples"]


def read_samples(path: str | os.PathLike[str], features: int) -> Array:
    """Read samples for a network of `features` inputs from an .npy, .npz or IDX file.

    Parameters
    ----------
    path : str or PathLike
        An .npz gives its array ``x``, else ``x_test``, else its only one. Any other name than
        ``*.npy`` and ``*.npz`` is taken for IDX, plain or gzipped.
    features : int
        The number of values in a sample: the last axes of the array have to multiply to it. So
        (784,), (28, 28), (5, 784) and (5, 28, 28) all do for 784.

    Returns
    -------
    (n, features) array of uint8, float32 or float64
        As the `x` of a `fastnn.data.Dataset`.

    Raises
    ------
    DataError
        The file is missing or malformed, no array can be chosen, or it has not `features` values
        a sample.
    """
    name = os.fspath(path)
    match os.path.splitext(name)[1].lower():
        case ".npy":
            array = read_npy(name)
        case ".npz":
            (array,) = read_arrays(name, [_choose(name)])
        case _:
            array = read_idx(name)
    with reading(name):
        if not any(math.prod(array.shape[axis:]) == features for axis in range(array.ndim + 1)):
            raise DataError(
                f"has shape {array.shape}, which is no number of samples of {features} features"
            )
        return as_samples(array.reshape(-1, features))


def _choose(path: str) -> str:
    """Return the name of the array to read from an .npz."""
    names = array_names(path)
    for wanted in ("x", "x_test", *names[: len(names) == 1]):
        if wanted in names:
            return wanted
    raise DataError(f"{path}: which array is meant? Call it x; there are {names[:8]}")
