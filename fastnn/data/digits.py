"""The handwritten digits that come with scikit-learn: 8 × 8 pixels, no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fastnn.data.dataset import Dataset, Datasets
from fastnn.errors import DataError

__all__ = ["load_digits"]

_TEST_SAMPLES = 360  # about a fifth of 1,797
_BRIGHTEST = 16


def load_digits() -> Datasets:
    """Return scikit-learn's 1,797 digits: 1,437 to train on and 360 to test on.

    The pixels 0 to 16 are stretched to 0 to 255 (uint8, rounded). The samples come in the order of
    their writers, so they are shuffled before they are split, always alike.
    """
    table = np.loadtxt(_file(), delimiter=",", dtype=np.uint8)  # a line: 64 pixels, the digit
    x, labels = np.rint(table[:, :-1] * (255 / _BRIGHTEST)).astype(np.uint8), table[:, -1]
    test, train = np.split(np.random.default_rng(0).permutation(len(x)), [_TEST_SAMPLES])
    return Datasets("digits", Dataset(x[train], labels[train]), Dataset(x[test], labels[test]))


def _file() -> Path:
    """Return scikit-learn's own file; to import scikit-learn for it would take a second."""
    spec = find_spec("sklearn")
    if spec is not None and spec.submodule_search_locations:
        path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
        if path.exists():
            return path
    raise DataError("the digits come with scikit-learn, which is not installed as it should be")
