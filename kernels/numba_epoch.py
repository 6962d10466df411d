"""Back-propagation over many mini-batches in one call, line for line as in ``fastnn.backprop``.

Everything lies in one flat array, ``memory``, each row of a matrix filled up to whole vectors. What
fills them up never learns: its weights and its deltas are 0. Weights lie transposed, in panels, as
:mod:`fastnn.kernels.numba_tiles` wants them; :func:`pack` and :func:`unpack` convert.

Where weights shrink or have a velocity, those of a pixel that is zero in a whole mini-batch change,
too, but in a way known beforehand: by the same few factors each time. So they are left as they are,
and brought up to date by a power of those factors when the pixel is used again.

Several threads may run :func:`train` together, each with its rank in the team. Every line's work is
shared out, and where the next line needs all of it they meet.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numba import njit

from fastnn.kernels.numba_kernels import (
    apply_sigma,
    apply_softmax,
    drop,
    times_sigma_prime,
)
from fastnn.kernels.numba_sigma import FLAGS, SOFTMAX, like
from fastnn.kernels.numba_team import meet, share
from fastnn.kernels.numba_tiles import (
    MOST_ROWS,
    PANEL,
    VECTOR_BYTES,
    combine_tile,
    forward_tile,
    list_coming,
    list_used,
    momentum_tile,
    penalty_tile,
    prefetch,
    shrink_tile,
    transpose_tile,
    update_tile,
)

Array: TypeAlias = Any

# A matrix: the place of its first number in memory, and how far it is from row to row. A matrix of
# weights: its place, the rows of each of its panels, and its columns, filled up to whole vectors.
_MATRIX = [("at", np.int64), ("row", np.int64)]
_WEIGHTS = [("at", np.int64), ("rows", np.int64), ("columns", np.int64)]
# Dropout, by the reference's names; the scale of what stays is 0 where no unit rests.
_DROPPED = [("key", np.uint64), ("threshold", np.uint64), ("scale", np.float64)]

LAYER = np.dtype(
    [
        ("n_in", np.int64),
        ("n_out", np.int64),
        ("activation", np.int64),
        ("w", _WEIGHTS),  # the text's Wᵀ
        ("b", np.int64),  # its place
        ("w_transposed", _WEIGHTS),  # W itself, for BP2
        ("a_prev", _MATRIX),
        ("dropped", _DROPPED),  # of a_prev
        ("a", _MATRIX),
        ("delta", _MATRIX),
    ]
)


class Work(NamedTuple):
    """What the threads share while they train."""

    memory: Array  # all numbers
    layers: Array  # of LAYER
    # The columns of inputs that a mini-batch uses: as bytes, then as lists of int32, a row for each
    # rank behind a row with all of them.
    used: Array
    columns: Array
    zero: int  # the place of as many zeros as the widest layer has units
    one: int  # the place of a 1
    how: int  # the place of the update's numbers: HOW for weights, for biases, for later blocks
    beside: int  # how far the velocities lie behind the weights and biases that they belong to
    # From this place on, four by four: by which factors w and v become new ones in so many
    # mini-batches without their input: w ← p₀ w + p₁ v, v ← p₂ w + p₃ v.
    powers: int
    # So many mini-batches the weights of each column of inputs know of, and room for lists of those
    # that know too little and of what they have missed: a row, and a pair of rows, for each rank.
    seen: Array
    coming: Array


# What an update does besides adding -η ∂C/∂w: nothing; shrink; keep a velocity; and have a penalty
# on the size, which changes unused weights in a way that no factor says: they do not wait.
DESCEND, SHRINK, MOMENTUM, PENALTY = 0, 1, 2, 3
HOW = 5  # numbers: the shrinking factor, or those of momentum_tile and penalty_tile

# So many rows of a panel at a time while all samples pass: they stay in the first level of cache.
_ROWS_AT_ONCE = 192
# Of a larger mini-batch the deltas are summed by themselves: added to b one by one, so many so
# small numbers would be rounded by its size.
_MANY = 1024
# A cache line, which two threads had better not share.
_LINE = 64


@njit(**FLAGS)
def _blocks(m: int) -> tuple[int, int]:
    """Return into how many tiles m rows are cut, and the rows of each: about the same."""
    blocks = (m + MOST_ROWS - 1) // MOST_ROWS
    return blocks, (m + blocks - 1) // blocks


@njit(**FLAGS)
def _product(
    work: Work,
    listed: int,
    count: int,
    m: int,
    x: Any,
    w: Any,
    init: int,
    init_row: int,
    out: Any,
    rank: int,
    team: int,
) -> None:
    """out = init + x w, over the columns of x that are listed."""
    memory, columns = work.memory, work.columns
    vector = VECTOR_BYTES // memory.itemsize
    panel = PANEL * vector
    blocks, rows = _blocks(m)
    start, stop = share((w.columns + panel - 1) // panel * blocks, rank, team)
    at_once = count if blocks == 1 else _ROWS_AT_ONCE
    for p in range(start // blocks, (stop + blocks - 1) // blocks):
        column = p * panel
        w_p = w.at + column * w.rows
        first_row = max(start - p * blocks, 0) * rows
        last_row = min(min(stop - p * blocks, blocks) * rows, m)
        for k in range(0, count, at_once):
            taken = min(at_once, count - k)
            for r in range(first_row, last_row, rows):
                x_r, out_r = x.at + r * x.row, out.at + r * out.row + column
                if k == 0:
                    onto, onto_row = init + r * init_row + column, init_row
                else:
                    onto, onto_row = out_r, out.row
                # fmt: off
                if column + panel <= w.columns:
                    forward_tile(PANEL, min(rows, last_row - r), memory, columns, listed + k, taken,
                                 x_r, x.row, w_p, onto, onto_row, out_r, out.row)
                else:
                    forward_tile(1, min(rows, last_row - r), memory, columns, listed + k, taken,
                                 x_r, x.row, w_p, onto, onto_row, out_r, out.row)
                # fmt: on


@njit(**FLAGS)
def _update(
    work: Work,
    listed: int,
    count: int,
    m: int,
    x: int,
    x_row: int,
    delta: Any,
    w: int,
    w_rows: int,
    w_columns: int,
    kind: int,
    how: int,
    rank: int,
    team: int,
) -> None:
    """w ← w + xᵀ delta, for the listed columns of x; or what another kind of update does."""
    memory, columns = work.memory, work.columns
    vector = VECTOR_BYTES // memory.itemsize
    panel = PANEL * vector
    blocks, rows = _blocks(m)
    at_once = count if blocks == 1 and team == 1 else _ROWS_AT_ONCE
    pieces = (count + at_once - 1) // at_once
    start, stop = share((w_columns + panel - 1) // panel * pieces, rank, team)
    for piece in range(start, stop):
        column, k = piece // pieces * panel, piece % pieces * at_once
        w_p, taken = w + column * w_rows, min(at_once, count - k)
        for r in range(0, m, rows):
            x_r, delta_r = x + r * x_row, delta.at + r * delta.row + column
            wide, r_rows = column + panel <= w_columns, min(rows, m - r)
            # fmt: off
            if kind == PENALTY and r == 0:
                if wide:
                    penalty_tile(PANEL, r_rows, memory, columns, listed + k, taken,
                                 x_r, x_row, delta_r, delta.row, w_p, how, work.beside)
                else:
                    penalty_tile(1, r_rows, memory, columns, listed + k, taken,
                                 x_r, x_row, delta_r, delta.row, w_p, how, work.beside)
            elif kind >= MOMENTUM:
                this = how if r == 0 else work.how + 2 * HOW
                if wide:
                    momentum_tile(PANEL, r_rows, memory, columns, listed + k, taken,
                                  x_r, x_row, delta_r, delta.row, w_p, this, work.beside)
                else:
                    momentum_tile(1, r_rows, memory, columns, listed + k, taken,
                                  x_r, x_row, delta_r, delta.row, w_p, this, work.beside)
            elif kind == SHRINK and r == 0:
                if wide:
                    shrink_tile(PANEL, r_rows, memory, columns, listed + k, taken,
                                x_r, x_row, delta_r, delta.row, w_p, how)
                else:
                    shrink_tile(1, r_rows, memory, columns, listed + k, taken,
                                x_r, x_row, delta_r, delta.row, w_p, how)
            elif wide:
                update_tile(PANEL, r_rows, memory, columns, listed + k, taken,
                            x_r, x_row, delta_r, delta.row, w_p)
            else:
                update_tile(1, r_rows, memory, columns, listed + k, taken,
                            x_r, x_row, delta_r, delta.row, w_p)
            # fmt: on


@njit(**FLAGS)
def _sum_rows(memory: Array, x: Any, m: int) -> None:
    """Put the sum of all rows in the first, by halves; the others are no more."""
    while m > 1:
        half = (m + 1) // 2
        for i in range((m - half) * x.row):
            memory[x.at + i] += memory[x.at + half * x.row + i]
        m = half


@njit(**FLAGS)
def _catch_up(work: Work, w: Any, number: int, rank: int, team: int) -> None:
    """Bring the weights of the columns in use to where they are before the number-th mini-batch.

    It is then counted as seen: their update is about to come.
    """
    memory, columns, missed = work.memory, work.coming[2 * rank], work.coming[2 * rank + 1]
    panel = PANEL * (VECTOR_BYTES // memory.itemsize)
    count = list_coming(work.used, work.seen[rank], number, columns, missed)
    start, stop = share(count, rank, team)
    for j in range(0, w.columns, panel):
        w_p, row = w.at + j * w.rows, min(panel, w.columns - j)
        for i in range(start, stop):
            place, powers = w_p + columns[i] * row, work.powers + 4 * missed[i]
            if row == panel:
                combine_tile(PANEL, memory, place, work.beside, powers)
            else:
                combine_tile(1, memory, place, work.beside, powers)


@njit(**FLAGS)
def _place(w: Any, panel: int, i: int, j: int) -> tuple[int, int]:
    """Return the place of w[i, j], and how far it is from there to w[i + 1, j]."""
    column = j // panel * panel
    row = min(panel, w.columns - column)
    return w.at + column * w.rows + i * row + j - column, row


@njit(**FLAGS)
def _transpose(memory: Array, x: Any, out: Any, rank: int, team: int) -> None:
    """out = xᵀ, both in panels."""
    vector = VECTOR_BYTES // memory.itemsize
    panel = PANEL * vector
    start, stop = share(out.columns // vector, rank, team)
    for i in range(start * vector, stop * vector, vector):
        for j in range(0, out.rows, vector):
            x_ij, x_row = _place(x, panel, i, j)
            out_ji, out_row = _place(out, panel, j, i)
            transpose_tile(memory, x_ij, x_row, out_ji, out_row)


@njit(**FLAGS)
def pack(memory: Array, layer: Any, w: Array, b: Array) -> None:
    """Put a network's w (n_out, n_in) and b (n_out,) into memory."""
    panel = PANEL * (VECTOR_BYTES // memory.itemsize)
    for o in range(layer.n_out):
        place, row = _place(layer.w, panel, 0, o)
        for i in range(layer.n_in):
            memory[place + i * row] = w[o, i]
        memory[layer.b + o] = b[o]


@njit(**FLAGS)
def unpack(memory: Array, layer: Any, w: Array, b: Array) -> None:
    """Put the parameters back into the network."""
    panel = PANEL * (VECTOR_BYTES // memory.itemsize)
    for o in range(layer.n_out):
        place, row = _place(layer.w, panel, 0, o)
        for i in range(layer.n_in):
            w[o, i] = memory[place + i * row]
        b[o] = memory[layer.b + o]


@njit(**FLAGS)
def _gather(
    inputs: Array,
    order: Array,
    first: int,
    m: int,
    following: int,
    scale: float,
    work: Work,
    x: Any,
    rank: int,
    team: int,
) -> None:
    """x[r] = scale · inputs[order[first + r]], and the columns that are not 0 throughout.

    After each sample one of the ``following`` is asked for, those of the next mini-batch: they lie
    all over the main memory, which takes its time.
    """
    start, stop = share((inputs.shape[1] + _LINE - 1) // _LINE, rank, team)
    start, stop = start * _LINE, min(stop * _LINE, inputs.shape[1])
    used = work.used[start:stop]
    used[:] = 0
    for r in range(m):
        row, at = inputs[order[first + r], start:stop], x.at + r * x.row
        out = work.memory[at + start : at + stop]
        for j in range(row.size):
            out[j] = scale * like(scale, row[j])
            used[j] |= row[j] != 0
        if r < following:
            soon = order[first + m + r]
            for byte in range(start * inputs.itemsize, stop * inputs.itemsize, _LINE):
                prefetch(inputs, soon, byte)


@njit(**FLAGS)
def _list_used(work: Work, at: int) -> int:
    """List the columns in use from there on; return how many: one at the least, as for a tile."""
    count: int = list_used(work.used, work.columns, at)
    if count == 0:
        work.used[0], work.columns[at], count = 1, 0, 1
    return count


@njit(**FLAGS)
def _drop(
    memory: Array, layer: Any, a: Any, out: Any, place: int, m: int, rank: int, team: int
) -> None:
    """out = what is left of a, of a_prev's shape, where units rest."""
    n, by = np.uint64(layer.n_in), layer.dropped
    start, stop = share(m, rank, team)
    for r in range(start, stop):
        a_r, out_r = a.at + r * a.row, out.at + r * out.row
        left = memory[out_r : out_r + layer.n_in]
        if out_r != a_r:
            left[:] = memory[a_r : a_r + layer.n_in]
        drop(left, by.key, np.uint64(place + r) * n, by.threshold, like(memory[0], by.scale))


@njit(**FLAGS)
def _feed_forward(
    work: Work, listed: int, count: int, m: int, place: int, board: Array, rank: int, team: int
) -> None:
    """A = σ(A_prev Wᵀ + b), where A_prev may have lost units; of the last layer Z alone."""
    memory, layers = work.memory, work.layers
    x, depth = layers[0].a_prev, layers.size
    for l in range(depth):  # noqa: E741  the texts' letter
        layer = layers[l]
        if layer.dropped.scale > 0:
            a_prev = x if l == 0 else layers[l - 1].a
            _drop(memory, layer, a_prev, layer.a_prev, place, m, rank, team)
            meet(board, team)
        first, k = (listed, count) if l == 0 else (0, layer.n_in)
        _product(work, first, k, m, layer.a_prev, layer.w, layer.b, 0, layer.a, rank, team)
        meet(board, team)
        if l < depth - 1:
            i, j = share(m * layer.a.row, rank, team)
            apply_sigma(memory[layer.a.at + i : layer.a.at + j], layer.activation)
            meet(board, team)


@njit(**FLAGS)
def feed(
    inputs: Array,
    scale: float,
    order: Array,
    start: int,
    stop: int,
    batch_size: int,
    work: Work,
    board: Array,
    out: Array,
) -> None:
    """out[i] = a^L of the sample order[i], for i from start to stop."""
    memory, layers = work.memory, work.layers
    last = layers[layers.size - 1]
    mine = work.columns.size // 2
    for first in range(start, stop, batch_size):
        m = min(batch_size, stop - first)
        following = min(batch_size, stop - first - m)
        _gather(inputs, order, first, m, following, scale, work, layers[0].a_prev, 0, 1)
        _feed_forward(work, mine, _list_used(work, mine), m, 0, board, 0, 1)
        apply_sigma(memory[last.a.at : last.a.at + m * last.a.row], last.activation)
        for r in range(m):
            at = last.a.at + r * last.a.row
            row = memory[at : at + last.n_out]
            if last.activation == SOFTMAX:
                apply_softmax(row)
            out[first + r] = row


@njit(**FLAGS)
def _output_delta(
    targets: Array,
    weights: Array,
    order: Array,
    first: int,
    m: int,
    following: int,
    factor: float,
    matched: bool,
    memory: Array,
    layer: Any,
    rank: int,
    team: int,
) -> None:
    """A^L from Z^L, then BP1: delta = factor · (a - y) ⊙ σ′(z^L), each row times its weight.

    As by :func:`_gather`, the targets that follow are asked for.
    """
    start, stop = share(m, rank, team)
    row = layer.a.row
    a = memory[layer.a.at + start * row : layer.a.at + stop * row]
    delta = memory[layer.delta.at + start * row : layer.delta.at + stop * row]
    apply_sigma(a, layer.activation)
    for r in range(stop - start):
        sample, at = order[first + start + r], r * row
        y, counts = targets[sample], factor * weights[sample if weights.size > 1 else 0, 0]
        if layer.activation == SOFTMAX:
            apply_softmax(a[at : at + layer.n_out])
        for j in range(layer.n_out):
            delta[at + j] = counts * (a[at + j] - like(factor, y[j]))
        for j in range(layer.n_out, row):
            delta[at + j] = 0
        if start + r < following:
            prefetch(targets, order[first + m + start + r], 0)
    if not matched:
        times_sigma_prime(delta, a, layer.activation)


@njit(**FLAGS)
def train(
    inputs: Array,
    scale: float,
    targets: Array,
    weights: Array,
    order: Array,
    start: int,
    stop: int,
    batch_size: int,
    factor: float,
    matched: bool,
    rate: float,
    kind: int,
    number: int,
    begun: int,
    work: Work,
    board: Array,
    rank: int,
    team: int,
) -> None:
    """Train on the samples order[start:stop] in mini-batches; the tail may be smaller.

    The output layer's delta is ``factor`` · (a - y), times σ′ unless activation and cost are
    ``matched``, and times the sample's weight; one weight alone is that of all samples. All deltas
    are kept as what is added to the parameters, -rate / m times the text's. ``number`` is that of
    the first mini-batch, since the weights of all columns were last settled. In the epochs before
    there were ``begun`` samples: dropout draws by a sample's place in all of them. The threads of a
    team meet at the board.
    """
    memory, layers = work.memory, work.layers
    x, depth = layers[0].a_prev, layers.size
    mine = (1 + rank) * (work.columns.size // (1 + team))
    for first in range(start, stop, batch_size):
        m = min(batch_size, stop - first)
        following = min(batch_size, stop - first - m)
        _gather(inputs, order, first, m, following, scale, work, x, rank, team)
        meet(board, team)
        count = _list_used(work, mine)
        if kind in (SHRINK, MOMENTUM):
            _catch_up(work, layers[0].w, number, rank, team)
            number += 1
            meet(board, team)

        _feed_forward(work, mine, count, m, begun + first, board, rank, team)

        # BP1: δ^L = ∇_a C ⊙ σ′(z^L), where A^L = σ(Z^L) is still to be found
        to_add = factor * -rate / like(rate, m)
        _output_delta(
            targets, weights, order, first, m, following, to_add, matched,
            memory, layers[depth - 1], rank, team,
        )  # fmt: skip
        meet(board, team)

        # BP2: δ^l = (δ^{l+1} W^{l+1}) ⊙ σ′(z^l)
        for l in range(depth - 1, 0, -1):  # noqa: E741
            layer, below = layers[l], layers[l - 1]
            _transpose(memory, layer.w, layer.w_transposed, rank, team)
            meet(board, team)
            _product(
                work, 0, layer.n_out, m, layer.delta, layer.w_transposed, work.zero, 0,
                below.delta, rank, team,
            )  # fmt: skip
            meet(board, team)
            i, j = share(m * below.a.row, rank, team)
            times_sigma_prime(
                memory[below.delta.at + i : below.delta.at + j],
                memory[below.a.at + i : below.a.at + j],
                below.activation,
            )
            meet(board, team)
            if layer.dropped.scale > 0:
                _drop(memory, layer, below.delta, below.delta, begun + first, m, rank, team)
                meet(board, team)

        # BP4: W ← W - η Dᵀ A_prev / m, where W may have been shrunk, or have a velocity
        for l in range(depth):  # noqa: E741
            layer = layers[l]
            waiting = l == 0 and kind != PENALTY
            listed, k = (mine, count) if waiting else (0, layer.n_in)
            _update(
                work, listed, k, m, layer.a_prev.at, layer.a_prev.row, layer.delta,
                layer.w.at, layer.w.rows, layer.w.columns, kind, work.how, rank, team,
            )  # fmt: skip

        # BP3: b ← b - η Σ_i D_i / m, as the only row of a W whose every input is 1
        if m > _MANY:  # whose deltas are summed when they have served W
            meet(board, team)
        if rank == team - 1:
            for_b = MOMENTUM if kind >= MOMENTUM else DESCEND
            for l in range(depth):  # noqa: E741
                layer, samples = layers[l], m
                if m > _MANY:
                    _sum_rows(memory, layer.delta, m)
                    samples = 1
                _update(
                    work, 0, 1, samples, work.one, 0, layer.delta,
                    layer.b, 1, layer.w.columns, for_b, work.how + HOW, 0, 1,
                )  # fmt: skip
        meet(board, team)


@njit(**FLAGS)
def settle(work: Work, number: int) -> None:
    """Catch up with all columns of inputs, as if the number-th mini-batch used them all."""
    layer = work.layers[0]
    work.used[: layer.n_in] = 1
    _catch_up(work, layer.w, number, 0, 1)
