"""Every kernel of every device, at the sizes that the networks give it.

    pytest benchmarks/bench_kernels.py                    some 0.1 s each
    pytest benchmarks/bench_kernels.py -k "forward and numba"
    pytest benchmarks/bench_kernels.py --benchmark-group-by=param:kernel,param:device

Each is compared with the reference in float64 first. The clock is read only when the device has
been waited for, and between two readings a kernel is called as often as makes a millisecond. It has
the same arrays each time: those of a small mini-batch lie in the cache, which is faster than the
large copy in memory that is the roof of what only moves bytes, so its part of that can exceed 1.
The roof of products is the rate of large ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import pytest
from networks import NETWORKS, for_device
from roofs import bytes_per_second, flops_per_second, setting

from fastnn import device as make_device
from fastnn.backends.base import Backend
from fastnn.backends.registry import usable
from fastnn.kernels import reference
from fastnn.testing.comparing import activated, assert_close, cast, nans, normal, rounded

SAMPLES = 10_000  # in the set that mini-batches are gathered from
RATE = 1e-6  # so that weights stay finite, however often they descend


class Work(NamedTuple):
    """What a kernel is given, in float64, and what must come out.

    Attributes
    ----------
    inputs, outs, options
        Its arguments: arrays that it reads, arrays that it writes, and the others.
    expected
        What is in ``outs`` after a call, by the reference.
    longest
        The length of the longest sum in that.
    """

    inputs: dict[str, np.ndarray]
    outs: dict[str, np.ndarray]
    options: dict[str, Any]
    expected: list[np.ndarray]
    longest: int = 1


class Draw:
    """Random arrays for m samples, n_in and n_out units."""

    def __init__(self, backend: Backend, m: int, n_in: int, n_out: int) -> None:
        self.m, self.n_in, self.n_out = m, n_in, n_out
        self.rng, self._backend = np.random.default_rng(0), backend

    def normal(self, *shape: int) -> np.ndarray:
        return normal(self.rng, self._backend, *shape)

    def activated(self, n: int) -> np.ndarray:
        return activated(self.rng, self._backend, "sigmoid", self.m, n)

    def images(self, kind: str) -> np.ndarray:
        pixels = self.rng.integers(0, 256, (SAMPLES, self.n_in), dtype=np.uint8)
        return pixels if kind == "uint8" else rounded(pixels / 255, self._backend)


def gather(draw: Draw, kind: str) -> Work:
    rows, order = draw.images(kind), draw.rng.permutation(SAMPLES).astype(np.int32)
    how = {"start": 0, "stop": draw.m, "scale": 1 / 255 if kind == "uint8" else 1.0}
    right = reference.gather(rows, order, **how)
    return Work({"rows": rows, "order": order}, {"out": nans(*right.shape)}, how, [right])


def matmul(draw: Draw) -> Work:
    a, b = draw.normal(draw.m, draw.n_in), draw.normal(draw.n_out, draw.n_in)
    out, how = nans(draw.m, draw.n_out), {"transpose_b": True}
    right = reference.matmul(a, b, out, **how)
    return Work({"a": a, "b": b}, {"out": out}, how, [right], draw.n_in)


def sum_rows(draw: Draw) -> Work:
    delta, out, how = draw.normal(draw.m, draw.n_out), nans(draw.n_out), {"alpha": 1 / draw.m}
    right = reference.sum_rows(delta, out, **how)
    return Work({"delta": delta}, {"out": out}, how, [right], draw.m)


def activate(draw: Draw, activation: str) -> Work:
    b, z = draw.normal(draw.n_out), draw.normal(draw.m, draw.n_out)
    right = reference.activate(z, b, activation)
    return Work({"b": b}, {"out": z}, {"activation": activation}, [right], draw.n_out)


def hadamard(draw: Draw) -> Work:
    # After some dozens of calls what is left is zero, which takes no less time to multiply.
    a, d, how = draw.activated(draw.n_out), draw.normal(draw.m, draw.n_out), SIGMOID
    return Work({"a": a}, {"out": d}, how, [reference.hadamard(d, a, **how)])


def output_delta(draw: Draw) -> Work:
    a, how = draw.activated(draw.n_out), {**SIGMOID, "cost": "quadratic"}
    y = np.eye(draw.n_out)[draw.rng.integers(0, draw.n_out, draw.m)]
    right = reference.output_delta(a, y, **how)
    return Work({"a": a, "y": y}, {"out": nans(*a.shape)}, how, [right])


def forward(draw: Draw) -> Work:
    given = {"a_prev": draw.normal(draw.m, draw.n_in), "w": draw.normal(draw.n_out, draw.n_in)}
    given["b"] = draw.normal(draw.n_out)
    right = reference.forward(**given, **SIGMOID)
    return Work(given, {"out": nans(*right.shape)}, SIGMOID, [right], draw.n_in)


def propagate_delta(draw: Draw) -> Work:
    given = {"delta": draw.normal(draw.m, draw.n_out), "w": draw.normal(draw.n_out, draw.n_in)}
    given["a"] = draw.activated(draw.n_in)
    right = reference.propagate_delta(**given, **SIGMOID)
    return Work(given, {"out": nans(*right.shape)}, SIGMOID, [right], draw.n_out)


def gradient(draw: Draw) -> Work:
    given = {"delta": draw.normal(draw.m, draw.n_out), "a_prev": draw.normal(draw.m, draw.n_in)}
    outs = {"out_w": nans(draw.n_out, draw.n_in), "out_b": nans(draw.n_out)}
    how = {"scale": 1 / draw.m}
    return Work(given, outs, how, [*reference.gradient(**given, **how)], draw.m)


def descend(draw: Draw) -> Work:
    given = {"delta": draw.normal(draw.m, draw.n_out), "a_prev": draw.normal(draw.m, draw.n_in)}
    outs = {"w": draw.normal(draw.n_out, draw.n_in), "b": draw.normal(draw.n_out)}
    how = {"rate": RATE, "shrink": 1.0}
    return Work(given, outs, how, [*reference.descend(**outs, **given, **how)], draw.m)


SIGMOID = {"activation": "sigmoid"}


class Kernel(NamedTuple):
    """A kernel at work: what it is given, in which layer, and whether it is one of products.

    The layer is the "first", the one that leads to the "widest" hidden units, the one that leads
    "on" from there, or the "last".
    """

    work: Callable[..., Work]
    layer: str
    product: bool = False
    options: tuple[str, ...] = ()


# What stands behind a space is one of a kernel's options.
KERNELS = {
    "gather uint8": Kernel(gather, "first", options=("uint8",)),
    "gather float": Kernel(gather, "first", options=("float",)),
    "matmul": Kernel(matmul, "first", product=True),
    "sum_rows": Kernel(sum_rows, "widest"),
    "activate sigmoid": Kernel(activate, "widest", options=("sigmoid",)),
    "activate relu": Kernel(activate, "widest", options=("relu",)),
    "activate softmax": Kernel(activate, "last", options=("softmax",)),
    "hadamard": Kernel(hadamard, "widest"),
    "output_delta": Kernel(output_delta, "last"),
    "forward": Kernel(forward, "first", product=True),
    "propagate_delta": Kernel(propagate_delta, "on", product=True),
    "gradient": Kernel(gradient, "first", product=True),
    "descend": Kernel(descend, "first", product=True),
}


def dimensions(kernel: str, network: str) -> tuple[int, int, int]:
    """Return m, n_in and n_out of a kernel in a network."""
    sizes, batch_size, _ = NETWORKS[network]
    widest = NETWORKS[network].widest
    layers = {"first": 0, "widest": widest - 1, "on": widest, "last": len(sizes) - 2}
    layer = layers[KERNELS[kernel].layer]
    return batch_size, sizes[layer], sizes[layer + 1]


def shape_of(kernel: str, network: str) -> tuple[int, ...]:
    m, n_in, n_out = dimensions(kernel, network)
    if KERNELS[kernel].product:
        return m, n_in, n_out
    return (m, n_in) if KERNELS[kernel].work is gather else (m, n_out)


@cache
def backend_of(device: str) -> Backend:
    return make_device(device, "float32")


@cache
def clock_of(device: str) -> Callable[[], float]:
    """Return a clock that waits for the device before it is read."""

    def clock() -> float:
        backend_of(device).synchronize()
        return perf_counter()

    return clock


def cases() -> list[Any]:
    """Return every kernel in every network on every device, the same shape but once."""
    found: dict[tuple[Any, ...], Any] = {}
    for device in usable():
        mark = pytest.mark.benchmark(timer=clock_of(device), min_time=1e-3, max_time=0.05)
        for network in for_device(device):
            for kernel in KERNELS:
                name = f"{kernel} {NETWORKS[network].title} {device}"
                case = pytest.param(kernel, network, device, id=name, marks=mark)
                found.setdefault((kernel, shape_of(kernel, network), device), case)
    return list(found.values())


@pytest.mark.parametrize(("kernel", "network", "device"), cases())
def test_kernel(benchmark, kernel: str, network: str, device: str) -> None:
    backend, (m, n_in, n_out) = backend_of(device), dimensions(kernel, network)
    prepare, _, product, options = KERNELS[kernel]
    work = prepare(Draw(backend, m, n_in, n_out), *options)

    # Copies, since a device may share the host's memory.
    def put(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        return {key: backend.asarray(cast(host, backend).copy()) for key, host in arrays.items()}

    inputs, outs = put(work.inputs), put(work.outs)
    call = partial(getattr(backend, kernel.split()[0]), **inputs, **outs, **work.options)
    call()
    for (key, out), right in zip(outs.items(), work.expected, strict=True):
        assert_close(backend.to_numpy(out), right, backend, work.longest, f"{kernel}: {key}")

    shape = "×".join(map(str, shape_of(kernel, network)))
    benchmark.group = f"{kernel} {shape}"
    benchmark(call)
    if not benchmark.stats:  # nothing was timed
        return
    seconds = benchmark.stats.stats.median
    if product:
        amount = {"flops": 2 * m * n_in * n_out}
        rate, roof = amount["flops"] / seconds, flops_per_second(device)
        figures = {"gflops": rate / 1e9}
    else:
        amount = {"bytes": moved(work, m, backend)}
        rate, roof = amount["bytes"] / seconds, bytes_per_second(device)
        figures = {"gb_per_second": rate / 1e9}
    benchmark.extra_info |= {
        "kernel": kernel,
        "shape": shape,
        "name": network,
        "us": 1e6 * seconds,
        **amount,
        **figures,
        "fraction_of_roof": rate / roof,
        **setting(backend),
    }


def moved(work: Work, m: int, backend: Backend) -> int:
    """Return the bytes that a kernel without products must read and write."""
    rows = work.inputs.get("rows")
    if rows is not None:  # of these, and of the order, only a mini-batch's part
        one, number = rows.shape[1], cast(rows, backend).itemsize
        return m * (one * (number + backend.dtype.itemsize) + work.inputs["order"].itemsize)
    changed = "activation" in work.options and "cost" not in work.options  # out is read, too
    floats = sum(array.size for array in work.inputs.values())
    floats += (2 if changed else 1) * sum(array.size for array in work.outs.values())
    return floats * backend.dtype.itemsize
