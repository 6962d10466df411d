"""What a machine can do at the most, measured once a session; and by what a figure came about."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import metadata
from time import perf_counter, sleep
from typing import Any

import numpy as np
from networks import on_gpu
from peers.pytorch import PRECISION

from fastnn.backends.base import Backend
from fastnn.cli.output import versions
from fastnn.threads import processors

# Of these the versions are kept where they are installed.
OTHERS = ("numba", "cupy-cuda12x", "cupy-cuda13x", "jax", "torch", "scikit-learn", "thinc")
# Tries are spread over a while: the threads of some libraries look out for more work when they have
# none, and others use the machine, too.
BURSTS = 5
REST = 0.3  # seconds between bursts
COPIED = 1 << 28  # bytes, more than caches hold


@cache
def sgemm_rate() -> float:
    """Return the flops a second of the best of some large products, by SciPy's BLAS."""
    from scipy.linalg.blas import sgemm

    n = 1024
    a = np.asfortranarray(np.random.default_rng(0).standard_normal((n, n), np.float32))
    out = np.zeros_like(a)
    return 2 * n**3 / best(4, lambda: sgemm(1.0, a, a, 0.0, out, 0, 0, 1))


def flops_per_second(device: str) -> float:
    """Return the rate of large products in float32 where a device computes."""
    return gemm_rate("fp32", "cuda") if on_gpu(device) else sgemm_rate()


@cache
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
        return max(rate(*cupy_product(n, precision), n) for n in sizes)
    torch.set_float32_matmul_precision(PRECISION[precision])
    wait = torch.cuda.synchronize if platform == "cuda" else lambda: None

    def product(n: int) -> Callable[[], Any]:
        a, b = (torch.randn((n, n), device=platform) for _ in range(2))
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=out)

    return max(rate(product(n), wait, n) for n in sizes)


def cupy_product(n: int, precision: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    import cupy

    if precision != "fp32":
        raise RuntimeError("without PyTorch only the rate in fp32 is measured")
    a, b = (cupy.random.standard_normal((n, n), dtype=cupy.float32) for _ in range(2))
    out = cupy.empty_like(a)
    return lambda: cupy.matmul(a, b, out=out), cupy.cuda.Device().synchronize


def rate(product: Callable[[], Any], wait: Callable[[], Any], n: int, turns: int = 5) -> float:
    def seconds(products: int) -> float:
        began = perf_counter()
        for _ in range(products):
            product()
        wait()
        return (perf_counter() - began) / products

    seconds(2)  # set up
    products = max(1, int(0.05 / seconds(2)))
    return 2 * n**3 / min(seconds(products) for _ in range(turns))


@cache
def bytes_per_second(device: str) -> float:
    """Return the rate of a large copy where a device computes: bytes read and bytes written."""
    xp: Any = np
    wait: Callable[[], Any] = lambda: None  # noqa: E731
    if on_gpu(device):
        import cupy as xp

        wait = xp.cuda.Device().synchronize
    source, target = xp.ones(COPIED, xp.uint8), xp.empty(COPIED, xp.uint8)

    def copy() -> None:
        xp.copyto(target, source)
        wait()

    return 2 * COPIED / best(1, copy)


def best(times: int, work: Callable[[], Any]) -> float:
    """Return the seconds of the best of so many tries in each burst."""
    seconds = []
    for _ in range(BURSTS):
        sleep(REST)
        work()
        seconds += [timed(work) for _ in range(times)]
    return min(seconds)


def timed(work: Callable[[], Any]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def setting(backend: Backend | None = None) -> dict[str, Any]:
    """Return by what a figure came about. A device's detail names its BLAS, where it has one."""
    made: dict[str, Any] = {"device": backend.spec, "detail": backend.detail} if backend else {}
    others = {}
    for name in OTHERS:
        with suppress(metadata.PackageNotFoundError):
            others[name] = metadata.version(name)
    return {**made, "threads": processors(), "versions": {**versions(), **others}}
