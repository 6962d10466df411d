"""Whatever is done to a file, it is read as valid data or refused with a DataError."""

import gzip
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnn.data import load_dataset, read_samples
from fastnn.errors import DataError

FEATURES = 20
quickly = settings(derandomize=True, max_examples=100, deadline=None)

# A place in a file, counted from its start, where headers are, or from its end, where the directory
# of a zip and the checksum of gzip are.
places = st.integers(-300, 300)
tokens = st.sampled_from([b"'", b"(", b",", b"L", b"-", b"9" * 18, b"|O", b"a3", b"<M8[s]", b"\\d"])
edits = st.one_of(
    st.tuples(st.just("flip"), places, st.integers(1, 255)),
    st.tuples(st.just("set"), places, st.sampled_from([b"\0", b"\x7f", b"\x80", b"\xff" * 4])),
    st.tuples(st.just("set"), places, st.binary(max_size=4) | tokens),
    st.tuples(st.just("insert"), places, st.binary(max_size=9) | tokens),
    st.tuples(st.just("delete"), places, st.integers(1, 9)),
    st.tuples(st.just("truncate"), places, st.none()),
)
mutations = st.lists(edits, min_size=1, max_size=5)


def mutated(data, mutation):
    data = bytearray(data)
    for kind, place, what in mutation:
        place = max(0, len(data) + place) if place < 0 else min(place, len(data))
        match kind:
            case "flip":
                data[place : place + 1] = bytes(byte ^ what for byte in data[place : place + 1])
            case "set":
                data[place : place + len(what)] = what
            case "insert":
                data[place:place] = what
            case "delete":
                del data[place : place + what]
            case "truncate":
                del data[place:]
    return bytes(data)


def loaded(load, path, *arguments):
    """What is loaded, or None if it is refused by the error that it should be, naming the file."""
    try:
        return load(path, *arguments)
    except DataError as error:
        message = str(error)
    assert message.startswith(str(path))
    return None


def check_data_set(datasets):
    if datasets is None:
        return
    train, test = datasets
    for dataset in (train, test):
        check_samples(dataset.x)
        assert dataset.labels.shape == (len(dataset),)
        assert dataset.labels.min() >= 0
    assert train.features == test.features
    assert test.labels.max() <= train.labels.max()


def check_samples(x):
    if x is None:
        return
    assert x.ndim == 2
    assert x.size > 0
    assert x.flags.c_contiguous
    assert x.dtype in (np.uint8, np.float32, np.float64)
    assert np.isfinite(x).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, idx_files):
    folder = tmp_path_factory.mktemp("mutated")
    for name, data in idx_files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("packed", [bytes, lambda data: gzip.compress(data, mtime=0)])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_idx(folder, idx_files, name, packed):
    data = packed(idx_files[name])
    try:

        @quickly
        @given(mutations)
        def check(mutation):
            (folder / name).write_bytes(mutated(data, mutation))
            check_data_set(loaded(load_dataset, folder))

        check()
    finally:
        (folder / name).write_bytes(idx_files[name])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path_factory, arrays, save):
    path = tmp_path_factory.mktemp("mutated") / "some.npz"
    file = io.BytesIO()
    save(file, **arrays)

    @quickly
    @given(mutations)
    def check(mutation):
        path.write_bytes(mutated(file.getvalue(), mutation))
        check_data_set(loaded(load_dataset, path))

    check()


@pytest.mark.parametrize("kind", ["u1", "f4", "f8"])
def test_npy(tmp_path_factory, arrays, kind):
    path = tmp_path_factory.mktemp("mutated") / "some.npy"
    file = io.BytesIO()
    np.save(file, arrays["x_train"].astype(kind))

    @quickly
    @given(mutations)
    def check(mutation):
        path.write_bytes(mutated(file.getvalue(), mutation))
        check_samples(loaded(read_samples, path, FEATURES))

    check()


starts = st.sampled_from([b"", b"\0\0\x08", b"\x1f\x8b\x08", b"PK\x03\x04", b"\x93NUMPY\x01\0"])


@quickly
@given(start=starts, data=st.binary(max_size=200))
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x"])
def test_anything(tmp_path_factory, name, start, data):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(start + data)
    check_samples(loaded(read_samples, path, 1))
