"""From the name of a data set, or the path of one, to the data."""

from __future__ import annotations

import os

from fastnn.data.dataset import Datasets
from fastnn.data.digits import load_digits
from fastnn.data.download import DownloadProgress
from fastnn.data.idx import read_folder
from fastnn.data.mnist import load_mnist
from fastnn.data.npz import read_npz
from fastnn.data.reading import opened
from fastnn.data.synthetic import synthetic
from fastnn.errors import ArgumentError, DataError, did_you_mean

__all__ = ["BUILT_IN", "load_dataset"]

# The data sets with a name, and what they are.
BUILT_IN = {
    "digits": "1,797 handwritten digits of 8 × 8 pixels, bundled with scikit-learn",
    "mnist": "70,000 handwritten digits of 28 × 28 pixels, downloaded once (11 MB)",
    "synthetic": "made-up images, as many, large and sparse as MNIST's, for benchmarks",
}


def load_dataset(
    source: str | os.PathLike[str], on_progress: DownloadProgress | None = None
) -> Datasets:
    """Load a data set by its name or its path.

    Parameters
    ----------
    source : str or PathLike
        ``"digits"``, ``"mnist"``, ``"synthetic"``; or the path of a folder of IDX files with
        MNIST's names, or of an .npz with x_train, y_train, x_test and y_test, and weights_train if
        the training samples have weights. A name wins over a file that is called so: for that give
        ``./mnist`` or a Path.
    on_progress : callable, optional
        Called as ``on_progress(file_name, received_bytes, total_bytes_or_None)`` during a download.

    Returns
    -------
    Datasets
        Its `train` and `test`; ``train_set, test_set = load_dataset("digits")`` works too.

    Raises
    ------
    DataError
        Neither a known name nor a readable, valid data set; or MNIST cannot be downloaded.
    ArgumentError
        `source` is no text or path.
    """
    try:
        path = os.fspath(source)
    except TypeError:
        path = None
    if not isinstance(path, str):
        raise ArgumentError(f"a data set is given by its name or path, not {source!r}")
    match source:
        case "digits":
            return load_digits()
        case "mnist":
            return load_mnist(on_progress)
        case "synthetic":
            return synthetic()
    if path == source and not os.path.lexists(path) and _looks_like_a_name(path):
        known = did_you_mean("data set", path, BUILT_IN)
        raise DataError(f"{known}; or the path of a folder of IDX files or an .npz")
    if os.path.isdir(path):
        return read_folder(path)
    if path.lower().endswith(".npz"):
        return read_npz(path)
    with opened(path):
        raise DataError("is neither a folder of IDX files nor an .npz")


def _looks_like_a_name(path: str) -> bool:
    return os.path.basename(path) == path and not os.path.splitext(path)[1]
