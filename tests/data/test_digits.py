import numpy as np
from sklearn import datasets as sklearn_datasets

from fastnn.data import load_dataset
from fastnn.data.digits import load_digits


def test_every_digit_is_in_one_of_the_sets():
    train, test = load_digits()
    assert (len(train), len(test)) == (1437, 360)
    assert train.x.dtype == np.uint8
    pixels, labels = sklearn_datasets.load_digits(return_X_y=True)
    # 0 to 16 becomes 0 to 255: within half a step of the exact value.
    ours = np.vstack([np.column_stack([s.x, s.labels]) for s in (train, test)])
    theirs = np.column_stack([pixels * 255 / 16, labels])
    ours, theirs = (a[np.lexsort(np.rint(a).T)] for a in (ours, theirs))
    assert np.abs(ours - theirs).max() <= 0.5


def test_the_split_is_mixed():
    train, test = load_digits()
    for part in (train, test):
        assert np.bincount(part.labels, minlength=10).min() > 0.07 * len(part)
    assert not np.array_equal(np.sort(test.labels), test.labels)


def test_the_split_never_changes():
    datasets = load_dataset("digits")
    assert datasets.name == "digits"
    assert (datasets.features, datasets.classes) == (64, 10)
    expected = "4ff2d59575f5efa6e9b217d3184898e14bbfa38d392e1d4d96753cd8f71e707d"
    assert datasets.sha256 == expected
