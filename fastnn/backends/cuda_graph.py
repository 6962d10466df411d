"""The graph step of the CUDA device: many mini-batches recorded once, launched as a whole.

:mod:`fastnn.backprop` once more, in as few kernels as there can be around the products: BP3 is at
the end of those that make the deltas, and the targets are read where they lie.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastnn.backends.base import Array, Plan
from fastnn.backends.cuda_kernels import CODES, CudaKernels

__all__ = ["GraphStep", "declined"]

# Mini-batches of the longer of the two graphs there are; the other has one.
_MANY = 32
# Of the free memory, what a mini-batch may take; larger ones the plain step takes in portions.
_MOST_OF_FREE = 0.25


def declined(plan: Plan, itemsize: int, free_bytes: int) -> str | None:
    """Return why a plan is not for this step, or None."""
    needed = 2 * plan.batch_size * sum(plan.sizes) * itemsize
    if needed > free_bytes * _MOST_OF_FREE:
        return (
            f"a mini-batch takes {needed / 1e9:.1f} GB, with {free_bytes / 1e9:.1f} GB free, and "
            "goes in portions"
        )
    return None


class GraphStep:
    """Many mini-batches in one launch of a graph."""

    name = "graph"

    def __init__(self, backend: CudaKernels, plan: Plan) -> None:
        self.stride = -(-plan.n // plan.batch_size)
        self._backend, self._gpu, self._plan = backend, backend.gpu, plan
        m, dtype = plan.batch_size, backend.dtype
        self._a = [self._gpu.empty((m, n), dtype) for n in plan.sizes]
        self._delta = [self._gpu.empty((m, n), dtype) for n in plan.sizes[1:]]
        # What a graph reads from fixed places: the order of its samples; -η/m, the shrinking, 0, η.
        counts = [count for count in (_MANY, 1) if count * m <= plan.n]
        self._window = self._gpu.asarray(np.zeros(max(counts, default=1) * m, np.int32))
        self._factors = self._gpu.asarray(np.array([0, 1, 0, 0], dtype))
        self._one = self._gpu.asarray(np.ones(1, dtype))
        self._set_to = (0, 0.0, 0.0)
        self._first_run()
        self._graphs = {count: self._recorded(count) for count in counts}

    def __call__(self, order: Array, start: int, stop: int, rate: float, shrink: float) -> None:
        """Train on order[start:stop]; see :class:`fastnn.backends.base.Step`."""
        m = self._plan.batch_size
        for count, graph in self._graphs.items():
            while stop - start >= count * m:
                self._set(m, rate, shrink)
                self._gpu.copy(order[start : start + count * m], self._window[: count * m])
                graph()
                self._count(count)
                start += count * m
        if start < stop:
            self._set(stop - start, rate, shrink)
            self._mini_batch(order[start:stop])
            self._count(1)

    def _count(self, mini_batches: int) -> None:
        if self._plan.update is not None:
            self._plan.update.taken += mini_batches

    def _set(self, m: int, rate: float, shrink: float) -> None:
        if self._set_to != (m, rate, shrink):
            self._set_to = (m, rate, shrink)
            now = np.array([-rate / m, shrink, 0, rate], self._backend.dtype)
            self._gpu.copy(self._gpu.asarray(now), self._factors)

    def _first_run(self) -> None:
        """Have everything loaded that is loaded at first use, which cannot be while recording."""
        update = self._plan.update
        parameters = [array for layer in self._plan.layers for array in (layer.w, layer.b)]
        parameters += update.kept if update is not None else ()
        before = [self._gpu.empty(array.shape, array.dtype) for array in parameters]
        for array, saved in zip(parameters, before, strict=True):
            self._gpu.copy(array, saved)
        self._mini_batch(self._window[: self._plan.batch_size])
        for array, saved in zip(parameters, before, strict=True):
            self._gpu.copy(saved, array)
        self._gpu.synchronize()

    def _recorded(self, count: int) -> Callable[[], None]:
        m = self._plan.batch_size

        def mini_batches() -> None:
            for i in range(count):
                self._mini_batch(self._window[i * m : (i + 1) * m])

        return self._gpu.recorded(mini_batches)

    def _mini_batch(self, order: Array) -> None:
        backend, plan, m = self._backend, self._plan, len(order)
        a, delta = [each[:m] for each in self._a], [each[:m] for each in self._delta]
        minus_rate, shrink, zero = (self._factors[i : i + 1] for i in range(3))
        # To what -η/m times the sums is added: the parameters, or what an update takes.
        to = plan.layers if plan.update is None else plan.update.gradients

        backend.gather(plan.inputs, order, 0, m, plan.scale, a[0])
        for layer, a_prev, out in zip(plan.layers, a, a[1:], strict=False):
            backend.forward(a_prev, layer.w, layer.b, layer.activation, out)

        def sum_up(kernel: str, of: int, *arguments: Any) -> None:
            """Launch a kernel that makes the delta of a layer and does BP3 for it."""
            shape = m, plan.sizes[of + 1]
            by = *map(np.int32, shape), minus_rate, delta[of], to[of][1]
            backend.launch_by_columns(kernel, shape, *arguments, *by)

        # BP1
        last = len(plan.layers) - 1
        how = backend.cost_gradient(plan.layers[last].activation, plan.cost)
        sum_up("last_delta", last, a[-1], plan.targets, order, *how)
        for l in range(last, -1, -1):  # noqa: E741  the texts' letter
            w = plan.layers[l].w
            if l > 0:  # BP2
                backend.matmul(delta[l], w, delta[l - 1])
                sum_up("hidden_delta", l - 1, a[l], np.int32(CODES[plan.layers[l - 1].activation]))
            # BP4, which nothing of this mini-batch waits for
            descend = partial(self._descend, l, delta[l], a[l], to[l][0], minus_rate, shrink, zero)
            self._gpu.aside(descend) if l > 0 else descend()
        if last > 0:  # else nothing went aside
            self._gpu.join()

    def _descend(
        self,
        l: int,  # noqa: E741
        delta: Array,
        a_prev: Array,
        to: Array,
        minus_rate: Array,
        shrink: Array,
        zero: Array,
    ) -> None:
        """Do BP4 for a layer, and what an update makes of BP3 and BP4."""
        update = self._plan.update
        beta = shrink if update is None else zero
        self._backend.matmul(delta, a_prev, to, transpose_a=True, alpha=minus_rate, beta=beta)
        if update is None:
            return
        optimiser, rate, one = update.optimiser, self._factors[3:], self._one
        for number, (w, velocity) in enumerate(
            zip(self._plan.layers[l][:2], update.kept_by_layer(0)[l], strict=True)
        ):
            # Of biases nothing is penalised.
            l1, l2, by = (0.0, 0.0, one) if number else (update.l1, update.l2, shrink)
            self._backend.launch_momentum(
                rate, optimiser, l1, l2, by, update.gradients[l][number], velocity, w
            )
