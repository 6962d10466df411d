"""What the CUDA device needs of a GPU: memory, launches, matrix products, nothing else.

:class:`fastnn.backends.cupy_gpu.CupyGpu` gives it by CuPy. All that decides, which plan, how large,
in what order, stands above this line, and is tested without a GPU by one that runs the kernels' own
sources on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

from numpy.typing import DTypeLike, NDArray

from fastnn.backends.base import Array, Shape

__all__ = ["Definitions", "Gpu", "Kernel", "Limits", "Slot"]

Definitions: TypeAlias = Mapping[str, str | int | float]
Kernel: TypeAlias = Any  # a GPU's own handle on compiled code


class Limits(NamedTuple):
    """What a thread block may have at the most.

    Attributes
    ----------
    capability
        The compute capability, (9, 0).
    shared_memory
        Bytes, where a kernel asks for more than the usual 48 KB.
    registers
        Of 32 bits.
    """

    capability: tuple[int, int]
    shared_memory: int
    registers: int = 65536


class Slot(Protocol):
    """A piece of page-locked host memory with its place on the GPU."""

    host: NDArray[Any]

    def wait(self) -> None:
        """Wait until what was sent last has left the host, which may then write again."""

    def send(self, count: int) -> None:
        """Enqueue the copy of the first rows, behind whatever still reads the old ones."""

    def release(self) -> None:
        """All work that reads the rows is enqueued."""


class Gpu(Protocol):
    """One GPU and one queue of work on it; arrays have shape, dtype, reshape and slices.

    What it enqueues it does in order, and does not wait for. Whatever it reports becomes a
    :class:`fastnn.DeviceError` with a sentence.
    """

    limits: Limits
    description: str

    def asarray(self, host: NDArray[Any]) -> Array:
        """Return the host array on the GPU, C-ordered."""

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Return a copy on the host, once all work before it is done."""

    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        """Return a C-ordered array of undefined content."""

    def copy(self, source: Array, out: Array) -> None:
        """Enqueue out ← source, of the same size and dtype, on the GPU."""

    def address(self, array: Array) -> int:
        """Return where an array lies in the GPU's memory."""

    def free_memory(self) -> tuple[int, int]:
        """Return how many bytes can still be had, and how many the GPU has in all."""

    def kernel(
        self, source: str, name: str, definitions: Definitions, shared_bytes: int = 0
    ) -> Kernel:
        """Return a kernel of a source in :mod:`fastnn.kernels`, compiled with definitions."""

    def launch(
        self,
        kernel: Kernel,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared_bytes: int,
        *arguments: Any,
    ) -> None:
        """Enqueue a kernel; arguments are arrays and NumPy scalars of the parameters' types."""

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool,
        transpose_b: bool,
        alpha: float | Array,
        beta: float | Array,
    ) -> None:
        """Enqueue out ← alpha · op(a) op(b) + beta · out; alpha and beta may lie on the GPU."""

    def slots(self, rows: Array) -> tuple[Slot, Slot]:
        """Return two slots, for the first and the second half of an array's rows."""

    def aside(self, work: Callable[[], None]) -> None:
        """Enqueue work behind all before it and beside all after it, up to :meth:`join`."""

    def join(self) -> None:
        """What is enqueued from here on comes behind what went aside."""

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what work enqueues, once, and return what enqueues all of it in one call."""

    def synchronize(self) -> None:
        """Wait until all that was enqueued is done."""
