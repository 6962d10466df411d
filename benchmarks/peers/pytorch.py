"""PyTorch: eager, compiled, and whole steps in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from peers.task import RATE, Arrays, Peer, Task, fastest

PRECISION = {"fp32": "highest", "tf32": "high"}
# So many steps at the most go into one CUDA graph: beyond, a launch a graph is next to nothing.
MOST_STEPS_A_GRAPH = 200
# Mini-batches by which a number of threads is chosen.
TRIED = 200


class _Training:
    """The data and the parameters on the device, and SGD there in as few kernels as PyTorch has.

    Without autograd, which takes more: a bias goes into its product, a weight matrix is updated by
    one product, a bias by one product with ones.
    """

    def __init__(self, task: Task) -> None:
        import torch

        self.torch, self.task = torch, task
        torch.set_float32_matmul_precision(PRECISION[task.precision])
        x, y = self.on_device(task.x), self.on_device(task.y)
        self.start = [self.on_device(array) for array in (*task.weights, *task.biases)]
        self.parameters = [each.clone() for each in self.start]
        layers = len(task.weights)
        w, b = self.parameters[:layers], self.parameters[layers:]
        ones = torch.ones(task.batch_size, device=task.platform)
        # Closed over, and static: what a compiled step is given anew each time it would copy.
        self.held = [x, y, ones, *self.parameters]
        self.step = _step(torch, x, y, w, b, ones)

    def on_device(self, array: np.ndarray) -> Any:
        return self.torch.tensor(np.ascontiguousarray(array)).to(self.task.platform)

    def wait(self) -> None:
        if self.task.platform == "cuda":
            self.torch.cuda.synchronize()

    def epoch(self, step: Callable[[Any], None], order: np.ndarray) -> None:
        """Take a mini-batch a call."""
        self.torch.set_float32_matmul_precision(PRECISION[self.task.precision])
        for batch in self.on_device(order).split(self.task.batch_size):
            step(batch)
        self.wait()

    def reset(self) -> None:
        for parameter, start in zip(self.parameters, self.start, strict=True):
            parameter.copy_(start)
        self.wait()

    def numbers(self) -> Arrays:
        return [parameter.cpu().numpy().copy() for parameter in self.parameters]

    def peer(self, step: Callable[[Any], None], form: str = "") -> Peer:
        """Return the training by a step; on the CPU by one thread or all, what is faster."""
        if self.task.platform == "cuda":
            return Peer(lambda order: self.epoch(step, order), self.numbers, form)
        torch, all_of_them = self.torch, self.torch.get_num_threads()
        few = np.arange(min(TRIED * self.task.batch_size, len(self.task.data)), dtype=np.int32)

        def epoch(order: np.ndarray, threads: int | None = None) -> None:
            torch.set_num_threads(threads or best)
            self.epoch(step, order)
            torch.set_num_threads(all_of_them)

        best = fastest((1, all_of_them), lambda threads: epoch(few, threads))
        self.reset()
        return Peer(epoch, self.numbers, f"threads: {best}")


def _step(torch: Any, x: Any, y: Any, w: list[Any], b: list[Any], ones: Any) -> Any:
    backward = torch.ops.aten.sigmoid_backward

    def step(batch: Any) -> None:
        m = len(batch)
        rate = RATE / m
        a = [x.index_select(0, batch)]
        for w_l, b_l in zip(w, b, strict=True):
            a.append(torch.addmm(b_l, a[-1], w_l.t()).sigmoid_())
        delta = a[-1].sub_(y.index_select(0, batch))
        for i in reversed(range(len(w))):
            below = backward(delta @ w[i], a[i]) if i else delta
            w[i].addmm_(delta.t(), a[i], alpha=-rate)
            b[i].addmv_(delta.t(), ones[:m], alpha=-rate)
            delta = below

    return step


def eager(task: Task) -> Peer:
    """A kernel after the other."""
    training = _Training(task)
    return training.peer(training.step)


def compiled(task: Task) -> Peer:
    """The whole step compiled; on a GPU what comes of it is in CUDA graphs of PyTorch's own.

    The tail, of another size, is compiled by itself.
    """
    training = _Training(task)
    torch, batch_size, n = training.torch, task.batch_size, len(task.data)
    torch.compiler.reset()  # what was compiled for other networks counts towards a limit
    sizes = {batch_size, n % batch_size} - {0}
    # A mini-batch's place in the order changes: always at one place, it is copied only once.
    places = {m: torch.zeros(m, dtype=torch.int32, device=task.platform) for m in sizes}
    for array in (*training.held, *places.values()):
        torch._dynamo.mark_static_address(array)
    mode = "reduce-overhead" if task.platform == "cuda" else "default"
    whole = torch.compile(training.step, mode=mode, dynamic=False, fullgraph=True)

    def step(batch: Any) -> None:
        whole(places[len(batch)].copy_(batch))

    def skipped() -> int:
        return torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]

    before = skipped()
    few = np.arange(n, dtype=np.int32)[-(3 * batch_size + n % batch_size) :]
    for _ in range(3):  # compile, record, replay
        training.epoch(step, few)
    training.reset()
    declined = skipped() - before
    form = f"CUDA graphs that PyTorch declined to make: {declined}" if declined else ""
    return training.peer(step, form)


def graph(task: Task) -> Peer:
    """Whole steps captured in a CUDA graph: one or many a graph, what is faster."""
    training = _Training(task)
    torch, batch_size, n = training.torch, task.batch_size, len(task.data)
    full, tail = divmod(n, batch_size)

    def capture(steps: int, m: int) -> Callable[[Any], None]:
        """Return what trains on steps · m samples of an order by replaying a graph."""
        batches = torch.zeros((steps, m), dtype=torch.int32, device=task.platform)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries set themselves up outside the graph
                training.step(batches[0])
        torch.cuda.current_stream().wait_stream(side)
        recorded = torch.cuda.CUDAGraph()
        # Other libraries of this process have threads of their own.
        with torch.cuda.graph(recorded, capture_error_mode="thread_local"):
            for batch in batches:
                training.step(batch)

        def replay(samples: Any) -> None:
            batches.copy_(samples.view(steps, m))
            recorded.replay()

        return replay

    replays = {steps: capture(steps, batch_size) for steps in {1, steps_a_graph(full)} if full}
    replay_tail = capture(1, tail) if tail else None

    def epoch(order: np.ndarray, steps: int | None = None) -> None:
        on_device, steps = training.on_device(order), steps or best
        start, whole = 0, len(order) // batch_size * batch_size
        while start < whole:
            taken = steps if whole - start >= steps * batch_size else 1
            stop = start + taken * batch_size
            replays[taken](on_device[start:stop])
            start = stop
        if replay_tail:
            replay_tail(on_device[whole:])
        training.wait()

    best = fastest(replays, lambda steps: epoch(np.arange(n, dtype=np.int32), steps))
    training.reset()
    return Peer(epoch, training.numbers, f"steps a graph: {best}")


def steps_a_graph(full: int) -> int:
    """Return the largest divisor of the number of full mini-batches: no graph is left over."""
    return max(
        (steps for steps in range(1, MOST_STEPS_A_GRAPH + 1) if full % steps == 0), default=1
    )
