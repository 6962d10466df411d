"""Back-propagation, top to bottom as in the text, over the methods of a backend.

Samples are rows: A, D and W below are the matrices of a mini-batch of m samples,

    =========================================  ======================  ============
    the text (columns)                         here (rows)             shape
    =========================================  ======================  ============
    a^l = σ(W^l a^{l-1} + b^l)                 A = σ(A_prev Wᵀ + b)    (m, n_out)
    BP1  δ^L = ∇_a C ⊙ σ′(z^L)                 the same                (m, n_out)
    BP2  δ^l = (W^{l+1})ᵀ δ^{l+1} ⊙ σ′(z^l)    (D W) ⊙ σ′              (m, n_in)
    BP3  ∂C/∂b = δ                             Σ_i D_i / m             (n_out,)
    BP4  ∂C/∂W = δ (a^{l-1})ᵀ                  Dᵀ A_prev / m           (n_out, n_in)
    =========================================  ======================  ============

where D belongs to the layer whose W maps n_in units to n_out. σ′ is computed from a, never from z,
so z is not kept. With dropout A_prev is what is left of it, and BP2 drops the same units. Where
samples have weights, C = 1/m Σ_x w_x C_x, the rows of the last layer's D are scaled by these; all
else follows from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from fastnn.backends.base import Array, Backend, Layer, Plan, Step
from fastnn.dropout import Dropout

__all__ = [
    "PORTION",
    "BackpropStep",
    "Workspace",
    "backpropagate",
    "feed_forward",
    "step_for",
    "workspaces",
]

# Numbers a buffer of the plain step at the most: 34 MB in float32, or 2048 samples of 4096 units,
# with which a large device still has enough to do.
PORTION = 1 << 23


# out ← a layer's numbers but for those of units that rest: (layer, a, out); nothing where none do,
# and out is a.
Drop: TypeAlias = Callable[[int, Array, Array], None]


class Workspace(NamedTuple):
    """The buffers for mini-batches of m samples.

    Attributes
    ----------
    a
        Activations of every layer, (m, sizes[l]) each; a[0] is the input.
    y
        Targets, (m, sizes[-1]).
    delta
        One (m, n_out) for each layer that has weights; delta[l] belongs to a[l + 1].
    seen
        What the layer above sees of each but the last: a[l], or a matrix of its own where units of
        a hidden layer rest, since σ′ is computed from a[l].
    weights
        How much each sample counts, (m, 1); None where all count alike.
    """

    a: list[Array]
    y: Array
    delta: list[Array]
    seen: list[Array]
    weights: Array | None = None


def workspaces(
    backend: Backend,
    sizes: Sequence[int],
    counts: set[int],
    dropout: Dropout | None = None,
    weighted: bool = False,
) -> dict[int, Workspace]:
    """Return a workspace for each number of samples m; they share the memory of the largest."""
    rates = [0.0] * len(sizes) if dropout is None else dropout.rates
    thinned = [layer for layer in range(1, len(sizes) - 1) if rates[layer]]
    widths = (*sizes, sizes[-1], *sizes[1:], *(sizes[layer] for layer in thinned), *[1] * weighted)
    flats = [backend.empty((max(counts) * n,), backend.dtype) for n in widths]

    def workspace(m: int) -> Workspace:
        buffers = [backend.views(flat, [(m, n)])[0] for flat, n in zip(flats, widths, strict=True)]
        weights = buffers.pop() if weighted else None
        depth = len(sizes)
        a, y, delta = buffers[:depth], buffers[depth], buffers[depth + 1 : 2 * depth]
        seen = a[:-1]
        for layer, buffer in zip(thinned, buffers[2 * depth :], strict=True):
            seen[layer] = buffer
        return Workspace(a, y, delta, seen, weights)

    return {m: workspace(m) for m in counts}


def feed_forward(
    backend: Backend,
    layers: Sequence[Layer],
    a: Sequence[Array],
    seen: Sequence[Array] | None = None,
    drop: Drop | None = None,
) -> None:
    """Fill a[1:] from the input a[0]; with dropout also what each layer sees of the one below."""
    seen = a if seen is None else seen
    for below, layer in enumerate(layers):
        if drop is not None:
            drop(below, a[below], seen[below])
        backend.forward(seen[below], layer.w, layer.b, layer.activation, a[below + 1])


def backpropagate(
    backend: Backend, layers: Sequence[Layer], cost: str, work: Workspace, drop: Drop | None = None
) -> None:
    """Fill work.delta from the activations and the targets, from the last layer to the first."""
    a, delta = work.a, work.delta

    # BP1: δ^L = ∇_a C ⊙ σ′(z^L)
    backend.output_delta(a[-1], work.y, layers[-1].activation, cost, delta[-1])
    if work.weights is not None:
        backend.scale_rows(work.weights, delta[-1])

    # BP2: δ^l = (δ^{l+1} W^{l+1}) ⊙ σ′(z^l)
    for l in range(len(layers) - 1, 0, -1):  # noqa: E741  the texts' letter
        backend.propagate_delta(delta[l], layers[l].w, a[l], layers[l - 1].activation, delta[l - 1])
        if drop is not None:
            drop(l, delta[l - 1], delta[l - 1])


class BackpropStep:
    """The plain step: mini-batch gradient descent over the methods of any backend.

    A mini-batch too large for buffers of :data:`PORTION` numbers is taken in portions, so that
    gradient descent on a whole set of bytes does not hold that set as floats. The gradient is a sum
    over samples: each portion adds its part to the parameters, and all portions see them as they
    were before the first.

    Parameters
    ----------
    backend, plan
        The device, and what to train on what.
    stride
        How many mini-batches a call may take.
    """

    name = "plain"

    def __init__(self, backend: Backend, plan: Plan, stride: int = 1) -> None:
        self.stride = stride
        self._backend, self._plan = backend, plan
        self._portion = portion = min(plan.batch_size, max(1, PORTION // max(plan.sizes)))
        tail = plan.n % plan.batch_size
        counts = {portion, plan.batch_size % portion, min(tail, portion), tail % portion} - {0}
        weighted = plan.weights is not None
        self._work = workspaces(backend, plan.sizes, counts, plan.dropout, weighted)
        in_place = plan.update is None and portion < plan.batch_size
        self._before = _Before(backend, plan) if in_place else None

    def __call__(self, order: Array, start: int, stop: int, rate: float, shrink: float) -> None:
        """Train on order[start:stop]; see :class:`fastnn.backends.base.Step`."""
        for first in range(start, stop, self._plan.batch_size):
            last = min(first + self._plan.batch_size, stop)
            self._mini_batch(order, first, last, rate, shrink)

    def _mini_batch(self, order: Array, start: int, stop: int, rate: float, shrink: float) -> None:
        backend, plan, m = self._backend, self._plan, stop - start
        layers = self._before.copied() if self._before else plan.layers
        for first in range(start, stop, self._portion):
            work = self._passes(layers, order, first, min(first + self._portion, stop))
            sums = zip(work.delta, work.seen, strict=True)

            # BP3: ∂C/∂b = Σ_i D_i / m     b ← b - η ∂C/∂b
            # BP4: ∂C/∂W = Dᵀ A_prev / m   W ← shrink · W - η ∂C/∂W
            if plan.update is None:
                once = shrink if first == start else 1.0
                for layer, (delta, a_prev) in zip(plan.layers, sums, strict=False):
                    backend.descend(layer.w, layer.b, delta, a_prev, rate / m, once)
                continue
            for (to_w, to_b), (delta, a_prev) in zip(plan.update.gradients, sums, strict=False):
                if first == start:
                    backend.gradient(delta, a_prev, 1 / m, to_w, to_b)
                else:
                    backend.descend(to_w, to_b, delta, a_prev, -1 / m, 1.0)
        if plan.update is not None:
            plan.update(rate, shrink)

    def _passes(self, layers: Sequence[Layer], order: Array, start: int, stop: int) -> Workspace:
        """Gather, go forward and back, by the given layers."""
        backend, plan, work = self._backend, self._plan, self._work[stop - start]
        backend.gather(plan.inputs, order, start, stop, plan.scale, work.a[0])
        backend.gather(plan.targets, order, start, stop, 1.0, work.y)
        if work.weights is not None:
            backend.gather(plan.weights, order, start, stop, 1.0, work.weights)
        drop = None if plan.dropout is None else partial(plan.dropout, start)
        feed_forward(backend, layers, work.a, work.seen, drop)
        backpropagate(backend, layers, plan.cost, work, drop)
        return work


def step_for(backend: Backend, plan: Plan, fused: bool = True) -> Step:
    """Return the device's own step for a plan, or the plain one where it has none."""
    return (backend.fused_step(plan) if fused else None) or BackpropStep(backend, plan)


class _Before:
    """The layers of a plan as they were when a mini-batch began."""

    def __init__(self, backend: Backend, plan: Plan) -> None:
        self._backend, self._plan = backend, plan
        self._rows = backend.asarray(np.arange(max(plan.sizes[1:]), dtype=np.int32))
        self._copies = [
            Layer(
                backend.empty((n_out, n_in), backend.dtype),
                backend.empty((n_out,), backend.dtype),
                layer.activation,
            )
            for (n_in, n_out), layer in zip(pairwise(plan.sizes), plan.layers, strict=True)
        ]

    def copied(self) -> list[Layer]:
        """Copy the layers as they are now; what copies here are kernels that every device has."""
        backend = self._backend
        for n_out, layer, copy in zip(
            self._plan.sizes[1:], self._plan.layers, self._copies, strict=True
        ):
            backend.gather(layer.w, self._rows, 0, n_out, 1.0, copy.w)
            (row,) = backend.views(layer.b, [(1, n_out)])
            backend.sum_rows(row, copy.b)  # the sum of one row is that row
        return self._copies
