"""IDX, the format of MNIST: a magic number that gives type and axes, the lengths, the elements.

==============  ====================================================
bytes           meaning
==============  ====================================================
0, 1            zero
2               element type: 0x08 for unsigned bytes
3               number of axes d
4 to 4 + 4d     the length of each axis, big-endian unsigned 32 bits
the rest        the elements in C order
==============  ====================================================
"""

from __future__ import annotations

import gzip
import math
import os
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt

from fastnn.data.dataset import Datasets, assemble
from fastnn.data.reading import check_promise, opened, read_up_to, reading
from fastnn.errors import DataError

__all__ = ["read_folder", "read_idx"]

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08
_MOST_AXES = 4  # a colour image has three


def read_idx(path: str) -> npt.NDArray[np.uint8]:
    """Return the array of unsigned bytes in an IDX file, plain or gzipped, in its own shape.

    Raises
    ------
    DataError
        The file cannot be read, is no IDX file of unsigned bytes, is empty, holds fewer or more
        bytes than its header promises, or is gzipped and expands beyond 1 GiB.
    """
    with opened(path) as (file, size):
        gzipped = file.peek(2)[:2] == _GZIP_MAGIC
        with gzip.GzipFile(fileobj=file) if gzipped else nullcontext(file) as stream:
            magic = read_up_to(stream, 4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or not 1 <= magic[3] <= _MOST_AXES:
                raise DataError("is not an IDX file of images or labels, plain or gzipped")
            if magic[2] != _UNSIGNED_BYTE:
                raise DataError(
                    f"holds elements of IDX type 0x{magic[2]:02x}; "
                    f"only 0x{_UNSIGNED_BYTE:02x}, unsigned bytes, is read"
                )
            lengths = read_up_to(stream, 4 * magic[3])
            if len(lengths) < 4 * magic[3]:
                raise DataError("is truncated within its header")
            shape = tuple(np.frombuffer(lengths, ">u4").tolist())
            promised = math.prod(shape)
            if promised == 0:
                raise DataError(f"is empty: its header gives the shape {shape}")
            check_promise(promised, size, gzipped, "gunzip the file first")
            # One byte more than promised: it must not be there, and to look for it makes gzip
            # read its checksum.
            elements = read_up_to(stream, promised + 1)
        if len(elements) != promised:
            held = f"{len(elements):,}" if len(elements) < promised else "more"
            raise DataError(f"its header promises {promised:,} elements, it holds {held}")
    return np.frombuffer(elements, np.uint8).reshape(shape)


def read_folder(path: str | os.PathLike[str]) -> Datasets:
    """Read a folder of the four IDX files of MNIST or of a set in its form.

    The names are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
    ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, with ``-`` or ``.`` before ``idx``,
    and with or without ``.gz``.

    Raises
    ------
    DataError
        The folder or a file in it is missing or malformed, or the four do not fit together.
    """
    folder = os.fspath(path)
    with reading(folder):
        present = set(os.listdir(folder))
        found = {
            f"{part}-{kind}-ubyte": _find(present, f"{part}-{kind}")
            for part in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        }
        missing = [name for name, file in found.items() if file is None]
        if missing:
            raise DataError(f"lacks {', '.join(missing)}, in any form: .idx for -idx, with .gz")
    return assemble(folder, *(read_idx(os.path.join(folder, f)) for f in found.values() if f))


def _find(present: set[str], stem: str) -> str | None:
    """Return the name that is present for, say, ``train-images-idx3``."""
    plain = (f"{stem}-ubyte", f"{stem.replace('-idx', '.idx')}-ubyte")
    return next((name for name in (*plain, *(f"{p}.gz" for p in plain)) if name in present), None)
