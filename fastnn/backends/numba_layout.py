"""Where the compiled epoch of the Numba device keeps its numbers: all in one flat array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.backends.numba_code import Code

__all__ = ["Layout", "lists_of_columns"]

Array = NDArray[Any]

_LINE = 64  # bytes


class Layout:
    """Gives out places in memory, each at the beginning of a cache line."""

    def __init__(self, code: Code, dtype: np.dtype[Any]) -> None:
        self._lanes: int = code.tiles.lanes(dtype.itemsize)
        self._dtype = dtype
        self.size = 0

    def up(self, n: int) -> int:
        """Fill n up to whole vectors."""
        return -(-n // self._lanes) * self._lanes

    def take(self, n: int) -> int:
        """Return the place of n numbers."""
        line = _LINE // self._dtype.itemsize
        place, self.size = self.size, self.size + -(-n // line) * line
        return place

    def matrix(self, m: int, n: int) -> tuple[int, int]:
        """Return the place of m rows of n numbers, and how far it is from row to row."""
        row = self.up(n)
        return self.take(m * row), row

    def weights(self, rows: int, columns: int) -> tuple[int, int, int]:
        """Return place, rows and columns, which are filled up."""
        rows, columns = self.up(rows), self.up(columns)
        return self.take(rows * columns), rows, columns

    def memory(self) -> Array:
        """Return all that was given out, zeros."""
        n = self.size * self._dtype.itemsize
        raw = np.zeros(n + _LINE, np.uint8)
        first = -raw.ctypes.data % _LINE
        return raw[first : first + n].view(self._dtype)


def lists_of_columns(sizes: Sequence[int], team: int) -> tuple[Array, Array]:
    """Return room to say which inputs some samples use: in bytes, and in lists.

    The first of the lists is that of all columns of any layer, and there is one for each of a team.
    """
    used = np.zeros(-(-sizes[0] // 64) * 64, np.uint8)
    # Lists end with as many more as a tile looks ahead, or list_used writes too far.
    every = np.arange(-(-max(sizes) // 64) * 64 + 64, dtype=np.int32)
    return used, np.tile(every, 1 + team)
