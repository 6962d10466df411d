"""A GPU of the host: kernels' own sources as C++, one thread after the other; see emulator.h.

Its memory is NumPy's, and fresh memory is full of NaN. What it multiplies goes through
:class:`fastnn.backends.cublas.Cublas` into a stand-in for the library.
"""

import ctypes
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import fastnn.kernels
from fastnn.backends.cublas import Cublas, Matrix
from fastnn.backends.cuda_gpu import Limits
from fastnn.backends.cupy_cuda import CupyBackend
from fastnn.errors import DeviceOutOfMemory

HERE = Path(__file__).parent
KERNELS = Path(fastnn.kernels.__file__).parent
BUILT = Path(tempfile.gettempdir()) / f"fastnn-emulated-{os.getuid()}"
FAILURES = {
    1: "threads wait at different barriers",
    2: "memory beyond the shared one was written",
}
H200 = Limits((9, 0), 227 << 10)


class KernelFailed(AssertionError):
    """What the emulator found wrong."""


def kernel_names(source):
    return re.findall(r'extern "C" __global__ void (?:__launch_bounds__\(.*?\) )?(\w+)\(', source)


def built(source, definitions):
    """Return a source of a kernel as a library, compiled or from an earlier time."""
    shared = re.search(r"extern __shared__ (\w+) shared_memory", source)[1]
    names = kernel_names(source)
    program = "\n".join(
        [
            '#include "emulator.h"',
            source,
            f"SHARED_MEMORY({shared})",
            *map("KERNEL({})".format, names),
        ]
    )
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    parts = [program, *options, (HERE / "emulator.h").read_text(), header()]
    stamp = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    library = BUILT / f"{stamp}.so"
    if not library.exists():
        BUILT.mkdir(exist_ok=True)
        made = library.with_suffix(f".{os.getpid()}")
        flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-w"]
        where = [f"-I{HERE}", f"-I{KERNELS}"]
        command = ["g++", *flags, *where, *options, "-x", "c++", "-", "-o", str(made)]
        done = subprocess.run(command, input=program, capture_output=True, text=True)
        if done.returncode:
            raise KernelFailed(done.stderr)
        made.replace(library)
    return ctypes.CDLL(str(library))


def header():
    return (KERNELS / "cuda_sigma.cuh").read_text(encoding="utf-8")


class EmulatedGpu:
    """See :class:`fastnn.backends.cuda_gpu.Gpu`.

    Parameters
    ----------
    limits
        Of the GPU that it stands for.
    memory
        Bytes that it has.
    order
        In which the threads of a block run: 0 ascending, 1 descending, else shuffled by this seed.
    changed
        Makes another source of a source, to see whether that is noticed.
    """

    description = "an emulated GPU"

    def __init__(self, limits=H200, memory=1 << 40, order=0, changed=lambda source: source):
        self.limits, self.memory, self.order, self.changed = limits, memory, order, changed
        self.launches = []
        self._cublas = Cublas(HostCublas(), stream=0, workspace=0, tf32=False)
        self._recording = None

    def asarray(self, host):
        return self._taken(np.array(host, order="C"))

    def to_numpy(self, array):
        assert self._recording is None
        return array.copy()

    def empty(self, shape, dtype):
        array = self._taken(np.empty(shape, dtype))
        array.view(np.uint8).fill(0xFF)
        return array

    def _taken(self, array):
        assert self._recording is None, "memory was asked for while recording"
        if array.nbytes > self.memory:
            raise DeviceOutOfMemory(f"{array.nbytes} bytes")
        return array

    def copy(self, source, out):
        assert (source.size, source.dtype) == (out.size, out.dtype)
        self._do(lambda: out.reshape(-1).__setitem__(slice(None), source.reshape(-1)))

    def address(self, array):
        assert array.flags.c_contiguous
        return array.ctypes.data

    def free_memory(self):
        return self.memory, self.memory

    def kernel(self, source, name, definitions, shared_bytes=0):
        assert shared_bytes <= self.limits.shared_memory
        text = self.changed((KERNELS / source).read_text(encoding="utf-8"))
        return name, getattr(built(text, definitions), f"run_{name}")

    def launch(self, kernel, grid, block, shared_bytes, *arguments):
        name, function = kernel
        assert np.prod(block) <= 1024
        values = [
            ctypes.c_void_p(self.address(value))
            if isinstance(value, np.ndarray)
            else np.ctypeslib.as_ctypes_type(value.dtype)(value)
            for value in arguments
        ]
        kept = [value for value in arguments if isinstance(value, np.ndarray)]

        def run():
            addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
            failure = function(three(grid), three(block), int(shared_bytes), addresses, self.order)
            if failure:
                raise KernelFailed(f"{name}: {FAILURES[failure]}")
            assert kept is not None  # what a recorded launch reads must live

        self.launches.append(name)
        self._do(run)

    def gemm(self, a, b, out, transpose_a, transpose_b, alpha, beta):
        matrices = [Matrix(self.address(each), *each.shape) for each in (a, b, out)]
        factors = [
            self.address(factor) if isinstance(factor, np.ndarray) else float(factor)
            for factor in (alpha, beta)
        ]
        kept = a, b, out, alpha, beta

        def multiply():
            assert kept is not None
            self._cublas.gemm(out.dtype, *matrices, transpose_a, transpose_b, *factors)

        self._do(multiply)

    def slots(self, rows):
        half = len(rows) // 2
        return EmulatedSlot(self, rows[:half]), EmulatedSlot(self, rows[half:])

    def recorded(self, work):
        self._recording = []
        work()
        recorded, self._recording = self._recording, None

        def replay():
            for each in recorded:
                each()

        return replay

    def _do(self, work):
        if self._recording is None:
            work()
        else:
            self._recording.append(work)

    def synchronize(self):
        assert self._recording is None


class EmulatedSlot:
    """Copies as late as it may: what was put into the host's piece too early is seen."""

    def __init__(self, gpu, rows):
        self.host, self._rows = np.empty_like(rows), rows
        self._free, self._count = True, 0

    def wait(self):
        self._free = True

    def send(self, count):
        assert self._free, "the host wrote before its piece was sent"
        self._free = False
        self._rows[:count] = self.host[:count]
        self._rows[count:].view(np.uint8).fill(0xFF)

    def release(self):
        pass


class HostCublas:
    """The functions of cuBLAS that are called, on the host, in columns as it sees them."""

    def __init__(self):
        self.pointers = 0

    def cublasCreate_v2(self, handle):
        handle._obj.value = 1
        return 0

    def cublasSetStream_v2(self, handle, stream):
        return 0

    def cublasSetWorkspace_v2(self, handle, address, size):
        return 0

    def cublasSetMathMode(self, handle, mode):
        return 0

    def cublasSetPointerMode_v2(self, handle, mode):
        self.pointers = mode.value
        return 0

    def cublasSgemm_v2(self, *arguments):
        return self._gemm(ctypes.c_float, *arguments)

    def cublasDgemm_v2(self, *arguments):
        return self._gemm(ctypes.c_double, *arguments)

    def _gemm(self, number, handle, op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        def factor(pointer):
            given = ctypes.cast(pointer, ctypes.POINTER(number)) if self.pointers else pointer._obj
            return given[0] if self.pointers else given.value

        def columns(address, rows, count, leading):
            stored = (number * (leading.value * count)).from_address(address.value)
            return np.ctypeslib.as_array(stored).reshape(count, leading.value).T[:rows]

        m, n, k = m.value, n.value, k.value
        left = columns(a, *((k, m) if op_a.value else (m, k)), lda)
        right = columns(b, *((n, k) if op_b.value else (k, n)), ldb)
        out = columns(c, m, n, ldc)
        product = (left.T if op_a.value else left) @ (right.T if op_b.value else right)
        scale = factor(beta)
        out[...] = factor(alpha) * product + (scale * out if scale else 0)
        return 0


def three(shape):
    return (ctypes.c_uint * 3)(*shape, *[1] * (3 - len(shape)))


class EmulatedBackend(CupyBackend):
    """The CUDA device on an emulated GPU; set what it has by making a subclass."""

    name = "cuda"
    has = {}

    @classmethod
    def _open(cls, index, tf32):
        return EmulatedGpu(**cls.has)

    @classmethod
    def unavailable(cls, index=None):
        return None if index in (None, 0) else "there is one emulated GPU"

    @classmethod
    def checks(cls, index=None):
        return ()
