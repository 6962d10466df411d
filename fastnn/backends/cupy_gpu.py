"""A GPU by CuPy: memory, launches on a stream of our own, products by cuBLAS."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from threading import RLock
from typing import Any

import cupy
import numpy as np
from cupy.cuda import driver, runtime
from numpy.typing import DTypeLike, NDArray

from fastnn.backends.base import Array, Shape
from fastnn.backends.cublas import WORKSPACE_BYTES, Cublas, Matrix
from fastnn.backends.cuda_code import machine_code
from fastnn.backends.cuda_gpu import Definitions, Kernel, Limits, Slot
from fastnn.errors import DeviceError, DeviceOutOfMemory

__all__ = ["CupyGpu"]

_USUAL_SHARED_BYTES = 48 << 10
_MAX_DYNAMIC_SHARED_SIZE = 8  # the driver's number of that attribute of a function


class CupyGpu:
    """See :class:`fastnn.backends.cuda_gpu.Gpu`."""

    def __init__(self, index: int, tf32: bool) -> None:
        self._modules: dict[bytes, Any] = {}
        # What is enqueued, where, and what is recorded is one thread's at a time.
        self._lock = RLock()
        with _speaking():
            self._device = cupy.cuda.Device(index)
            with self._device, _speaking():
                properties = runtime.getDeviceProperties(index)
                self._lane = self._main = _Lane(tf32)
                self._aside = _Lane(tf32)
                self._copies = cupy.cuda.Stream(non_blocking=True)
        self.limits = Limits(
            (properties["major"], properties["minor"]),
            properties["sharedMemPerBlockOptin"],
            properties["regsPerBlock"],
        )
        cuda = runtime.driverGetVersion()
        self.description = (
            f"{properties['name'].decode()}, {properties['totalGlobalMem'] / 1e9:.0f} GB, "
            f"CUDA {cuda // 1000}.{cuda % 1000 // 10}, CuPy {cupy.__version__}"
            + (", tf32" if tf32 else "")
        )

    def asarray(self, host: NDArray[Any]) -> Array:
        """Return the host array on the GPU, C-ordered.

        Straight from where it is: CuPy's own way is by page-locked memory of up to twice the size.
        """
        with self._here():
            array = cupy.empty(host.shape, host.dtype)
            array.set(np.ascontiguousarray(host), stream=self._stream)
            return array

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Return a copy on the host, once all work before it is done."""
        with self._here():
            host: NDArray[Any] = array.get(stream=self._stream)
            return host

    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        """Return a C-ordered array of undefined content."""
        with self._here():
            return cupy.empty(shape, dtype)

    def copy(self, source: Array, out: Array) -> None:
        """Enqueue out ← source."""
        with self._here():
            runtime.memcpyAsync(
                out.data.ptr,
                source.data.ptr,
                out.nbytes,
                runtime.memcpyDeviceToDevice,
                self._stream.ptr,
            )

    def address(self, array: Array) -> int:
        """Return where an array lies."""
        return int(array.data.ptr)

    def free_memory(self) -> tuple[int, int]:
        """Return how many bytes can be had, those that CuPy keeps for later included, and all."""
        with self._here():
            free, total = runtime.memGetInfo()
            return free + cupy.get_default_memory_pool().free_bytes(), total

    def kernel(
        self, source: str, name: str, definitions: Definitions, shared_bytes: int = 0
    ) -> Kernel:
        """Return a kernel, compiled or from the cache."""
        code = machine_code(source, definitions, self.limits.capability)
        with self._here():
            if code not in self._modules:
                module = cupy.cuda.function.Module()
                module.load(code)
                self._modules[code] = module
            kernel = self._modules[code].get_function(name)
            if shared_bytes > _USUAL_SHARED_BYTES:
                driver.funcSetAttribute(kernel.ptr, _MAX_DYNAMIC_SHARED_SIZE, shared_bytes)
            return kernel

    def launch(
        self,
        kernel: Kernel,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared_bytes: int,
        *arguments: Any,
    ) -> None:
        """Enqueue a kernel."""
        with self._here():
            kernel(grid, block, arguments, shared_mem=shared_bytes, stream=self._stream)

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
        """Enqueue out ← alpha · op(a) op(b) + beta · out."""
        with self._here():
            self._lane.cublas.gemm(
                out.dtype,
                self._matrix(a),
                self._matrix(b),
                self._matrix(out),
                transpose_a,
                transpose_b,
                self._factor(alpha),
                self._factor(beta),
            )

    def _matrix(self, array: Array) -> Matrix:
        return Matrix(self.address(array), *array.shape)

    def _factor(self, factor: float | Array) -> float | int:
        return self.address(factor) if isinstance(factor, cupy.ndarray) else float(factor)

    def slots(self, rows: Array) -> tuple[Slot, Slot]:
        """Return two slots, for the first and the second half of an array's rows."""
        half = len(rows) // 2
        with self._here():
            return (
                _CupySlot(self, rows[:half], self._stream, self._copies),
                _CupySlot(self, rows[half:], self._stream, self._copies),
            )

    def aside(self, work: Callable[[], None]) -> None:
        """Enqueue work on a stream beside."""
        with self._lock:
            self._follow(self._aside, self._main)
            self._lane = self._aside
            try:
                work()
            finally:
                self._lane = self._main

    def join(self) -> None:
        """Let the stream wait for the one beside."""
        self._follow(self._main, self._aside)

    def _follow(self, later: _Lane, earlier: _Lane) -> None:
        with self._lock, self._device, _speaking():
            earlier.event.record(earlier.stream)
            later.stream.wait_event(earlier.event)

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what work enqueues."""
        with self._here():
            self._stream.begin_capture()
            try:
                work()
            except BaseException:
                with suppress(runtime.CUDARuntimeError):  # of which that is the cause
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()
            graph.upload(self._stream)

        def launch() -> None:
            with self._here():
                graph.launch(self._stream)

        return launch

    def synchronize(self) -> None:
        """Wait until all that was enqueued is done."""
        with self._here():
            self._stream.synchronize()

    @contextmanager
    def _here(self) -> Iterator[None]:
        """What CuPy does inside, it does on this GPU and this stream."""
        with self._lock, self._device, self._stream, _speaking():
            yield

    @property
    def _stream(self) -> Any:
        return self._lane.stream


class _Lane:
    """A stream with what works on it: two streams cannot share a handle of cuBLAS."""

    def __init__(self, tf32: bool) -> None:
        self._tf32 = tf32
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.event = cupy.cuda.Event(disable_timing=True)

    @cached_property
    def cublas(self) -> Cublas:
        workspace = cupy.empty(WORKSPACE_BYTES, np.uint8)
        kept = self.stream, workspace
        return Cublas(_library(), self.stream.ptr, workspace.data.ptr, self._tf32, kept)


class _CupySlot:
    """See :class:`fastnn.backends.cuda_gpu.Slot`; copies go on a stream beside the work."""

    def __init__(self, gpu: CupyGpu, rows: Array, work: Any, copies: Any) -> None:
        self._gpu, self._rows, self._work, self._copies = gpu, rows, work, copies
        try:
            memory = cupy.cuda.alloc_pinned_memory(rows.nbytes)
        except runtime.CUDARuntimeError as error:
            raise DeviceError(
                f"{rows.nbytes / 1e6:,.0f} MB of page-locked memory cannot be had ({error})"
            ) from error
        self.host: NDArray[Any] = np.frombuffer(memory, rows.dtype, rows.size).reshape(rows.shape)
        self._sent = cupy.cuda.Event(disable_timing=True)
        self._released = cupy.cuda.Event(disable_timing=True)
        self.release()  # what had this memory before may still be read by work that is enqueued

    def wait(self) -> None:
        with self._gpu._here():
            self._sent.synchronize()

    def send(self, count: int) -> None:
        with self._gpu._here():
            self._copies.wait_event(self._released)
            runtime.memcpyAsync(
                self._rows.data.ptr,
                self.host.ctypes.data,
                self.host[:count].nbytes,
                runtime.memcpyHostToDevice,
                self._copies.ptr,
            )
            self._sent.record(self._copies)
            self._work.wait_event(self._sent)

    def release(self) -> None:
        with self._gpu._here():
            self._released.record(self._work)


@contextmanager
def _speaking() -> Iterator[None]:
    """Turn what CUDA reports into our errors."""
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        free, total = runtime.memGetInfo()
        raise DeviceOutOfMemory(
            f"the GPU's memory is full: {free / 1e9:.1f} of its {total / 1e9:.1f} GB are free, and "
            f"more was asked for ({error})"
        ) from error
    except (runtime.CUDARuntimeError, driver.CUDADriverError) as error:
        raise DeviceError(f"the GPU failed: {error}") from error


def _library() -> Any:
    """Return the cuBLAS that CuPy uses, which asking for its own calls of it loads."""
    major = runtime.runtimeGetVersion() // 1000
    name = f"cublas64_{major}.dll" if os.name == "nt" else f"libcublas.so.{major}"
    try:
        _ = cupy.cuda.cublas
        return ctypes.CDLL(name)
    except (ImportError, OSError) as error:
        raise DeviceError(f"cuBLAS cannot be loaded ({str(error).splitlines()[0]})") from error
