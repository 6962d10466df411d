import gzip
import hashlib
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from fastnn.data import load_dataset
from fastnn.data.idx import read_folder, read_idx
from fastnn.errors import DataError


def header(*lengths, kind=8):
    return bytes([0, 0, kind, len(lengths)]) + b"".join(struct.pack(">I", n) for n in lengths)


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "some-idx3-ubyte"
        path.write_bytes(data)
        return read_idx(str(path))

    return read


@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4), (2, 3, 4, 3)])
@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_elements_come_in_c_order(read, as_idx, shape, packed):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    result = read(packed(as_idx(array)))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, array)


def test_gzip_in_several_members(read, as_idx):
    data = as_idx(np.arange(6).reshape(2, 3))
    parts = gzip.compress(data[:7]) + gzip.compress(b"") + gzip.compress(data[7:])
    np.testing.assert_array_equal(read(parts), [[0, 1, 2], [3, 4, 5]])


GOOD = header(2, 3) + bytes(6)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\x01\0\x08\x01", "not an IDX file"),
        (b"\0\0\x08\0\0", "not an IDX file"),
        (header(*[1] * 5) + b"\0", "not an IDX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "not an IDX file"),
        (header(6, kind=0x0D) + bytes(24), "0x0d"),
        (GOOD[:9], "truncated within its header"),
        (GOOD[:-1], "promises 6 elements, it holds 5"),
        (GOOD + b"\0", "promises 6 elements, it holds more"),
        (header(2, 2) + bytes(6), "holds more"),
        (header(0, 28, 28), r"empty.*\(0, 28, 28\)"),
        (header(5, 0) + bytes(5), "empty"),
        (header(2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(9), "promises 79,228,1"),
        (gzip.compress(GOOD)[:-9], "malformed"),
        (gzip.compress(GOOD) + b"garbage", "malformed"),
        (gzip.compress(GOOD[:-1]), "holds 5"),
        (gzip.compress(GOOD + b"\0"), "holds more"),
        (b"\x1f\x8b", "malformed"),
        (b"\x1f\x8b" + bytes(99), "malformed"),
        (gzip.compress(GOOD)[:10] + zlib.compress(GOOD), "malformed"),
    ],
)
def test_malformed_files_are_named(read, data, says):
    with pytest.raises(DataError, match=f"some-idx3-ubyte: .*{says}"):
        read(data)


@pytest.mark.parametrize("place", [-8, -1])  # of the checksum, and of the length
def test_the_trailer_of_gzip_is_checked(read, place):
    data = bytearray(gzip.compress(GOOD))
    data[place] ^= 1
    with pytest.raises(DataError, match="malformed"):
        read(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (header(50_000_000) + bytes(1000), "50,000,000 bytes"),
        (gzip.compress(header(50_000_000) + bytes(1000)), "50,000,000 bytes"),
        # As much as deflate could expand it, then far more than it holds.
        (gzip.compress(header(50_000_000) + os.urandom(100_000)), "holds 100,000"),
        # It holds far more than it promises.
        (gzip.compress(header(10) + bytes(50_000_000)), "holds more"),
    ],
)
def test_neither_headers_nor_gzip_bombs_allocate(read, data, says):
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=says):
            read(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10e6


def test_what_would_expand_beyond_a_gibibyte_is_refused_at_once(read):
    bomb = gzip.compress(header(2**30 + 1) + os.urandom(1 << 21), 0)
    with pytest.raises(DataError, match=r"1,073,741,825 bytes.*gunzip"):
        read(bomb)


def test_what_is_no_file(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name, says in [
        (".", "is a folder"),
        ("missing", "No such file"),
        ("loop", "cannot be read"),
        ("pipe", "not a regular file"),
        ("nul\0", "null"),
        ("x" * 999, "too long"),
    ]:
        with pytest.raises(DataError, match=says):
            read_idx(os.path.join(tmp_path, name))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(GOOD)
    path.chmod(0)
    with pytest.raises(DataError, match="secret: cannot be read: Permission denied"):
        read_idx(str(path))


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("gzipped", [False, True])
def test_the_usual_names(tmp_path, idx_files, arrays, dotted, gzipped):
    for name, data in idx_files.items():
        if dotted:
            name = name.replace("-idx", ".idx")
        if gzipped:
            name, data = f"{name}.gz", gzip.compress(data)
        (tmp_path / name).write_bytes(data)
    datasets = read_folder(tmp_path)
    assert datasets.name == str(tmp_path)
    np.testing.assert_array_equal(datasets.train.x, arrays["x_train"].reshape(12, 20))
    np.testing.assert_array_equal(datasets.train.labels, arrays["y_train"])
    np.testing.assert_array_equal(datasets.test.x, arrays["x_test"].reshape(6, 20))
    np.testing.assert_array_equal(datasets.test.labels, arrays["y_test"])


def test_a_gz_that_a_browser_unpacked(idx_folder):
    path = idx_folder / "train-images-idx3-ubyte"
    path.rename(f"{path}.gz")
    assert len(read_folder(idx_folder).train) == 12


def test_the_hash_does_not_tell_how_the_files_were_packed(tmp_path, idx_folder, gz_files, arrays):
    for name, data in gz_files.items():
        (tmp_path / name).write_bytes(data)
    np.savez(tmp_path / "same.npz", **arrays)
    sources = (idx_folder, tmp_path, tmp_path / "same.npz")
    assert len({load_dataset(source).sha256 for source in sources}) == 1


def test_missing_files_are_named(idx_folder):
    (idx_folder / "train-labels-idx1-ubyte").unlink()
    (idx_folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(
        DataError, match=r"lacks train-labels-idx1-ubyte, t10k-images-idx3-ubyte.*\.gz"
    ):
        read_folder(idx_folder)


def test_a_folder_that_cannot_be_listed(idx_folder):
    with pytest.raises(DataError, match="No such file"):
        read_folder(idx_folder / "missing")
    with pytest.raises(DataError, match="Not a directory"):
        read_folder(idx_folder / "train-images-idx3-ubyte")


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("train-labels-idx1-ubyte", np.zeros(11), "training set: .*12 samples in x but 11 labels"),
        ("train-labels-idx1-ubyte", np.zeros((12, 5, 4)), "training set: labels"),
        ("train-labels-idx1-ubyte", [0, 1, 2] * 3 + [0, 1, 200], "up to 200"),
        ("t10k-labels-idx1-ubyte", [0, 1, 2, 3, 0, 1], "test labels go up to 3"),
        ("t10k-images-idx3-ubyte", np.zeros((6, 4, 4)), "20 features.*16"),
        ("t10k-images-idx3-ubyte", np.zeros(6), "test set: x"),
    ],
)
def test_files_that_do_not_fit_together(idx_folder, as_idx, name, array, says):
    (idx_folder / name).write_bytes(as_idx(array))
    with pytest.raises(DataError, match=f"digits of mine: .*{says}"):
        read_folder(idx_folder)


@pytest.fixture(scope="module")
def mnist():
    if "FASTNN_MNIST" not in os.environ:
        pytest.skip("FASTNN_MNIST names no folder with MNIST's IDX files")
    return Path(os.environ["FASTNN_MNIST"])


def test_the_real_mnist(mnist):
    datasets = load_dataset(mnist)
    published = {  # of the whole uncompressed files
        "6bbc9ace898e44ae57da46a324031adb": (datasets.train.x, (60_000, 28, 28)),
        "a25bea736e30d166cdddb491f175f624": (datasets.train.labels, (60_000,)),
        "2646ac647ad5339dbf082846283269ea": (datasets.test.x, (10_000, 28, 28)),
        "27ae3e4e09519cfbb04c329615203637": (datasets.test.labels, (10_000,)),
    }
    for md5, (array, shape) in published.items():
        data = header(*shape) + array.astype(np.uint8).tobytes()
        assert hashlib.md5(data, usedforsecurity=False).hexdigest() == md5
    assert (datasets.features, datasets.classes) == (784, 10)
    assert datasets.train.x.dtype == np.uint8
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    np.testing.assert_array_equal(np.bincount(datasets.train.labels), counts)


def test_loading_the_real_mnist_makes_no_float_copy(mnist):
    tracemalloc.start()
    try:
        load_dataset(mnist)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * 70_000 * 784
