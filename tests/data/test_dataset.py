import hashlib
import tracemalloc

import numpy as np
import pytest

from fastnn.data import Dataset, Datasets
from fastnn.errors import ArgumentError, DataError

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def floats(rows=4, features=3):
    return np.ones((rows, features), np.float32)


def test_images_become_rows_and_stay_the_same_bytes():
    dataset = Dataset(PIXELS, [0, 1])
    assert dataset.x.shape == (2, 12)
    assert dataset.x.dtype == np.uint8
    assert np.shares_memory(dataset.x, PIXELS)
    assert dataset.labels.dtype == np.int64
    assert len(dataset) == 2
    assert dataset.features == 12
    np.testing.assert_array_equal(dataset.x[1], np.arange(12, 24))


@pytest.mark.parametrize(
    ("given", "kept"),
    [("f2", "float32"), ("f4", "float32"), (">f4", "float32"), ("f8", "float64"), ("u1", "uint8")],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_types_and_layouts(given, kept, order):
    x = np.array([[1, 2], [3, 4], [5, 6]], dtype=given, order=order)
    dataset = Dataset(x, np.zeros(3, np.uint8))
    assert dataset.x.dtype == np.dtype(kept)
    assert dataset.x.dtype.isnative
    assert dataset.x.flags.c_contiguous
    np.testing.assert_array_equal(dataset.x, x)


def test_big_endian_and_strided_labels():
    labels = np.array([2, 9, 0, 9, 1, 9], ">i4")[::2]
    dataset = Dataset(floats(3), labels)
    np.testing.assert_array_equal(dataset.labels, [2, 0, 1])
    assert dataset.labels.flags.c_contiguous


@pytest.mark.parametrize(
    ("x", "labels", "says"),
    [
        (np.zeros((0, 3), np.uint8), [], r"\(0, 3\)"),
        (np.zeros((3, 0), np.uint8), [0, 1, 2], r"\(3, 0\)"),
        (np.zeros(3, np.uint8), [0, 1, 2], r"shape \(n, features\).*\(3,\)"),
        (np.uint8(3), [0], r"shape \(\)"),
        (np.zeros((2, 3), int), [0, 1], "int64.*uint8.*float32"),
        (np.zeros((2, 3), bool), [0, 1], "bool"),
        (np.zeros((2, 3), complex), [0, 1], "complex"),
        (np.zeros((2, 3), object), [0, 1], "object"),
        ([[1.0, 2.0], [3.0]], [0, 1], "x cannot be made an array"),
        (floats(4), [0, 1, 2], "4 samples in x but 3 labels"),
        (floats(2), [[0, 1], [1, 0]], "one-hot.*argmax"),
        (floats(2), [[0], [1]], "ravel"),
        (floats(2), np.zeros((2, 3, 4), int), r"\(2, 3, 4\)"),
        (floats(1), 0, r"shape \(n,\)"),
        (floats(2), [0.0, 1.0], "float64.*integers"),
        (floats(2), ["a", "b"], "integers"),
        (floats(2), [0, -1], "-1"),
        (floats(2), np.array([0, 2**64 - 1], np.uint64), "18446744073709551615"),
    ],
)
def test_refusals(x, labels, says):
    with pytest.raises(DataError, match=says):
        Dataset(x, labels)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_nan_and_inf_are_found_wherever_they_are(bad, kind):
    x = np.ones((700_000, 2), kind)
    x[611_111, 1] = bad
    with pytest.raises(DataError, match="NaN or inf in sample 611111"):
        Dataset(x, np.zeros(len(x), int))


def test_checking_allocates_little():
    x, labels = np.ones((50_000, 784), np.float32), np.zeros(50_000, np.int64)
    tracemalloc.start()
    try:
        dataset = Dataset(x, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.shares_memory(dataset.x, x)
    assert peak < 4e6  # x takes 157 MB, a mask of it 39


def test_of_takes_datasets_pairs_and_triples_only():
    dataset = Dataset(PIXELS, [0, 1])
    assert Dataset.of(dataset) is dataset
    assert Dataset.of((PIXELS, [0, 1])).features == 12
    with pytest.raises(DataError):
        Dataset.of((PIXELS, [0]))
    assert Dataset.of((PIXELS, [0, 1])).weights is None
    np.testing.assert_array_equal(Dataset.of((PIXELS, [0, 1], [3, 0])).weights, [3, 0])
    for value in (None, PIXELS, (PIXELS,), (PIXELS, [0, 1], [1, 1], 3), "digits"):
        with pytest.raises(ArgumentError, match="pair"):
            Dataset.of(value)


def test_a_dataset_is_frozen():
    with pytest.raises(AttributeError):
        Dataset(PIXELS, [0, 1]).x = PIXELS


def test_datasets_unpack_and_count_classes():
    train, test = Dataset(floats(), [0, 1, 2, 4]), Dataset(floats(1), [3])
    datasets = Datasets("mine", train, test)
    first, second = datasets
    assert (first, second) == (train, test)
    assert datasets.features == 3
    assert datasets.classes == 5


@pytest.mark.parametrize(
    ("test", "says"),
    [
        (Dataset(floats(2, 4), [0, 1]), "3 features.*4"),
        (Dataset(floats(2).astype(np.uint8), [0, 1]), "float32.*uint8"),
        (Dataset(floats(2), [0, 3]), "up to 3.*only to 2"),
    ],
)
def test_sets_that_do_not_fit_each_other(test, says):
    with pytest.raises(DataError, match=says):
        Datasets("mine", Dataset(floats(), [0, 1, 2, 0]), test)


def test_labels_with_gaps_are_taken_for_corrupted():
    labels = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 200]
    train = Dataset(floats(11), labels)
    with pytest.raises(DataError, match="up to 200 but only 11 values"):
        Datasets("mine", train, train)


def test_the_hash_is_of_type_shape_and_content():
    def digest(x, labels=(0, 1, 2, 0)):
        dataset = Dataset(x, labels)
        return Datasets("any name", dataset, dataset).sha256

    x = np.arange(48, dtype=np.uint8).reshape(4, 12)
    same = digest(x)
    assert len(same) == len(hashlib.sha256().hexdigest())
    assert digest(x.reshape(4, 3, 4)) == same
    assert digest(np.asfortranarray(x)) == same
    changed = x.copy()
    changed[3, 11] += 1
    others = [digest(changed), digest(x.astype(np.float32)), digest(x, (0, 1, 2, 1))]
    assert len({same, *others}) == 4


# Splitting
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "last"),
    [(1, 1), (10, 10), (29, 29), (0.1, 3), (0.5, 15), (1e-9, 1), (np.int64(4), 4), (0.95, 28)],
)
def test_a_split_takes_each_sample_once_and_the_last_ones_for_validation(size, last):
    x, labels = np.arange(60, dtype=np.uint8).reshape(30, 2), np.zeros(30, int)
    labels[::2] = 1
    rest, split = (
        Dataset(x, labels).split(size) if last != 29 else Dataset(x, x[:, 0] * 0).split(29)
    )
    assert len(split) == last
    np.testing.assert_array_equal(np.concatenate([rest.x, split.x]), x)
    if last != 29:
        np.testing.assert_array_equal(np.concatenate([rest.labels, split.labels]), labels)
    assert np.shares_memory(rest.x, x)
    assert np.shares_memory(split.x, x)


def test_the_books_split_of_mnist():
    x, labels = np.zeros((60_000, 1), np.uint8), np.arange(60_000) % 10
    first, last = Dataset(x, labels).split(10_000)
    assert (len(first), len(last)) == (50_000, 10_000)
    np.testing.assert_array_equal(last.labels, labels[50_000:])


@pytest.mark.parametrize(
    "size", [0, -1, 30, 31, 0.0, 1.0, 1.5, 10.0, -0.1, 0.999, np.nan, np.inf, True, "0.1", None]
)
def test_a_split_that_cannot_be(size):
    with pytest.raises(ArgumentError, match=r"such as 0\.1, or a number of samples from 1 to 29"):
        Dataset(np.zeros((30, 2), np.uint8), np.zeros(30, int)).split(size)


def test_a_split_of_samples_that_are_sorted_by_class_is_refused():
    with pytest.raises(DataError, match="of class 2, and none of the others is: put them in a"):
        Dataset(np.zeros((30, 2), np.uint8), np.arange(30) // 10).split(10)


@pytest.mark.parametrize("which", ["x", "labels", "weights"])
def test_masked_values_are_refused(which):
    arrays = {"x": np.ones((4, 3)), "labels": np.array([0, 1, 1, 0]), "weights": np.ones(4)}
    arrays[which] = np.ma.masked_array(arrays[which], mask=arrays[which] == 1)
    with pytest.raises(DataError, match=f"{which} has masked values"):
        Dataset(**arrays)
    Dataset(**{**arrays, which: np.ma.masked_array(arrays[which].data)})
