"""The backend's methods on a CUDA GPU: kernels/cuda_kernels.cu, and products by cuBLAS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn.backends.base import Array, Backend, Shape, pieces
from fastnn.backends.cuda_gpu import Definitions, Gpu, Kernel
from fastnn.backends.cuda_streaming import HostRows, chunks
from fastnn.kernels.reference import GRADIENT_FACTOR, LEAK, MATCHED, SIGMA, Adam, Dropped, Momentum
from fastnn.optimisers import SGD

__all__ = ["CODES", "C_TYPES", "CudaKernels"]

# The activations as cuda_sigma.cuh numbers them, and the names of types in C.
CODES = {name: code for code, name in enumerate(SIGMA)}
C_TYPES = {"uint8": "unsigned char", "float32": "float", "float64": "double"}

# Threads of a block that goes through numbers, and blocks at the most: enough to fill any GPU.
_THREADS, _MOST_BLOCKS = 256, 4096
# Parts whose lengths are found by a block each, before a gradient is clipped.
_PARTS = 64
# Rows that a block sums up at a time, of 32 columns.
_GROUPS = 16


class CudaKernels(Backend):
    """Crossings and kernels; a subclass opens the GPU."""

    def __init__(self, index: int | None, dtype: DTypeLike, gpu: Gpu) -> None:
        super().__init__(index, dtype)
        self.gpu = gpu
        self._kernels: dict[str, Kernel] = {}

    @property
    def detail(self) -> str:
        """The GPU, the CUDA that its driver knows, and CuPy's version."""
        return self.gpu.description

    # Crossings ---------------------------------------------------------------------------------

    def asarray(self, host: NDArray[Any]) -> Array:
        """Return the array on the GPU; rows that would fill it stay on the host.

        Those come in chunks when they are gathered or trained on.
        """
        host = np.require(host, requirements=["C_CONTIGUOUS", "ALIGNED"])
        if host.ndim == 2:
            free, total = self.gpu.free_memory()
            if host.nbytes > max(free - total // 8, free // 4):
                return HostRows(host)
        return self.gpu.asarray(host)

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Return a copy on the host."""
        return array.host.copy() if isinstance(array, HostRows) else self.gpu.to_numpy(array)

    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        """Return an array of undefined content."""
        return self.gpu.empty(shape, dtype)

    def views(self, flat: Array, shapes: Sequence[Shape]) -> list[Array]:
        """Return reshaped slices."""
        return pieces(flat, shapes)

    def synchronize(self) -> None:
        """Wait for the GPU."""
        self.gpu.synchronize()

    # Kernels -----------------------------------------------------------------------------------

    def gather(
        self, rows: Array, order: Array, start: int, stop: int, scale: float, out: Array
    ) -> None:
        """out[i] = scale · rows[order[start + i]]."""
        order = order[start:stop]
        if isinstance(rows, HostRows):
            for part, chunk, places in chunks(self.gpu, rows, order):
                self.gather(chunk, places, 0, len(places), scale, out[part])
            return
        columns = rows.shape[1]
        if rows.dtype != np.uint8:
            name, packs = "gather_reals", columns
        elif columns % 4:
            name, packs = "gather_bytes", columns
        else:
            name, packs = "gather_bytes_by_four", columns // 4
        factor = self.dtype.type(scale)
        self._launch_by_rows(name, out, packs, rows, order, np.int32(packs), factor, out)

    def matmul(
        self,
        a: Array,
        b: Array,
        out: Array,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float | Array = 1.0,
        beta: float | Array = 0.0,
    ) -> None:
        """out ← alpha · op(a) op(b) + beta · out; alpha and beta may be arrays of one number."""
        self.gpu.gemm(a, b, out, transpose_a, transpose_b, alpha, beta)

    def sum_rows(self, delta: Array, out: Array, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        """out ← alpha · Σ_i delta_i + beta · out."""
        factors = self.dtype.type(alpha), self.dtype.type(beta)
        self.launch_by_columns("sum_rows", delta.shape, delta, *_int32(delta.shape), *factors, out)

    def activate(self, b: Array, activation: str, out: Array) -> None:
        """out ← σ(out + b)."""
        n = out.shape[1]
        self._launch_by_rows("activate", out, n, b, *_int32((n, CODES[activation])), out)

    def hadamard(self, a: Array, activation: str, out: Array) -> None:
        """out ← out ⊙ σ′(z), with a = σ(z)."""
        self._launch_by_numbers("hadamard", a, np.int32(CODES[activation]), np.int64(a.size), out)

    def output_delta(self, a: Array, y: Array, activation: str, cost: str, out: Array) -> None:
        """BP1: out = ∇_a C ⊙ σ′(z^L)."""
        how = self.cost_gradient(activation, cost)
        self._launch_by_numbers("output_delta", a, y, *how, np.int64(a.size), out)

    def scale_rows(self, weights: Array, out: Array) -> None:
        """out[i] ← w_i · out[i]."""
        n = np.int32(out.shape[1])
        self._launch_by_numbers("scale_rows", weights, n, np.int64(out.size), out)

    def momentum(self, w: Array, velocity: Array, gradient: Array, by: Momentum) -> None:
        """v ← μv - s and w ← shrink · w + v, by Nesterov + μv - s."""
        number = self.dtype.type
        penalties = map(number, (by.l1, by.l2, by.shrink))
        how = number(by.rate), number(by.mu), np.int32(by.nesterov), *penalties
        self._launch_by_numbers("momentum", gradient, *how, np.int64(w.size), velocity, w)

    def adam(self, w: Array, mean: Array, square: Array, gradient: Array, by: Adam) -> None:
        """m ← β₁m + (1 - β₁)g, s ← β₂s + (1 - β₂)g², w ← shrink · w - η m̂ / (√ŝ + ε)."""
        betas = by.beta1, 1 - by.beta1, by.beta2, 1 - by.beta2
        unbiased = (1 / (1 - beta**by.taken) for beta in (by.beta1, by.beta2))
        numbers = by.rate, *betas, by.epsilon, *unbiased, by.l1, by.l2, by.shrink
        how = map(self.dtype.type, numbers)
        self._launch_by_numbers("adam", gradient, *how, np.int64(w.size), mean, square, w)

    def clip(self, gradient: Array, most: float) -> None:
        """g ← g · min(1, most / ‖g‖)."""
        count = np.int64(gradient.size)
        lengths = self.gpu.empty((_PARTS,), self.dtype)
        self._launch("lengths", (_PARTS,), (_THREADS,), (gradient, count, lengths))
        how = lengths, np.int32(_PARTS), self.dtype.type(most), count
        self._launch_by_numbers("clip", *how, gradient)

    def drop(self, a: Array, by: Dropped, out: Array) -> None:
        """Inverted dropout: out_k = 0 if draw_k < rate, else a_k / (1 - rate)."""
        where = map(np.uint64, (by.key, by.first, by.threshold))
        how = self.dtype.type(by.scale), np.int64(a.size)
        self._launch_by_numbers("drop", a, *where, *how, out)

    def cost_gradient(self, activation: str, cost: str) -> tuple[np.int32, Any]:
        """Return by which σ′ and by which factor a - y becomes δ, as the kernels take them."""
        cancelled = "identity" if cost in MATCHED else activation
        return np.int32(CODES[cancelled]), self.dtype.type(GRADIENT_FACTOR.get(cost, 1))

    # Launches ----------------------------------------------------------------------------------

    def launch_by_columns(self, name: str, shape: Shape, *arguments: Any) -> None:
        """Launch a kernel that goes down the columns of a matrix and sums them up."""
        self._launch(name, (-(-shape[1] // 32),), (32, _GROUPS), arguments)

    def launch_momentum(
        self,
        rate: Array,
        optimiser: SGD,
        l1: float,
        l2: float,
        shrink: Array,
        minus_rated: Array,
        velocity: Array,
        w: Array,
    ) -> None:
        """Launch the update by momentum of a step that has -η ∂C/∂w, and η on the GPU."""
        number = self.dtype.type
        how = number(optimiser.momentum), np.int32(optimiser.nesterov), number(l1), number(l2)
        arrays = minus_rated, velocity, w
        self._launch_by_numbers("momentum_of_sum", rate, *how, shrink, np.int64(w.size), *arrays)

    def _launch_by_rows(self, name: str, out: Array, packs: int, *arguments: Any) -> None:
        """Launch a kernel that gives each row of out to a block, as many packs of numbers."""
        threads = max(32, 1 << (min(packs, _THREADS) - 1).bit_length())
        self._launch(name, (len(out),), (threads,), arguments)

    def _launch_by_numbers(self, name: str, *arguments: Any) -> None:
        blocks = min(_MOST_BLOCKS, -(-arguments[-1].size // _THREADS))
        self._launch(name, (blocks,), (_THREADS,), arguments)

    def _launch(self, name: str, grid: Shape, block: Shape, arguments: tuple[Any, ...]) -> None:
        if name not in self._kernels:
            compiled_with: Definitions = {"REAL": C_TYPES[self.dtype.name], "LEAK": LEAK}
            self._kernels[name] = self.gpu.kernel("cuda_kernels.cu", name, compiled_with)
        shared_bytes = self.dtype.itemsize * int(np.prod(block))  # a number a thread
        self.gpu.launch(self._kernels[name], grid, block, shared_bytes, *arguments)


def _int32(numbers: Iterable[int]) -> Iterator[np.int32]:
    return map(np.int32, numbers)
