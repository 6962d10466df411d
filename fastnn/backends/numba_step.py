"""The fused step of the Numba device: :func:`fastnn.kernels.numba_epoch.train` on a plan."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.backends.base import Plan
from fastnn.backends.numba_code import Code
from fastnn.backends.numba_layout import Layout, lists_of_columns
from fastnn.kernels.reference import GRADIENT_FACTOR, MATCHED, Dropped
from fastnn.threads import team, together

__all__ = ["EpochStep"]

Array = NDArray[Any]

# With so many multiplications a mini-batch each, another thread saves more than waiting for each
# other costs.
WORTH_A_THREAD = 750_000


class EpochStep:
    """Back-propagation over a whole epoch in one compiled call."""

    name = "epoch"

    def __init__(self, plan: Plan, code: Code, dtype: np.dtype[Any]) -> None:
        self.stride = -(-plan.n // plan.batch_size)
        self._plan, self._code, self._number = plan, code, dtype.type
        sizes, m = plan.sizes, plan.batch_size
        weights = sum(n_in * n_out for n_in, n_out in pairwise(sizes))
        self._team = team(m * weights, WORTH_A_THREAD)

        layout = Layout(code, dtype)
        zero, one = layout.take(layout.up(max(sizes))), layout.take(1)
        how = layout.take(3 * code.epoch.HOW)
        layers = np.zeros(len(plan.layers), code.epoch.LAYER)
        begin = layout.size
        for place, (n_in, n_out) in zip(layers, pairwise(sizes), strict=True):
            place["w"], place["b"] = layout.weights(n_in, n_out), layout.take(layout.up(n_out))
        # A velocity for each of those numbers, in the same order.
        beside = 0
        if plan.update is not None:
            beside = layout.size - begin
            layout.take(beside)
        self._learned = slice(begin, layout.size)
        a_prev = layout.matrix(m, sizes[0])
        dropped = _dropped(plan)
        for place, layer, (n_in, n_out) in zip(layers, plan.layers, pairwise(sizes), strict=True):
            place["n_in"], place["n_out"], place["dropped"] = n_in, n_out, next(dropped)
            if place["dropped"]["scale"] and layer is not plan.layers[0]:
                a_prev = layout.matrix(m, n_in)  # σ′ is computed from all of it
            place["activation"] = code.sigma.CODES[layer.activation]
            place["w_transposed"] = layout.weights(n_out, n_in)
            place["a_prev"] = a_prev
            place["a"] = a_prev = layout.matrix(m, n_out)
            place["delta"] = layout.matrix(m, n_out)

        powers = layout.take(4 * (1 + self.stride))
        memory = layout.memory()
        used, columns = lists_of_columns(sizes, self._team)
        memory[one] = 1
        self._work = code.epoch.Work(
            memory=memory,
            layers=layers,
            used=used,
            columns=columns,
            zero=zero,
            one=one,
            how=how,
            beside=beside,
            powers=powers,
            seen=np.zeros((self._team, used.size), np.int32),
            coming=np.zeros((2 * self._team, used.size + 64), np.int32),
        )
        self._places = [(layers, [(layer.w, layer.b) for layer in plan.layers])]
        if plan.update is not None:
            velocities = layers.copy()
            velocities["w"]["at"] += beside
            velocities["b"] += beside
            self._places.append((velocities, plan.update.kept_by_layer(0)))
        none = np.ones((1, 1), dtype)
        self._weights = none if plan.weights is None else plan.weights
        # Since where the weights of unused columns wait, and what a call in the midst of an epoch
        # left: up to where it trained, how, and what it gave back. Where the next one goes on, they
        # go on waiting, so that how an epoch is cut into calls changes no bit.
        self._since, self._left, self._given = 0, (-1, 0.0, 0.0), list[Array]()

    def __call__(self, order: Array, start: int, stop: int, rate: float, shrink: float) -> None:
        """Train on order[start:stop]; see :class:`fastnn.backends.base.Step`."""
        plan, work, epoch = self._plan, self._work, self._code.epoch
        board = self._code.team.new_board()
        kind = self._kind(shrink)
        if self._left != (start, rate, shrink) or not self._unchanged():
            for place, w, b in self._parameters():
                epoch.pack(work.memory, place, w, b)
            if kind != epoch.DESCEND:
                self._prepare(-(-(plan.n - start) // plan.batch_size), rate, shrink)
            self._since = start
        number = (start - self._since) // plan.batch_size
        begun = 0 if plan.dropout is None else (plan.dropout.epoch - 1) * plan.n

        def train(rank: int) -> None:
            epoch.train(
                plan.inputs,
                self._number(plan.scale),
                plan.targets,
                self._weights,
                order,
                start,
                stop,
                plan.batch_size,
                self._number(GRADIENT_FACTOR.get(plan.cost, 1)),
                plan.cost in MATCHED,
                self._number(rate),
                kind,
                number,
                begun,
                work,
                board,
                rank,
                self._team,
            )

        self._left = (-1, 0.0, 0.0)
        try:
            together(self._team, train)
        except BaseException:  # Ctrl-C, before all of the team have begun
            self._code.team.abandon(board)
            raise
        taken = -(-(stop - start) // plan.batch_size)
        if plan.update is not None:
            plan.update.taken += taken
        waiting = None
        if kind in (epoch.SHRINK, epoch.MOMENTUM):
            if stop < plan.n:
                waiting = work.memory[self._learned].copy(), work.seen[0].copy()
            epoch.settle(work, number + taken)
        for place, w, b in self._parameters():
            epoch.unpack(work.memory, place, w, b)
        if waiting:
            work.memory[self._learned], work.seen[0] = waiting
            self._left = stop, rate, shrink
            self._given = [each.copy() for _, w, b in self._parameters() for each in (w, b)]

    def _parameters(self) -> Iterator[tuple[Any, Array, Array]]:
        """Return each layer's places in memory, w and b; then those of its velocities."""
        for places, arrays in self._places:
            for place, (w, b) in zip(places, arrays, strict=True):
                yield place, w, b

    def _unchanged(self) -> bool:
        """Whether the parameters are those that the last call gave back."""
        now = [each for _, w, b in self._parameters() for each in (w, b)]
        return all(map(np.array_equal, now, self._given))

    def _kind(self, shrink: float) -> Any:
        epoch = self._code.epoch
        if self._plan.update is not None:
            return epoch.PENALTY if self._plan.update.l1 else epoch.MOMENTUM
        return epoch.DESCEND if shrink == 1 else epoch.SHRINK

    def _prepare(self, mini_batches: int, rate: float, shrink: float) -> None:
        """Write down by which numbers parameters are updated in so many mini-batches."""
        update, work, epoch = self._plan.update, self._work, self._code.epoch
        work.seen[:] = 0
        how = work.memory[work.how :][: 3 * epoch.HOW].reshape(3, -1)
        if update is None:
            once = shrink * np.eye(2)
            how[0, 0] = shrink
        else:
            # v ← μv - ηλ₂w - η∂C/∂w, w ← w + κv - ν(v before): κ = 1, ν = 0; by Nesterov 1 + μ, μ.
            # Where w shrinks beside that there is no momentum, and it may as well do so within.
            mu, decay = update.optimiser.momentum, rate * update.l2 + (1 - shrink)
            kappa, nu = (1 + mu, mu) if update.optimiser.nesterov else (1.0, 0.0)
            once = np.array([[1 - kappa * decay, kappa * mu - nu], [-decay, mu]])
            sharp = -rate * update.l1
            how[:] = (
                (mu, -decay, kappa, -nu, sharp),
                (mu, 0, kappa, -nu, 0),
                (1, 0, kappa, -kappa, 0),
            )
        if update is not None and update.l1:  # no weight waits
            return
        powers = _powers(once, mini_batches).ravel()
        work.memory[work.powers :][: powers.size] = powers


def _dropped(plan: Plan) -> Iterator[tuple[int, int, float]]:
    """Return for each layer by which numbers units rest of what it sees."""
    dropout = plan.dropout
    for key, rate in zip(dropout.keys, dropout.rates, strict=True) if dropout else ():
        by = Dropped(key, 0, rate)
        yield (by.key, by.threshold, by.scale) if rate else (0, 0, 0.0)
    while True:
        yield 0, 0, 0.0


def _powers(matrix: Array, highest: int) -> Array:
    """Return the powers of a matrix from 0 to the highest, by ever longer runs of them."""
    powers = np.eye(len(matrix))[np.newaxis]
    while len(powers) <= highest:
        powers = np.concatenate([powers, powers @ (powers[-1] @ matrix)])
    return powers[: highest + 1]
