import tracemalloc

import numpy as np
import pytest

from fastnn.data import load_dataset, synthetic
from fastnn.errors import ArgumentError


def test_the_default_is_like_mnist():
    tracemalloc.start()
    try:
        datasets = load_dataset("synthetic")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    train, test = datasets
    assert train.x.shape == (60_000, 784)
    assert test.x.shape == (10_000, 784)
    assert train.x.dtype == np.uint8
    assert datasets.classes == 10
    assert (train.x == 0).mean() == pytest.approx(0.81, abs=0.02)
    assert set(np.bincount(train.labels)) == {6000}
    assert peak < 1.5 * 70_000 * 784


def test_it_can_be_learnt():
    """By the nearest class mean, far better than by chance, also on samples not seen."""
    train, test = synthetic(train=500, test=200, features=100, classes=7)
    means = np.stack([train.x[train.labels == c].mean(axis=0) for c in range(7)])
    distances = ((test.x[:, None, :] - means) ** 2).sum(axis=2)
    assert (distances.argmin(axis=1) == test.labels).mean() > 0.95
    assert not np.array_equal(train.x[:200], test.x)


def test_seeds():
    sizes = {"train": 20, "test": 5, "features": 9, "classes": 3}
    assert synthetic(**sizes, seed=4).sha256 == synthetic(**sizes, seed=4).sha256
    assert synthetic(**sizes, seed=4).sha256 != synthetic(**sizes, seed=5).sha256


@pytest.mark.parametrize(
    ("train", "test", "features", "classes"),
    [(1, 1, 1, 1), (10, 3, 500_000, 10), (3000, 100, 2, 3000), (5, 500, 1, 5)],
)
def test_any_size(train, test, features, classes):
    datasets = synthetic(train, test, features, classes)
    assert datasets.train.x.shape == (train, features)
    assert datasets.test.x.shape == (test, features)
    assert datasets.classes == classes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"train": 0}, "train"),
        ({"test": -1}, "test"),
        ({"features": 0}, "features"),
        ({"classes": 0}, "classes"),
        ({"seed": -1}, "seed"),
        ({"train": 2.5}, "train.*2.5"),
        ({"features": "784"}, "features.*'784'"),
        ({"classes": None}, "classes"),
        ({"train": 9}, "9 training samples.*10 classes"),
        ({"train": 10**12}, "1,000,000,010,000 samples of 784 features.*GB"),
        ({"features": 10**30}, "GB"),
    ],
)
def test_refusals(arguments, says):
    with pytest.raises(ArgumentError, match=says):
        synthetic(**arguments)
