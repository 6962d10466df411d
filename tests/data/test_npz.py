import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from fastnn.data.npz import array_names, read_arrays, read_npy, read_npz
from fastnn.errors import DataError


def encode_npy(text, data=b"", version=1):
    """The bytes of an .npy file: magic, version, length of the header, the header, the elements."""
    header = text.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def header(descr="'|u1'", order=False, shape=(2, 3)):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "some.npy"
        path.write_bytes(data)
        return read_npy(str(path))

    return read


@pytest.fixture
def zipped(tmp_path):
    def zipped(members, compression=zipfile.ZIP_STORED):
        path = tmp_path / "some.npz"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return str(path)

    return zipped


@pytest.mark.parametrize("version", [1, 2])
def test_npy_by_its_definition(read, version):
    array = read(encode_npy(header(), bytes(range(6)), version))
    np.testing.assert_array_equal(array, [[0, 1, 2], [3, 4, 5]])
    array = read(encode_npy(header(order=True), bytes(range(6)), version))
    np.testing.assert_array_equal(array, [[0, 2, 4], [1, 3, 5]])
    array = read(encode_npy(header("'>i2'", shape=(1,)), b"\x01\x02", version))
    np.testing.assert_array_equal(array, [258])


def test_keys_in_any_order_and_integers_of_python_2(read):
    text = "{'shape': (2L, 3L), 'fortran_order': False, 'descr': '|u1'}"
    assert read(encode_npy(text, bytes(6))).shape == (2, 3)


@pytest.mark.parametrize("kind", ["?", "i1", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_saves(read, kind, order):
    array = np.array([[0, 1, 2], [3, 4, 5]], kind, order=order)
    file = io.BytesIO()
    np.save(file, array)
    result = read(file.getvalue())
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "header"),
        (b"\x93NUMPY", "header"),
        (b"\x93NUMPY\x01\x00\xff\xff", "header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "header"),
        (b"PK\x03\x04" + bytes(99), "header"),
        (encode_npy(header(), bytes(6), version=9), "header"),
        (encode_npy(header())[:-5], "header"),
        (encode_npy("-" * 900 + "1"), "header"),
        (encode_npy("(" * 900), "header"),
        (encode_npy("'\\d'"), "header"),
        (encode_npy("{}"), "header"),
        (encode_npy("[" * 60_000), "header"),
        (encode_npy(header("'nonsense'")), "header"),
        (encode_npy(header("('|u1',)")), "header"),
        (encode_npy(header("'|u1'", shape="(2, 3")), "header"),
        (encode_npy(header(shape=(2, 2.5)), bytes(5)), "header"),
        (encode_npy(header("'|O'"), b"cos\nsystem\n(S'false'\ntR."), "never unpickled"),
        (encode_npy(header("[('a', '|O')]"), b"cos\nsystem\n"), "never unpickled"),
        (encode_npy(header("'<U4'"), bytes(96)), "str.*not numbers"),
        (encode_npy(header("'<c8'"), bytes(48)), "complex64, not numbers"),
        (encode_npy(header("'<M8[s]'"), bytes(48)), "datetime64.*not numbers"),
        (encode_npy(header("[('a', '|u1')]"), bytes(6)), "not numbers"),
        (encode_npy(header(), bytes(5)), "promises 6 bytes of numbers, it holds 5"),
        (encode_npy(header(), bytes(7)), "promises 6 bytes of numbers, it holds 7"),
        (encode_npy(header(shape=(0, 3))), "empty"),
        (encode_npy(header(shape=(-2, -3)), bytes(6)), r"\(-2, -3\)"),
        (encode_npy(header(shape=(1,) * 65), bytes(1)), "malformed"),
        (encode_npy(header(shape=(2**62, 2**62)), bytes(9)), "it holds 9"),
    ],
)
def test_malformed_npy(read, data, says):
    with pytest.raises(DataError, match=f"some.npy: .*{says}"):
        read(data)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, arrays, save):
    path = tmp_path / "mine.npz"
    save(path, **arrays)
    datasets = read_npz(path)
    assert datasets.name == str(path)
    np.testing.assert_array_equal(datasets.train.x, arrays["x_train"].reshape(12, 20))
    np.testing.assert_array_equal(datasets.train.labels, arrays["y_train"])
    np.testing.assert_array_equal(datasets.test.x, arrays["x_test"].reshape(6, 20))
    np.testing.assert_array_equal(datasets.test.labels, arrays["y_test"])


def test_npz_with_weights(tmp_path, arrays):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays, weights_train=np.arange(12))
    train, test = read_npz(path)
    np.testing.assert_array_equal(train.weights, np.arange(12))
    assert test.weights is None


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"weights_train": np.arange(11)}, "training set: there are 12 samples in x but 11 weigh"),
        ({"weights_train": np.arange(12) - 1.0}, "training set: weights are .*sample 0's is -1"),
        ({"weights_test": np.ones(6)}, "holds weights_test, but what is measured is not weighted"),
        ({"sample_weight": np.ones(6)}, "holds sample_weight; what training samples count is w"),
        ({"Weights_train": np.ones(6)}, "holds Weights_train; what training samples"),
        ({"y_test": None}, r"lacks y_test; it holds \['x_train', 'y_train', 'x_test'\]"),
        ({"x_train": None, "y_train": None}, "lacks x_train, y_train"),
        ({"x_train": np.array([{}] * 12)}, "x_train: .*never unpickled"),
        ({"y_train": np.eye(12)}, "training set: labels .*one-hot"),
        ({"y_test": np.zeros(6)}, "test set: labels hold float64"),
        ({"x_test": np.full((6, 20), np.nan)}, "test set: x holds NaN or inf in sample 0"),
        ({"x_test": np.ones((6, 20))}, "the training samples are uint8, the test samples float64"),
        ({"x_train": np.zeros((12, 5, 4), int)}, "training set: x holds int64"),
    ],
)
def test_npz_that_makes_no_data_set(tmp_path, arrays, changed, says):
    path = tmp_path / "mine.npz"
    np.savez(path, **{k: v for k, v in {**arrays, **changed}.items() if v is not None})
    with pytest.raises(DataError, match=f"mine.npz: {says}"):
        read_npz(path)


def test_other_members_are_ignored(zipped):
    path = zipped({"README": b"", "x.npy": encode_npy(header(), bytes(6))})
    assert array_names(path) == ["x"]
    assert read_arrays(path, ["x"])[0].shape == (2, 3)


def test_no_zip(tmp_path):
    path = tmp_path / "text.npz"
    path.write_text("x_train")
    with pytest.raises(DataError, match=r"text.npz: is malformed: .*zip"):
        read_npz(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression(zipped, compression):
    path = zipped({"x.npy": encode_npy(header(), bytes(6))}, compression)
    with pytest.raises(DataError, match=r"some.npz: x: .*unusual.*np.savez"):
        read_arrays(path, ["x"])


def patch_directory(path, offset, value):
    """Overwrite bytes of the first entry of the central directory (signature PK 1 2)."""
    with open(path, "r+b") as file:
        file.seek(file.read().index(b"PK\x01\x02") + offset)
        file.write(value)


def test_encrypted(zipped):
    path = zipped({"x.npy": encode_npy(header(), bytes(6))})
    patch_directory(path, 8, b"\x01\x00")  # the flags
    with pytest.raises(DataError, match=r"some.npz: x: is encrypted"):
        read_arrays(path, ["x"])


def test_a_wrong_checksum(zipped):
    path = zipped({"x.npy": encode_npy(header(), bytes(6))})
    patch_directory(path, 16, b"\0\0\0\0")
    with pytest.raises(DataError, match=r"some.npz: x: is malformed: .*CRC"):
        read_arrays(path, ["x"])


@pytest.mark.parametrize("size", [50_000_000, 2**32 - 2])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_directory_that_promises_too_much(zipped, compression, size):
    path = zipped({"x.npy": encode_npy(header(shape=(size,)), bytes(100))}, compression)
    patch_directory(path, 20, struct.pack("<II", 99, size))  # compressed, uncompressed
    refused_within(4e6, path, f"promises {size:,} bytes")


def test_a_header_that_promises_too_much(zipped):
    path = zipped({"x.npy": encode_npy(header(shape=(10**12,)), bytes(1000))})
    refused_within(4e6, path, "1,000,000,000,000 bytes of numbers, it holds 1,000")


def test_both_promise_too_much(zipped):
    text = header(shape=(40_000_000,))
    path = zipped({"x.npy": encode_npy(text, os.urandom(50_000))}, zipfile.ZIP_DEFLATED)
    size = len(encode_npy(text)) + 40_000_000
    patch_directory(path, 24, struct.pack("<I", size))
    refused_within(4e6, path, "x: is malformed")


def test_a_bomb_over_a_gibibyte(zipped):
    path = zipped({"x.npy": os.urandom(1 << 21)}, zipfile.ZIP_DEFLATED)
    patch_directory(path, 24, struct.pack("<I", 2**30 + 1))
    refused_within(4e6, path, "expand to 1,073,741,825 bytes.*np.savez")


def refused_within(memory, path, says):
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=says):
            read_arrays(path, ["x"])
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()
