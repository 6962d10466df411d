"""NumPy's own files: an .npy holds an array, an .npz is a zip of them. Pickles are never loaded."""

from __future__ import annotations

import io
import math
import os
import tokenize
import warnings
import zipfile
from typing import IO

import numpy as np
from numpy.lib import format as npy

from fastnn.data.arrays import Array
from fastnn.data.dataset import Datasets, assemble
from fastnn.data.reading import check_promise, opened, read_up_to, reading
from fastnn.errors import DataError

__all__ = ["array_names", "read_arrays", "read_npy", "read_npz"]

_LONGEST_HEADER = 1024  # bytes; that of a plain array takes 128
_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

# What these raise for malformed headers.
_BAD_HEADER = (
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    OverflowError,
    RecursionError,
    tokenize.TokenError,
)

_ENCRYPTED = 0x1  # a flag bit of zip members


def read_npz(path: str | os.PathLike[str]) -> Datasets:
    """Read an .npz of ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    It may have ``weights_train`` too, how much each training sample counts.

    Raises
    ------
    DataError
        The file is missing or malformed, lacks an array, or the arrays make no `Datasets`; or it
        has other weights, such as ``weights_test``: what is measured is not weighted.
    """
    name = os.fspath(path)
    present, wanted = array_names(name), ["x_train", "y_train", "x_test", "y_test"]
    weights = [each for each in present if "weight" in each.lower()]
    if "weights_test" in weights:
        raise DataError(
            f"{name}: holds weights_test, but what is measured is not weighted; leave it out"
        )
    if weights not in ([], ["weights_train"]):  # misspelled, they would silently not count
        raise DataError(
            f"{name}: holds {weights[0]}; what training samples count is weights_train, and "
            "nothing else is read"
        )
    wanted += weights
    return assemble(name, *read_arrays(name, wanted))


def array_names(path: str) -> list[str]:
    """Return the names of the arrays in an .npz file.

    Raises
    ------
    DataError
        The file is missing or malformed.
    """
    with opened(path) as (file, _), zipfile.ZipFile(file) as archive:
        return _array_names(archive)


def read_arrays(path: str, names: list[str]) -> list[Array]:
    """Return the named arrays of numbers of an .npz file.

    Raises
    ------
    DataError
        The file is missing or malformed, or lacks one of the arrays; or an array is encrypted,
        compressed otherwise than by ``np.savez_compressed``, expands beyond 1 GiB, or holds
        something else than numbers.
    """
    with opened(path) as (file, size), zipfile.ZipFile(file) as archive:
        present = _array_names(archive)
        missing = [name for name in names if name not in present]
        if missing:
            raise DataError(f"lacks {', '.join(missing)}; it holds {present[:8]}")
        return [_read_member(archive, name, size) for name in names]


def _array_names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _read_member(archive: zipfile.ZipFile, name: str, archive_size: int) -> Array:
    info = archive.getinfo(f"{name}.npy")
    with reading(name):
        if info.flag_bits & _ENCRYPTED:
            raise DataError("is encrypted; save it with np.savez")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError("is compressed in an unusual way; save it with np.savez")
        check_promise(
            info.file_size,
            min(info.compress_size, archive_size),
            info.compress_type == zipfile.ZIP_DEFLATED,
            "save it with np.savez, which does not compress",
        )
        with archive.open(info) as member:
            return _read_array(member, info.file_size)


def read_npy(path: str) -> Array:
    """Return the array of numbers in an .npy file.

    Raises
    ------
    DataError
        The file is missing or malformed, or holds something else than numbers.
    """
    with opened(path) as (file, size):
        return _read_array(file, size)


def _read_array(stream: IO[bytes], size: int) -> Array:
    """Return the array in a seekable stream of .npy form that claims to hold `size` bytes."""
    head = io.BytesIO(read_up_to(stream, _LONGEST_HEADER))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about oddities of the header; either it reads or not
            read_header = _HEADER_READERS[npy.read_magic(head)]
            shape, fortran_order, dtype = read_header(head, max_header_size=_LONGEST_HEADER)
    except _BAD_HEADER as error:
        raise DataError("is malformed: it has not the header of an .npy array") from error
    if dtype.hasobject:
        raise DataError("holds Python objects, which are never unpickled; save numbers")
    if dtype.kind not in "biuf":
        raise DataError(f"holds {dtype.name}, not numbers")
    if any(length < 1 for length in shape):
        raise DataError(f"is empty: its header gives the shape {shape}")
    promised, held = math.prod(shape) * dtype.itemsize, size - head.tell()
    if promised != held:
        raise DataError(f"its header promises {promised:,} bytes of numbers, it holds {held:,}")
    stream.seek(head.tell())
    numbers = np.frombuffer(read_up_to(stream, promised), dtype)
    return numbers.reshape(shape[::-1]).T if fortran_order else numbers.reshape(shape)
