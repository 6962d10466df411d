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
so z is not kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.backends.base import Array, Backend, Layer, Plan

__all__ = ["BackpropStep", "Workspace", "backpropagate", "feed_forward"]


class Workspace:
    """The buffers for mini-batches of m samples, made once for all of them.

    Attributes
    ----------
    m
        The number of samples.
    a
        Activations of every layer, (m, sizes[l]) each; a[0] is the input.
    y
        Targets, (m, sizes[-1]).
    delta
        One (m, n_out) for each layer that has weights; delta[l] belongs to a[l + 1].
    """

    def __init__(self, backend: Backend, sizes: Sequence[int], m: int) -> None:
        def buffer(n: int) -> Array:
            return backend.empty((m, n), backend.dtype)

        self.m = m
        self.a = [buffer(n) for n in sizes]
        self.y = buffer(sizes[-1])
        self.delta = [buffer(n) for n in sizes[1:]]


def feed_forward(backend: Backend, layers: Sequence[Layer], a: Sequence[Array]) -> None:
    """Fill a[1:] from the input a[0]."""
    for layer, a_prev, out in zip(layers, a, a[1:], strict=False):
        backend.forward(a_prev, layer.w, layer.b, layer.activation, out)


def backpropagate(backend: Backend, layers: Sequence[Layer], cost: str, work: Workspace) -> None:
    """Fill work.delta from the activations and the targets, from the last layer to the first."""
    a, delta = work.a, work.delta

    # BP1: δ^L = ∇_a C ⊙ σ′(z^L)
    backend.output_delta(a[-1], work.y, layers[-1].activation, cost, delta[-1])

    # BP2: δ^l = (δ^{l+1} W^{l+1}) ⊙ σ′(z^l)
    for l in range(len(layers) - 1, 0, -1):  # noqa: E741  the texts' letter
        backend.propagate_delta(delta[l], layers[l].w, a[l], layers[l - 1].activation, delta[l - 1])


class BackpropStep:
    """The plain step: mini-batch gradient descent over the methods of any backend.

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
        self._full = Workspace(backend, plan.sizes, plan.batch_size)
        tail = plan.n % plan.batch_size
        self._tail = Workspace(backend, plan.sizes, tail) if tail else self._full

    def __call__(self, order: Array, start: int, stop: int, rate: float, shrink: float) -> None:
        """Train on order[start:stop]; see :class:`fastnn.backends.base.Step`."""
        m = self._plan.batch_size
        for first in range(start, stop, m):
            last = first + m
            if last <= stop:
                self._mini_batch(self._full, order, first, last, rate, shrink)
            else:
                self._mini_batch(self._tail, order, first, stop, rate, shrink)

    def _mini_batch(
        self, work: Workspace, order: Array, start: int, stop: int, rate: float, shrink: float
    ) -> None:
        backend, plan, layers = self._backend, self._plan, self._plan.layers

        backend.gather(plan.inputs, order, start, stop, plan.scale, work.a[0])
        backend.gather(plan.targets, order, start, stop, 1.0, work.y)
        feed_forward(backend, layers, work.a)
        backpropagate(backend, layers, plan.cost, work)

        # BP3: ∂C/∂b = Σ_i D_i / m     b ← b - η ∂C/∂b
        # BP4: ∂C/∂W = Dᵀ A_prev / m   W ← shrink · W - η ∂C/∂W
        for layer, delta, a_prev in zip(layers, work.delta, work.a, strict=False):
            backend.descend(layer.w, layer.b, delta, a_prev, rate / work.m, shrink)
