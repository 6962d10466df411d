"""Opening files that may be malformed: one kind of error, and memory bounded by what is there."""

from __future__ import annotations

import gzip
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader
from typing import IO

from fastnn.errors import DataError

__all__ = ["check_promise", "opened", "read_up_to", "reading"]

# What the decoders raise for malformed files.
MALFORMED = (
    gzip.BadGzipFile,
    EOFError,  # a gzip or deflate stream ends early
    zlib.error,
    zipfile.BadZipFile,
    struct.error,  # zip structures of a wrong size
    NotImplementedError,  # zip features that Python lacks
    ValueError,
)

_CHUNK = 1 << 20  # bytes
_DEFLATE_RATIO = 1032  # no deflate stream expands further
_LARGEST_EXPANSION = 1 << 30  # bytes


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Name `path` in whatever goes wrong while it is read.

    Raises
    ------
    DataError
        For an OSError, one of `MALFORMED`, or a DataError that does not name the file yet.
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except MALFORMED as error:
        raise DataError(f"{path}: is malformed: {str(error) or type(error).__name__}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


@contextmanager
def opened(path: str) -> Iterator[tuple[BufferedReader, int]]:
    """Open the regular file at `path` and give it with its size in bytes, as in `reading`.

    A folder, or a device or pipe that could block or never end, is refused.
    """
    with reading(path):
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise DataError("is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise DataError("is not a regular file")
        with open(path, "rb") as file:
            yield file, status.st_size


def check_promise(promised: int, stored: int, compressed: bool, remedy: str) -> None:
    """Refuse, before anything is allocated, a header that promises too much.

    Parameters
    ----------
    promised, stored : int
        The bytes that a header promises, and the bytes of the file that shall give them.
    compressed : bool
        Whether they are deflated: then they may be more, to a limit against compression bombs.
    remedy : str
        What to do about honest data over that limit.
    """
    if promised > stored * (_DEFLATE_RATIO if compressed else 1):
        raise DataError(
            f"is truncated or malformed: its header promises {promised:,} bytes, "
            f"more than the {stored:,} stored can hold"
        )
    if compressed and promised > _LARGEST_EXPANSION:
        raise DataError(
            f"would expand to {promised:,} bytes, over the limit of {_LARGEST_EXPANSION:,} "
            f"for compressed data: {remedy}"
        )


def read_up_to(stream: IO[bytes] | BufferedIOBase, count: int) -> bytearray:
    """Return the next `count` bytes, or those there are: the memory grows as the bytes come in."""
    data = bytearray()
    while len(data) < count and (chunk := stream.read(min(count - len(data), _CHUNK))):
        data += chunk
    return data
