"""Data sets larger than the GPU's memory: rows stay on the host and come in chunks.

Each chunk is brought together on the host, in the order of the samples, in page-locked memory, of
which there are two pieces: while the GPU works on one, the next is filled. What is trained on is
what would be, in the same order; the weights come out the same, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.backends.base import Array, Plan, Step
from fastnn.backends.cuda_gpu import Gpu

__all__ = ["CHUNK_BYTES", "HostRows", "StreamedStep", "chunks"]

# Bytes of a chunk at the most, and of the GPU's free memory: at times eight are there at once.
CHUNK_BYTES, _PART_OF_FREE = 1 << 26, 1 / 16


class HostRows:
    """Rows that the device holds on the host."""

    def __init__(self, host: NDArray[Any]) -> None:
        self.host = host
        self.shape, self.dtype = host.shape, host.dtype


class _Halves:
    """An array of rows on the GPU, whose halves are filled in turn from rows on the host."""

    def __init__(self, gpu: Gpu, host: NDArray[Any], half: int) -> None:
        self._host = host
        self.rows = gpu.empty((2 * half, host.shape[1]), host.dtype)
        self._slots = gpu.slots(self.rows)

    def fill(self, which: int, places: NDArray[np.int32]) -> None:
        slot = self._slots[which]
        slot.wait()
        # mode="clip" spares a copy; the places are those of a permutation.
        np.take(self._host, places, axis=0, out=slot.host[: len(places)], mode="clip")
        slot.send(len(places))

    def release(self, which: int) -> None:
        self._slots[which].release()

    def wait(self) -> None:
        for slot in self._slots:
            slot.wait()


def chunks(gpu: Gpu, rows: HostRows, order: Array) -> Iterator[tuple[slice, Array, Array]]:
    """Bring rows to the GPU in an order, chunk by chunk.

    Yields
    ------
    Which part of the order the chunk is, an array on the GPU that holds it, and at which places. It
    holds them until the one after the next is asked for.
    """
    places = gpu.to_numpy(order)
    half = min(len(places), max(1, _chunk_bytes(gpu) // rows.host[0].nbytes))
    halves = _Halves(gpu, rows.host, half)
    own_order = gpu.asarray(np.arange(2 * half, dtype=np.int32))
    for number, start in enumerate(range(0, len(places), half)):
        part, which = slice(start, min(start + half, len(places))), number % 2
        halves.fill(which, places[part])
        first = which * half
        yield part, halves.rows, own_order[first : first + part.stop - start]
        halves.release(which)
    halves.wait()  # before its host memory is another's


def _chunk_bytes(gpu: Gpu) -> int:
    free, _ = gpu.free_memory()
    return min(CHUNK_BYTES, int(free * _PART_OF_FREE))


class StreamedStep:
    """A step on chunks of rows that lie on the host.

    Parameters
    ----------
    gpu, plan
        The GPU, and a plan of which the inputs or the targets lie on the host.
    make
        Makes the step that trains on a chunk, from a plan whose rows are on the GPU.
    """

    def __init__(self, gpu: Gpu, plan: Plan, make: Callable[[Plan], Step]) -> None:
        self.stride = -(-plan.n // plan.batch_size)
        self._gpu = gpu
        hosts = [
            rows.host if isinstance(rows, HostRows) else gpu.to_numpy(rows)
            for rows in (plan.inputs, plan.targets)
        ]
        batch_bytes = plan.batch_size * sum(host[0].nbytes for host in hosts)
        self._half = min(self.stride, max(1, _chunk_bytes(gpu) // batch_bytes)) * plan.batch_size
        self._inputs, self._targets = (_Halves(gpu, host, self._half) for host in hosts)
        self._own_order = gpu.asarray(np.arange(2 * self._half, dtype=np.int32))
        self._step = make(replace(plan, inputs=self._inputs.rows, targets=self._targets.rows))
        self.name = f"streamed {self._step.name}"
        self._which = 0

    def __call__(self, order: Array, start: int, stop: int, rate: float, shrink: float) -> None:
        """Train on order[start:stop]; see :class:`fastnn.backends.base.Step`."""
        places = self._gpu.to_numpy(order[start:stop])
        for first in range(0, len(places), self._half):
            part = places[first : first + self._half]
            for halves in (self._inputs, self._targets):
                halves.fill(self._which, part)
            begin = self._which * self._half
            self._step(self._own_order, begin, begin + len(part), rate, shrink)
            for halves in (self._inputs, self._targets):
                halves.release(self._which)
            self._which = 1 - self._which
