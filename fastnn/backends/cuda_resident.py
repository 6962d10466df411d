"""The resident step of the CUDA device: kernels/cuda_epoch.cu on a plan.

One block keeps the first layer's weights in its registers and all else in its shared memory, for as
many mini-batches as it is told to. This module decides whether a network fits, and how the threads
share it; the kernel's source says what the shares mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np

from fastnn.backends.base import Array, Plan
from fastnn.backends.cuda_gpu import Definitions, Gpu, Limits
from fastnn.backends.cuda_kernels import C_TYPES, CODES
from fastnn.kernels.reference import GRADIENT_FACTOR, LEAK, MATCHED

__all__ = ["Fit", "ResidentStep", "Tiling", "definitions", "fit"]

# Registers that a thread needs beside its weights, its part of a sample, and what it holds of the
# next mini-batch: sums and addresses; found by compiling (tests/cuda/test_compile.py).
_BESIDE = 44
_MOST_REGISTERS = 255


class Tiling(NamedTuple):
    """How the threads share the first layer's weights; see kernels/cuda_epoch.cu."""

    units: int
    quads: int
    singles: int
    unit_lanes: int
    unit_warps: int
    slice_warps: int

    @property
    def warps(self) -> int:
        """Of the block."""
        return self.unit_warps * self.slice_warps

    @property
    def columns(self) -> int:
        """Inputs of a thread's tile."""
        return 4 * self.quads + self.singles

    @property
    def halvings(self) -> list[int]:
        """How many sums a lane passes on in each step of adding up over the slices of a warp."""
        passed, left, slice_lanes = [], self.units, 32 // self.unit_lanes
        while slice_lanes > 1:
            slice_lanes //= 2
            left = max(1, left // 2)
            passed.append(left)
        return passed


class Fit(NamedTuple):
    """A plan cut to fit one block."""

    tiling: Tiling
    buffers: int
    held: int
    shared_bytes: int

    @property
    def threads(self) -> int:
        """Of the block."""
        return 32 * self.tiling.warps


def tilings(inputs: int, hidden: int) -> Iterator[Tiling]:
    """Return every tiling of a (hidden, inputs) matrix over a block of at most 32 warps."""
    for unit_lanes, units in product((1, 2, 4, 8, 16, 32), (1, 2, 4, 8)):
        unit_warps = -(-hidden // (unit_lanes * units))
        for slice_warps in range(1, 32 // unit_warps + 1):
            slices = slice_warps * 32 // unit_lanes
            quads = inputs // (4 * slices)
            singles = -(-(inputs - 4 * quads * slices) // slices)
            yield Tiling(units, quads, singles, unit_lanes, unit_warps, slice_warps)


def fit(
    sizes: tuple[int, ...],
    batch_size: int,
    row: np.dtype[Any],
    dtype: np.dtype[Any],
    limits: Limits,
) -> Fit | str:
    """Return the fastest way in which a network fits one block, or a sentence why there is none.

    Parameters
    ----------
    sizes, batch_size
        Of the network and its mini-batches.
    row
        The samples' dtype.
    dtype
        The parameters' dtype.
    limits
        Of the GPU.
    """
    inputs, hidden = sizes[:2]
    words = dtype.itemsize // 4
    best: tuple[float, Fit] | None = None
    least_shared = None
    for tiling in tilings(inputs, hidden):
        # Each of four schedulers has a quarter of the registers, for whole warps, eight at a time.
        threads = 128 * -(-tiling.warps // 4)
        registers = min(_MOST_REGISTERS, limits.registers // threads // 8 * 8)
        spare = registers - words * ((tiling.units + 1) * tiling.columns + _BESIDE)
        held = min(spare // _row_registers(sizes, row), -(-batch_size // tiling.warps))
        if held < 1:
            continue
        for buffers in (2, 1):
            shared = dtype.itemsize * _shared_numbers(sizes, batch_size, tiling, buffers)
            least_shared = min(shared, least_shared or shared)
            if shared > limits.shared_memory:
                continue
            cycles = _cycles(sizes, batch_size, tiling, buffers)
            if best is None or cycles < best[0]:
                best = cycles, Fit(tiling, buffers, held, shared)
    if best:
        return best[1]
    if least_shared is None:
        return (
            f"the {inputs * hidden:,} weights of the first layer, and a sample a warp on its way, "
            "are more than the registers of one block hold"
        )
    return (
        f"all but the first layer's weights takes {least_shared / 1024:,.0f} KB of shared memory; "
        f"a block has {limits.shared_memory / 1024:,.0f} KB"
    )


def _cycles(sizes: tuple[int, ...], batch: int, tiling: Tiling, buffers: int) -> float:
    """Return about how many clock cycles a mini-batch takes, for choosing among tilings only.

    The numbers of instructions are those of the compiled loops; the latencies are the usual ones.
    """
    threads, warps_a_scheduler = 32 * tiling.warps, -(-tiling.warps // 4)
    passed = tiling.halvings
    reads = 2 * (tiling.quads + tiling.singles) + -(-tiling.units // 4)
    issued = 2 * tiling.units * tiling.columns + reads + 2 * sum(passed) + 6
    # A scheduler with few warps finds none ready now and then; two samples are under way at a time.
    busy = warps_a_scheduler / (warps_a_scheduler + 0.3)
    waited = (4 * tiling.columns + 25 * len(passed) + 60) / 2
    cycles = batch * max(warps_a_scheduler * issued / busy, waited)

    def a_thread_each(numbers: int, terms: int) -> float:
        return -(-numbers // threads) * (60 + 8 * terms)

    cycles += a_thread_each(batch * sizes[1], tiling.slice_warps)
    for n_in, n_out in pairwise(sizes[1:]):
        cycles += a_thread_each(batch * n_out, n_in // 2) + a_thread_each(batch * n_in, n_out)
        cycles += a_thread_each(n_out * n_in, batch)
    return cycles + (500 if buffers == 1 else 0)  # what two more barriers leave waiting


def _row_registers(sizes: tuple[int, ...], row: np.dtype[Any]) -> int:
    """Return how many registers of each lane hold a sample and its label."""
    numbers_a_pack = 4 if sizes[0] % 4 == 0 else 1
    packs = -(-sizes[0] // numbers_a_pack // 32)
    return packs * -(-numbers_a_pack * row.itemsize // 4) + -(-sizes[-1] // 32) + 1


def _shared_numbers(sizes: tuple[int, ...], batch: int, tiling: Tiling, buffers: int) -> int:
    """Return how much memory the block shares; the compiler holds this against the kernel's own."""

    def up(n: int) -> int:
        return -(-n // 4) * 4

    tiled_units = tiling.unit_warps * tiling.unit_lanes * tiling.units
    twists = min(tiling.units, 32 // tiling.unit_lanes)
    numbers = buffers * batch * up(sizes[0]) + up(buffers * batch * sizes[-1])
    numbers += up((tiling.slice_warps + twists) * batch * tiled_units)
    numbers += sum(up(n) * (1 + batch) for n in sizes[1:])
    for n_in, n_out in pairwise(sizes[1:]):
        numbers += n_out * (up(n_in) // 4 | 1) * 4 + up(batch * n_out)
    return numbers


def definitions(
    fit: Fit,
    sizes: tuple[int, ...],
    activations: tuple[str, ...],
    cost: str,
    batch_size: int,
    row: np.dtype[Any],
    dtype: np.dtype[Any],
) -> Definitions:
    """Return what the kernel is compiled with."""
    return {
        "REAL": C_TYPES[dtype.name],
        "LEAK": LEAK,
        "SIZES": ",".join(map(str, sizes)),
        "ACTIVATIONS": ",".join(str(CODES[name]) for name in activations),
        "MATCHED": int(cost in MATCHED),
        "FACTOR": GRADIENT_FACTOR.get(cost, 1),
        "BATCH": batch_size,
        "ROW": C_TYPES[row.name],
        **{name.upper(): value for name, value in fit.tiling._asdict().items()},
        "BUFFERS": fit.buffers,
        "HELD": fit.held,
        "SHARED_BYTES": fit.shared_bytes,
    }


class ResidentStep:
    """Many mini-batches in one launch."""

    name = "resident"

    def __init__(self, gpu: Gpu, plan: Plan, dtype: np.dtype[Any], how: Fit) -> None:
        self.stride = -(-plan.n // plan.batch_size)
        self._gpu, self._plan, self._number, self._how = gpu, plan, dtype.type, how
        activations = tuple(layer.activation for layer in plan.layers)
        compiled_with = definitions(
            how, plan.sizes, activations, plan.cost, plan.batch_size, plan.inputs.dtype, dtype
        )
        self._kernel = gpu.kernel("cuda_epoch.cu", "epoch", compiled_with, how.shared_bytes)
        addresses = [gpu.address(array) for layer in plan.layers for array in (layer.w, layer.b)]
        self._parameters = gpu.asarray(np.array(addresses, np.uint64))

    def __call__(self, order: Array, start: int, stop: int, rate: float, shrink: float) -> None:
        """Train on order[start:stop]; see :class:`fastnn.backends.base.Step`."""
        plan, number = self._plan, self._number
        self._gpu.launch(
            self._kernel,
            (1,),
            (self._how.threads,),
            self._how.shared_bytes,
            plan.inputs,
            number(plan.scale),
            plan.targets,
            order,
            np.int32(start),
            np.int32(stop),
            number(rate),
            number(shrink),
            self._parameters,
        )
