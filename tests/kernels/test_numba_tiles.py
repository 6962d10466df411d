"""The tiles against NumPy in float64, in memory of which every other number is NaN."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit

from fastnn.backends.numba_code import modules

tiles = modules()[0].tiles
PANEL = tiles.PANEL

DTYPES = [np.float32, np.float64]
ROWS = [
    *((PANEL, rows) for rows in range(1, tiles.MOST_ROWS + 1)),
    *((1, rows) for rows in range(1, tiles.MOST_ROWS + 1)),
]


@njit
def forward_wide(rows, memory, columns, first, count, x, x_row, w, init, init_row, out, out_row):
    tiles.forward_tile(
        PANEL, rows, memory, columns, first, count, x, x_row, w, init, init_row, out, out_row
    )


@njit
def forward_narrow(rows, memory, columns, first, count, x, x_row, w, init, init_row, out, out_row):
    tiles.forward_tile(
        1, rows, memory, columns, first, count, x, x_row, w, init, init_row, out, out_row
    )


@njit
def update_wide(rows, memory, columns, first, count, x, x_row, delta, delta_row, w):
    tiles.update_tile(PANEL, rows, memory, columns, first, count, x, x_row, delta, delta_row, w)


@njit
def update_narrow(rows, memory, columns, first, count, x, x_row, delta, delta_row, w):
    tiles.update_tile(1, rows, memory, columns, first, count, x, x_row, delta, delta_row, w)


@njit
def transpose(memory, x, x_row, out, out_row):
    tiles.transpose_tile(memory, x, x_row, out, out_row)


@njit
def list_used(used, columns, first):
    return tiles.list_used(used, columns, first)


@njit
def list_coming(used, seen, number, columns, missed):
    return tiles.list_coming(used, seen, number, columns, missed)


FORWARD, UPDATE = {PANEL: forward_wide, 1: forward_narrow}, {PANEL: update_wide, 1: update_narrow}


class Memory:
    """Matrices in a flat array, behind each other at odd places; all else is NaN.

    What a tile reads beyond them makes its result NaN, and what it writes there is seen.
    """

    def __init__(self, dtype, seed):
        self.rng = np.random.default_rng(seed)
        self.flat = np.full(20_000, np.nan, dtype)
        self._end = 1

    def matrix(self, rows, columns, row):
        """Return a matrix of drawn numbers, its place, and the view of it."""
        at, strides = self._end, (row * self.flat.itemsize, self.flat.itemsize)
        view = np.lib.stride_tricks.as_strided(self.flat[at:], (rows, columns), strides)
        view[...] = self.rng.standard_normal((rows, columns))
        self._end = (at + rows * max(row, columns) + 2) | 1
        assert self._end < self.flat.size
        return at, view

    def list(self, columns, count):
        """Return some of so many columns at random, in order, and such a list of them as tiles get.

        The list begins at 3, and goes on as far as a tile looks ahead.
        """
        listed = np.sort(self.rng.permutation(columns)[:count])
        return listed, np.concatenate([[9] * 3, listed, [0] * tiles.AHEAD]).astype(np.int32)


def bits(array):
    """The array as integers, of which every one is equal to itself."""
    return array.view(f"u{array.itemsize}")


def assert_close(got, expected, bound):
    """Off by so many roundings of as large a sum as the bound; NaN is off."""
    eps = np.finfo(got.dtype).eps
    assert (np.abs(got - expected) <= eps * bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "rows"), ROWS)
def test_a_forward_tile_is_the_sum_over_the_listed_columns(dtype, width, rows):
    n = width * tiles.lanes(np.dtype(dtype).itemsize)
    for count, spread, place in [
        (1, 0, "beside"),
        (1, 1, "beside"),
        (2, 1, "in place"),
        (7, 0, "beside"),
        (61, 1, "beside"),
        (61, 1, "in place"),
    ]:
        memory = Memory(dtype, seed=count)
        flat, columns = memory.flat, 61
        listed, given_list = memory.list(columns, count)
        x_row, out_row = columns + 2 * rows, n + 5
        x_at, x = memory.matrix(rows, columns, x_row)
        w_at, w = memory.matrix(columns, n, n)
        others = np.setdiff1d(np.arange(columns), listed)
        x[:, others], w[others] = np.nan, np.nan
        init_at, init = memory.matrix(rows if spread else 1, n, n + 3)
        init_row = (n + 3) * spread
        out_at, out = memory.matrix(rows, n, out_row)
        if place == "in place":  # as where the columns are taken a part at a time
            init_at, init, init_row = out_at, out, out_row
        else:
            out[...] = np.nan
        exact = [each.astype(np.float64) for each in (init, x[:, listed], w[listed])]
        before = flat.copy()

        FORWARD[width](
            rows, flat, given_list, 3, count, x_at, x_row, w_at, init_at, init_row, out_at, out_row
        )
        sizes = [np.abs(each) for each in exact]
        assert_close(
            out, exact[0] + exact[1] @ exact[2], (count + 1) * (sizes[0] + sizes[1] @ sizes[2])
        )
        out[...] = np.lib.stride_tricks.as_strided(before[out_at:], out.shape, out.strides)
        np.testing.assert_array_equal(
            bits(flat), bits(before), "memory beside the tile was written"
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "rows"), ROWS)
def test_an_update_tile_adds_to_the_listed_rows_of_w_and_to_no_other(dtype, width, rows):
    n = width * tiles.lanes(np.dtype(dtype).itemsize)
    for count, spread in [(1, 1), (1, 0), (2, 1), (23, 1), (61, 1)]:
        memory = Memory(dtype, seed=count)
        flat, columns = memory.flat, 61
        listed, given_list = memory.list(columns, count)
        x_row, delta_row = (columns + 2 * rows) * spread, n + 7
        x_at, x = memory.matrix(rows, columns, x_row)  # without a spread, one row for all
        delta_at, delta = memory.matrix(rows, n, delta_row)
        w_at, w = memory.matrix(columns, n, n)
        others = np.setdiff1d(np.arange(columns), listed)
        x[:, others], w[others] = np.nan, np.nan
        exact = [each.astype(np.float64) for each in (w[listed], x[:, listed].T, delta)]
        before = flat.copy()

        UPDATE[width](rows, flat, given_list, 3, count, x_at, x_row, delta_at, delta_row, w_at)
        sizes = [np.abs(each) for each in exact]
        assert_close(
            w[listed],
            exact[0] + exact[1] @ exact[2],
            (rows + 1) * (sizes[0] + sizes[1] @ sizes[2]),
        )
        w[listed] = before[w_at:][: w.size].reshape(w.shape)[listed]
        np.testing.assert_array_equal(bits(flat), bits(before), "memory beside w was written")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("more", "out_more"), [(0, 0), (1, 0), (0, 5), (33, 7)])
def test_a_tile_is_transposed(dtype, more, out_more):
    n = tiles.lanes(np.dtype(dtype).itemsize)
    memory = Memory(dtype, seed=n)
    x_at, x = memory.matrix(n, n, n + more)
    out_at, out = memory.matrix(n, n, n + out_more)
    expected = memory.flat.copy()
    np.lib.stride_tricks.as_strided(expected[out_at:], out.shape, out.strides)[...] = x.T
    transpose(memory.flat, x_at, n + more, out_at, n + out_more)
    np.testing.assert_array_equal(bits(memory.flat), bits(expected))


patterns = st.integers(1, 6).flatmap(
    lambda lines: st.one_of(
        st.binary(min_size=64 * lines, max_size=64 * lines),
        st.lists(st.sampled_from(b"\0\0\0\1\xff"), min_size=64 * lines, max_size=64 * lines),
    ).map(bytes)
)


@given(patterns, st.integers(0, 40))
@example(bytes(64), 0)
@example(bytes(128), 0)
@example(bytes([255]) * 192, 7)
@example(bytes([0] * 63 + [128]), 1)
@settings(derandomize=True, max_examples=100, deadline=None)
def test_what_is_used_is_listed(pattern, first):
    used = np.frombuffer(pattern, np.uint8).copy()
    columns = np.full(first + used.size + 40, -7, np.int32)
    count = list_used(used, columns, first)
    places = np.flatnonzero(used)
    assert count == places.size
    np.testing.assert_array_equal(columns[first : first + count], places)
    np.testing.assert_array_equal(columns[:first], -7)
    np.testing.assert_array_equal(columns[first + count + 16 :], -7)
    np.testing.assert_array_equal(used, np.frombuffer(pattern, np.uint8))


@given(patterns, st.integers(0, 3), st.integers(0, 2**32))
@example(bytes([255]) * 128, 2, 0)
@example(bytes(64), 2, 0)
@settings(derandomize=True, max_examples=100, deadline=None)
def test_who_comes_is_listed_with_what_it_has_missed(pattern, number, seed):
    used = np.frombuffer(pattern, np.uint8).copy()
    seen = np.random.default_rng(seed).integers(0, number + 1, used.size, dtype=np.int32)
    before = seen.copy()
    columns, missed = np.full((2, used.size + 40), -7, np.int32)
    count = list_coming(used, seen, number, columns, missed)
    places = np.flatnonzero((used != 0) & (before < number))
    assert count == places.size
    np.testing.assert_array_equal(columns[:count], places)
    np.testing.assert_array_equal(missed[:count], number - before[places])
    np.testing.assert_array_equal(columns[count + 16 :], -7)
    np.testing.assert_array_equal(missed[count + 16 :], -7)
    np.testing.assert_array_equal(seen, np.where(used != 0, number + 1, before))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only where there is x86")
@pytest.mark.skipif(tiles.SIMD == "128-bit vectors", reason="this one has such vectors itself")
def test_so_it_is_on_a_processor_with_short_vectors(tmp_path):
    processor = {
        "NUMBA_CPU_NAME": "x86-64",
        "NUMBA_CPU_FEATURES": "+sse2",
        "FASTNN_CACHE_DIR": str(tmp_path),
    }
    program = (
        "import sys, pytest; from fastnn.backends.numba_code import modules; "
        "assert modules()[0].tiles.SIMD == '128-bit vectors'; sys.exit(pytest.main(sys.argv[1:]))"
    )
    asked = ["-q", "-p", "no:cacheprovider", "-k", "not short_vectors", __file__]
    ran = subprocess.run(
        [sys.executable, "-c", program, *asked],
        capture_output=True,
        text=True,
        env={**os.environ, **processor},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
