import gzip

import numpy as np
import pytest

from fastnn.data import read_samples
from fastnn.errors import DataError

X = np.arange(48, dtype=np.uint8).reshape(4, 3, 4)


@pytest.mark.parametrize(
    ("shape", "features", "samples"),
    [
        ((12,), 12, 1),
        ((3, 4), 12, 1),
        ((4, 12), 12, 4),
        ((4, 3, 4), 12, 4),
        ((2, 2, 3, 4), 12, 4),
        ((4, 3, 4), 48, 1),
        ((4, 3, 4), 4, 12),
        ((48,), 1, 48),
    ],
)
def test_the_last_axes_make_a_sample(tmp_path, shape, features, samples):
    path = tmp_path / "x.npy"
    np.save(path, np.resize(X, shape))
    result = read_samples(path, features)
    assert result.shape == (samples, features)
    np.testing.assert_array_equal(result.ravel(), np.resize(X, shape).ravel())


@pytest.mark.parametrize("shape", [(4, 13), (24,), (3, 4, 4), (12, 4), ()])
def test_a_shape_that_does_not_fit(tmp_path, shape):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=r"x\.npy: has shape .*12 features"):
        read_samples(path, 12)


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_idx(tmp_path, as_idx, packed):
    path = tmp_path / "any-name"
    path.write_bytes(packed(as_idx(X)))
    np.testing.assert_array_equal(read_samples(path, 12), X.reshape(4, 12))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["x"], "x"),
        (["y", "x_test", "x"], "x"),
        (["x_train", "x_test", "y_test"], "x_test"),
        (["whatever"], "whatever"),
    ],
)
def test_npz_gives_x_or_x_test_or_its_only_array(tmp_path, names, chosen):
    path = tmp_path / "some.npz"
    np.savez(path, **{name: X if name == chosen else X[:1] for name in names})
    path = path.rename(tmp_path / "some.NPZ")
    assert len(read_samples(path, 12)) == 4


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_npz_without_a_choice(tmp_path, names):
    path = tmp_path / "some.npz"
    np.savez(path, **{name: X for name in names})
    with pytest.raises(DataError, match="which array"):
        read_samples(path, 12)


def test_samples_are_checked(tmp_path):
    for array, says in [
        (np.zeros((4, 12), int), "int64"),
        (np.full((4, 12), np.inf), "NaN or inf"),
        (np.full((4, 12), None), "never unpickled"),
    ]:
        np.save(tmp_path / "x.npy", array, allow_pickle=True)
        with pytest.raises(DataError, match=rf"x\.npy: .*{says}"):
            read_samples(tmp_path / "x.npy", 12)


def test_no_such_file(tmp_path):
    for name in ("x.npy", "x.npz", "x"):
        with pytest.raises(DataError, match=f"{name}: cannot be read: No such file"):
            read_samples(tmp_path / name, 12)
