"""The peers of gpu_epoch.py: the training of peers.py on a GPU, in the form fastest for each.

Each is a function of the parameters to start from, the data and the mini-batches' size, as in
peers.py, with the platform ("cuda", or "cpu" to try them) and the precision of products: "fp32", or
"tf32" for NVIDIA's shorter one. The images lie on the device as bytes, an epoch's order goes there
within the epoch, and the epoch ends when the device is done. ``epoch.form`` says how a peer went
about it where it had a choice.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import peers
from peers import RATE, Arrays, Peer

import fastnn

# So many steps at the most go into one CUDA graph: beyond, a launch a graph is next to nothing.
MOST_STEPS_A_GRAPH = 200

TORCH_PRECISION = {"fp32": "highest", "tf32": "high"}
JAX_PRECISION = {"fp32": "highest", "tf32": "tensorfloat32"}


class _Torch:
    """The data and the parameters on the device, and SGD there in as few kernels as PyTorch has.

    Without autograd, which takes more: a bias goes into its product, a weight matrix is updated by
    one product, a bias by one product with ones.
    """

    def __init__(
        self,
        weights: Arrays,
        biases: Arrays,
        data: fastnn.Dataset,
        batch_size: int,
        platform: str,
        precision: str,
    ) -> None:
        import torch

        self.torch, self.platform, self.batch_size = torch, platform, batch_size
        self.precision = TORCH_PRECISION[precision]
        torch.set_float32_matmul_precision(self.precision)
        self.x = self.on_device(data.x.reshape(len(data), -1))
        self.y = self.on_device(peers.one_hot(data))
        self.start = [self.on_device(array) for array in (*weights, *biases)]
        self.parameters = [each.clone() for each in self.start]
        layers = len(weights)
        w, b = self.parameters[:layers], self.parameters[layers:]
        # Closed over, and static: what a compiled step is given anew each time it would copy.
        ones = torch.ones(batch_size, device=platform)
        self.held = [self.x, self.y, ones, *self.parameters]
        self.step = _step(torch, self.x, self.y, w, b, ones)

    def on_device(self, array: np.ndarray) -> Any:
        return self.torch.tensor(np.ascontiguousarray(array)).to(self.platform)

    def wait(self) -> None:
        if self.platform == "cuda":
            self.torch.cuda.synchronize()

    def epoch(self, step: Callable[[Any], None], order: np.ndarray) -> None:
        """Take a mini-batch a call."""
        self.torch.set_float32_matmul_precision(self.precision)
        for batch in self.on_device(order).split(self.batch_size):
            step(batch)
        self.wait()

    def reset(self) -> None:
        for parameter, start in zip(self.parameters, self.start, strict=True):
            parameter.copy_(start)
        self.wait()

    def numbers(self) -> Arrays:
        return [parameter.cpu().numpy().copy() for parameter in self.parameters]


def _step(torch: Any, x: Any, y: Any, w: list[Any], b: list[Any], ones: Any) -> Any:
    backward = torch.ops.aten.sigmoid_backward

    def step(batch: Any) -> None:
        m = len(batch)
        rate = RATE / m
        a = [x.index_select(0, batch) * (1 / 255)]
        for w_l, b_l in zip(w, b, strict=True):
            a.append(torch.addmm(b_l, a[-1], w_l.t()).sigmoid_())
        delta = backward(a[-1] - y.index_select(0, batch), a[-1])
        for i in reversed(range(len(w))):
            below = backward(delta @ w[i], a[i]) if i else delta
            w[i].addmm_(delta.t(), a[i], alpha=-rate)
            b[i].addmv_(delta.t(), ones[:m], alpha=-rate)
            delta = below

    return step


def torch_eager(
    weights: Arrays,
    biases: Arrays,
    data: fastnn.Dataset,
    batch_size: int,
    *,
    platform: str = "cuda",
    precision: str = "fp32",
) -> Peer:
    """PyTorch, a kernel after the other."""
    training = _Torch(weights, biases, data, batch_size, platform, precision)
    return lambda order: training.epoch(training.step, order), training.numbers


def torch_compile(
    weights: Arrays,
    biases: Arrays,
    data: fastnn.Dataset,
    batch_size: int,
    *,
    platform: str = "cuda",
    precision: str = "fp32",
) -> Peer:
    """PyTorch with the whole step compiled, and what comes of it in CUDA graphs of PyTorch's own.

    The tail, of another size, is compiled by itself.
    """
    training = _Torch(weights, biases, data, batch_size, platform, precision)
    torch = training.torch
    torch.compiler.reset()  # what was compiled for other networks counts towards a limit
    sizes = {batch_size, len(data) % batch_size}
    # A mini-batch's place in the order changes: always at one place, it is copied only once.
    places = {m: torch.zeros(m, dtype=torch.int32, device=platform) for m in sizes}
    for array in (*training.held, *places.values()):
        torch._dynamo.mark_static_address(array)
    compiled = torch.compile(training.step, mode="reduce-overhead", dynamic=False, fullgraph=True)

    def step(batch: Any) -> None:
        compiled(places[len(batch)].copy_(batch))

    def skipped() -> int:
        return torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]

    before = skipped()
    few = np.arange(len(data), dtype=np.int32)[-(3 * batch_size + len(data) % batch_size) :]
    for _ in range(3):  # compile, record, replay
        training.epoch(step, few)
    training.reset()

    def epoch(order: np.ndarray) -> None:
        training.epoch(step, order)

    if skipped() > before:
        epoch.form = f"CUDA graphs that PyTorch declined to make: {skipped() - before}"
    return epoch, training.numbers


def torch_graph(
    weights: Arrays,
    biases: Arrays,
    data: fastnn.Dataset,
    batch_size: int,
    *,
    platform: str = "cuda",
    precision: str = "fp32",
) -> Peer:
    """PyTorch with whole steps captured in a CUDA graph: one or many a graph, what is faster."""
    training = _Torch(weights, biases, data, batch_size, platform, precision)
    torch = training.torch
    full, tail = divmod(len(data), batch_size)

    def capture(steps: int, m: int) -> Callable[[Any], None]:
        """Return what trains on steps · m samples of an order by replaying a graph."""
        batches = torch.zeros((steps, m), dtype=torch.int32, device=platform)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries set themselves up outside the graph
                training.step(batches[0])
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other libraries of this process have threads of their own.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for batch in batches:
                training.step(batch)

        def replay(samples: Any) -> None:
            batches.copy_(samples.view(steps, m))
            graph.replay()

        return replay

    replays = {steps: capture(steps, batch_size) for steps in {1, steps_a_graph(full)} if full}
    replay_tail = capture(1, tail) if tail else None

    def epoch(order: np.ndarray, steps: int | None = None) -> None:
        on_device, steps = training.on_device(order), steps or fastest
        for samples in on_device[: full * batch_size].split(steps * batch_size) if full else ():
            replays[steps](samples)
        if replay_tail:
            replay_tail(on_device[full * batch_size :])
        training.wait()

    def seconds(steps: int) -> float:
        order = np.arange(len(data), dtype=np.int32)
        epoch(order, steps)
        began = perf_counter()
        epoch(order, steps)
        return perf_counter() - began

    fastest = min(replays, key=seconds, default=1)
    training.reset()
    epoch.form = f"steps a graph: {fastest}"
    return epoch, training.numbers


def steps_a_graph(full: int) -> int:
    """Return the largest divisor of the number of full mini-batches: no graph is left over."""
    return max(
        (steps for steps in range(1, MOST_STEPS_A_GRAPH + 1) if full % steps == 0), default=1
    )


def jax(
    weights: Arrays,
    biases: Arrays,
    data: fastnn.Dataset,
    batch_size: int,
    *,
    platform: str = "cuda",
    precision: str = "fp32",
) -> Peer:
    """JAX with an epoch as one jitted lax.scan, a step or several a turn, what is faster."""
    many = len(data) // batch_size >= 1000  # where the turns can matter
    return peers.jax(
        weights,
        biases,
        data,
        batch_size,
        platform=platform,
        precision=JAX_PRECISION[precision],
        unrolls=(1, 8) if many and platform == "cuda" else (1,),
    )


PEERS = {
    "PyTorch": torch_eager,
    "PyTorch CUDA graph": torch_graph,
    "torch.compile": torch_compile,
    "JAX": jax,
}


def gemm_rate(precision: str, platform: str) -> float:
    """Return the floating-point operations a second of the best of some large products.

    By PyTorch, or CuPy where that is missing; both call cuBLAS.
    """
    sizes = (4096, 8192) if platform == "cuda" else (512,)
    try:
        import torch
    except ModuleNotFoundError:
        if platform != "cuda":
            raise
        return max(_rate(*_cupy_product(n, precision), n) for n in sizes)
    torch.set_float32_matmul_precision(TORCH_PRECISION[precision])
    wait = torch.cuda.synchronize if platform == "cuda" else lambda: None

    def product(n: int) -> Callable[[], Any]:
        a, b = (torch.randn((n, n), device=platform) for _ in range(2))
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=out)

    return max(_rate(product(n), wait, n) for n in sizes)


def _cupy_product(n: int, precision: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    import cupy

    if precision != "fp32":
        raise RuntimeError("without PyTorch only the rate in fp32 is measured")
    a, b = (cupy.random.standard_normal((n, n), dtype=cupy.float32) for _ in range(2))
    out = cupy.empty_like(a)
    return lambda: cupy.matmul(a, b, out=out), cupy.cuda.Device().synchronize


def _rate(product: Callable[[], Any], wait: Callable[[], Any], n: int, turns: int = 5) -> float:
    def seconds(products: int) -> float:
        began = perf_counter()
        for _ in range(products):
            product()
        wait()
        return (perf_counter() - began) / products

    seconds(2)  # set up
    products = max(1, int(0.05 / seconds(2)))
    return 2 * n**3 / min(seconds(products) for _ in range(turns))
