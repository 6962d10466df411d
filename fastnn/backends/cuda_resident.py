"""The resident step of the CUDA device: kernels/cuda_epoch.cu on a plan.

One block keeps the first layer's weights in its registers and all else in its shared memory, for as
many mini-batches as it is told to; with momentum, what room is left in the registers is for
velocities of these weights. This module decides whether a network fits, and how the threads share
it; the kernel's source says what the shares mean.
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

__all__ = ["Fit", "Kind", "ResidentStep", "Tiling", "definitions", "fit"]

# Registers that a thread needs beside its weights, its part of a sample, and what it holds of the
# next mini-batch: sums and addresses; found by compiling (tests/cuda/test_compile.py).
_BESIDE = 44
_BESIDE_SINGLE = 4  # with momentum, for each of the tile's single inputs
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
    def weights(self) -> int:
        """Of a thread's tile."""
        return self.units * self.columns

    @property
    def halvings(self) -> list[int]:
        """How many sums a lane passes on in each step of adding up over the slices of a warp."""
        passed, left, slice_lanes = [], self.units, 32 // self.unit_lanes
        while slice_lanes > 1:
            slice_lanes //= 2
            left = max(1, left // 2)
            passed.append(left)
        return passed


class Kind(NamedTuple):
    """Which update the kernel is compiled for; the defaults are plain descent's, with L2 or not."""

    momentum: bool = False
    nesterov: bool = False
    l1: bool = False

    @classmethod
    def of(cls, plan: Plan) -> Kind:
        """Return that of a plan whose update is gradient descent."""
        if plan.update is None:
            return cls()
        optimiser = plan.update.optimiser
        return cls(optimiser.momentum > 0, optimiser.nesterov, plan.update.l1 > 0)


PLAIN = Kind()


class Fit(NamedTuple):
    """A plan cut to fit one block."""

    tiling: Tiling
    buffers: int
    held: int
    kind: Kind
    shared_quads: int  # of a tile, those whose velocities are in shared memory
    shared_bytes: int

    @property
    def threads(self) -> int:
        """Of the block."""
        return 32 * self.tiling.warps

    @property
    def each(self) -> str:
        """What a thread has in its registers, for a person."""
        tiling = self.tiling
        velocities = tiling.units * (tiling.columns - 4 * self.shared_quads)
        more = f" and {velocities} velocities" if self.kind.momentum else ""
        return f"{tiling.weights} weights{more}"


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
    kind: Kind = PLAIN,
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
    kind
        Of the update.
    """
    inputs, hidden = sizes[:2]
    words = dtype.itemsize // 4
    best: tuple[float, Fit] | None = None
    least_shared = None
    for tiling in tilings(inputs, hidden):
        # Each of four schedulers has a quarter of the registers, for whole warps, eight at a time.
        threads = 128 * -(-tiling.warps // 4)
        registers = min(_MOST_REGISTERS, limits.registers // threads // 8 * 8)
        taken = (tiling.units + 1) * tiling.columns + _BESIDE
        row_registers = _row_registers(sizes, row)
        if kind.momentum:
            # Single inputs have their velocities in registers; the compiler holds bytes one by one.
            taken += tiling.singles * (tiling.units + _BESIDE_SINGLE)
            row_registers = max(row_registers, _row_registers(sizes, np.dtype("float32")))
        spare = registers - words * taken
        held = min(spare // row_registers, -(-batch_size // tiling.warps))
        if held < 1:
            continue
        shared_quads = 0
        if kind.momentum:
            # The rest is for the other velocities, but for a sample that is read before its turn.
            room = max(0, spare - held * row_registers - words * tiling.columns)
            shared_quads = max(0, tiling.quads - room // (4 * words * tiling.units))
        for buffers in (2, 1):
            shared = dtype.itemsize * _shared_numbers(
                sizes, batch_size, tiling, buffers, kind, shared_quads
            )
            least_shared = min(shared, least_shared or shared)
            if shared > limits.shared_memory:
                continue
            how = Fit(tiling, buffers, held, kind, shared_quads, shared)
            cycles = _cycles(sizes, batch_size, how)
            if best is None or cycles < best[0]:
                best = cycles, how
    if best:
        return best[1]
    velocities = " and some of their velocities" if kind.momentum else ""
    if least_shared is None:
        return (
            f"the {inputs * hidden:,} weights of the first layer{velocities}, and a sample a warp "
            "on its way, are more than the registers of one block hold"
        )
    return (
        f"all but the first layer's weights{velocities} takes {least_shared / 1024:,.0f} KB of "
        f"shared memory; a block has {limits.shared_memory / 1024:,.0f} KB"
    )


def _cycles(sizes: tuple[int, ...], batch: int, how: Fit) -> float:
    """Return about how many clock cycles a mini-batch takes, for choosing among tilings only.

    The numbers of instructions are those of the compiled loops; the latencies are the usual ones.
    """
    tiling, threads = how.tiling, how.threads
    warps_a_scheduler = -(-tiling.warps // 4)
    passed = tiling.halvings
    reads = 2 * (tiling.quads + tiling.singles) + -(-tiling.units // 4)
    issued = 2 * tiling.units * tiling.columns + reads + 2 * sum(passed) + 6
    # A scheduler with few warps finds none ready now and then; two samples are under way at a time.
    busy = warps_a_scheduler / (warps_a_scheduler + 0.3)
    waited = (4 * tiling.columns + 25 * len(passed) + 60) / 2
    cycles = batch * max(warps_a_scheduler * issued / busy, waited)
    if how.kind.momentum:
        # Deltas are read anew for each four columns, and each weight and velocity is updated; what
        # shared memory has of these goes by 128 bytes a clock.
        fours = -(-tiling.columns // 4)
        issued = batch * fours * (-(-tiling.units // 4) + 2) + 4 * tiling.weights
        cycles += warps_a_scheduler * issued / busy
        cycles += 2 * 4 * tiling.units * how.shared_quads * tiling.warps

    def a_thread_each(numbers: int, terms: int) -> float:
        return -(-numbers // threads) * (60 + 8 * terms)

    cycles += a_thread_each(batch * sizes[1], tiling.slice_warps)
    for n_in, n_out in pairwise(sizes[1:]):
        cycles += a_thread_each(batch * n_out, n_in // 2) + a_thread_each(batch * n_in, n_out)
        cycles += a_thread_each(n_out * n_in, batch)
    return cycles + (500 if how.buffers == 1 else 0)  # what two more barriers leave waiting


def _row_registers(sizes: tuple[int, ...], row: np.dtype[Any]) -> int:
    """Return how many registers of each lane hold a sample and its label."""
    numbers_a_pack = 4 if sizes[0] % 4 == 0 else 1
    packs = -(-sizes[0] // numbers_a_pack // 32)
    return packs * -(-numbers_a_pack * row.itemsize // 4) + -(-sizes[-1] // 32) + 1


def _shared_numbers(
    sizes: tuple[int, ...],
    batch: int,
    tiling: Tiling,
    buffers: int,
    kind: Kind,
    shared_quads: int,
) -> int:
    """Return how much memory the block shares; the compiler holds this against the kernel's own."""

    def up(n: int) -> int:
        return -(-n // 4) * 4

    tiled_units = tiling.unit_warps * tiling.unit_lanes * tiling.units
    twists = min(tiling.units, 32 // tiling.unit_lanes)
    numbers = buffers * batch * up(sizes[0]) + up(buffers * batch * sizes[-1])
    numbers += up((tiling.slice_warps + twists) * batch * tiled_units)
    copies = 1 + kind.momentum  # of b and W
    numbers += sum(up(n) * (copies + batch) for n in sizes[1:])
    for n_in, n_out in pairwise(sizes[1:]):
        numbers += copies * n_out * (up(n_in) // 4 | 1) * 4 + up(batch * n_out)
    return numbers + 4 * shared_quads * tiling.units * 32 * tiling.warps


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
        "VELOCITIES": int(fit.kind.momentum),
        "NESTEROV": int(fit.kind.nesterov),
        "L1": int(fit.kind.l1),
        "SHARED_QUADS": fit.shared_quads,
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
        arrays = [array for layer in plan.layers for array in (layer.w, layer.b)]
        if how.kind.momentum:
            arrays += [array for pair in plan.update.kept_by_layer(0) for array in pair]
        self._parameters = gpu.asarray(np.array([*map(gpu.address, arrays)], np.uint64))

    def __call__(self, order: Array, start: int, stop: int, rate: float, shrink: float) -> None:
        """Train on order[start:stop]; see :class:`fastnn.backends.base.Step`."""
        plan, number, update = self._plan, self._number, self._plan.update
        mu = l1 = l2 = 0.0
        if update is not None:
            update.taken += -(-(stop - start) // plan.batch_size)
            mu, l1, l2 = update.optimiser.momentum, rate * update.l1, rate * update.l2
            if not mu:  # it is all the same whether the weights shrink beside the update or in it
                shrink, l2 = shrink - l2, 0.0
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
            number(mu),
            number(l1),
            number(l2),
        )
