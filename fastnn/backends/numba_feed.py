"""What the Numba device makes of many samples: :func:`fastnn.kernels.numba_epoch.feed`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.backends.base import Layer
from fastnn.backends.numba_code import Code
from fastnn.backends.numba_layout import Layout, lists_of_columns
from fastnn.threads import team, together

__all__ = ["WORTH_A_THREAD", "CompiledFeed"]

Array = NDArray[Any]

# Samples at a time: few of them have many columns in common that are zero in all, and the weights
# are read from the cache once for all of them.
PORTION = 40
# With so many multiplications each, a further thread is worth its start.
WORTH_A_THREAD = 10_000_000


class CompiledFeed:
    """The outputs for all samples in one compiled call, which the threads share out by samples."""

    def __init__(
        self, sizes: Sequence[int], rows: Array, scale: float, code: Code, dtype: np.dtype[Any]
    ) -> None:
        self._rows, self._scale, self._code = rows, dtype.type(scale), code
        n, weights = len(rows), sum(n_in * n_out for n_in, n_out in pairwise(sizes))
        self._team = team(n * weights, WORTH_A_THREAD)
        self._order = np.arange(n, dtype=np.int32)

        layout = Layout(code, dtype)
        zero = layout.take(layout.up(max(sizes)))
        # Of all threads the same weights, and of each its own activations.
        places = np.zeros((self._team, len(sizes) - 1), code.epoch.LAYER)
        for number, (n_in, n_out) in enumerate(pairwise(sizes)):
            place = places[:, number]
            place["n_in"], place["n_out"] = n_in, n_out
            place["w"], place["b"] = layout.weights(n_in, n_out), layout.take(layout.up(n_out))
        for own in places:
            a_prev = layout.matrix(PORTION, sizes[0])
            for place, n_out in zip(own, sizes[1:], strict=True):
                place["a_prev"], place["a"] = a_prev, layout.matrix(PORTION, n_out)
                a_prev = place["a"]
        memory, none = layout.memory(), np.zeros((1, 1), np.int32)
        self._work = []
        for own in places:
            used, columns = lists_of_columns(sizes, 1)
            self._work.append(
                code.epoch.Work(
                    memory=memory,
                    layers=own,
                    used=used,
                    columns=columns,
                    zero=zero,
                    one=0,
                    how=0,
                    beside=0,
                    powers=0,
                    seen=none,
                    coming=none,
                )
            )

    def __call__(self, layers: Sequence[Layer], out: Array) -> None:
        """out = the outputs; see :class:`fastnn.backends.base.Feed`."""
        epoch, n = self._code.epoch, len(self._rows)
        for work in self._work:
            work.layers["activation"] = [self._code.sigma.CODES[each.activation] for each in layers]
        for place, layer in zip(self._work[0].layers, layers, strict=True):
            epoch.pack(self._work[0].memory, place, layer.w, layer.b)
        board, rows = self._code.team.new_board(), out.reshape(n, -1)

        def feed(rank: int) -> None:
            start, stop = n * rank // self._team, n * (rank + 1) // self._team
            epoch.feed(
                self._rows, self._scale, self._order, start, stop, PORTION,
                self._work[rank], board, rows,
            )  # fmt: skip

        together(self._team, feed)
