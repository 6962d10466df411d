"""A GPU of the host: kernels' own sources as C++, one thread after the other; see emulator.cpp.

Its memory is NumPy's, and fresh memory is full of NaN. What it multiplies goes through
:class:`fastnn.backends.cublas.Cublas` into a stand-in for the library.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from filelock import FileLock

import fastnn.kernels
from fastnn.backends.cublas import Cublas, Matrix
from fastnn.backends.cuda_code import HEADER
from fastnn.backends.cuda_gpu import Limits
from fastnn.backends.cupy_cuda import CupyBackend
from fastnn.errors import DeviceOutOfMemory

HERE = Path(__file__).parent
KERNELS = Path(fastnn.kernels.__file__).parent
BUILT = Path(tempfile.gettempdir()) / f"fastnn-emulated-{os.getuid()}"
FAILURES = {
    1: "threads wait at different barriers",
    2: "memory beyond the shared one was written",
    3: "a lane takes part in a shuffle that its mask leaves out",
    4: "two threads touch the same memory with no barrier in between",
    5: "memory is touched that was not given to the kernel",
    6: "numbers are read or written at once from where such a group does not begin",
}
H200 = Limits((9, 0), 227 << 10)


if shutil.which("g++") is None and "g++" not in os.environ.get("FASTNN_REQUIRE", "").split(","):
    pytest.skip("no g++ to emulate a GPU with", allow_module_level=True)


class KernelFailed(AssertionError):
    """What the emulator found wrong."""


def kernel_names(source):
    return re.findall(r'extern "C" __global__ void (?:__launch_bounds__\(.*?\) )?(\w+)\(', source)


def source_of(name):
    """Return the text of a kernels' source, with that of the header in its place."""
    source, header = ((KERNELS / each).read_text(encoding="utf-8") for each in (name, HEADER))
    return included(source, HEADER, header)


def included(source, name, header):
    return source.replace(f'#include "{name}"', header)


def built(source, definitions, watched=False):
    """Return where a source of a kernel lies as a library, compiled or from an earlier time.

    Parameters
    ----------
    source
        Its text.
    definitions
        What it is compiled with.
    watched
        Whether it tells the emulator what memory it touches.
    """
    shared = re.search(r"extern __shared__ (\w+) shared_memory", source)[1]
    names = kernel_names(source)
    program = "\n".join(
        ['#include "emulator.h"', source, f"MEMORY({shared})", *map("KERNEL({})".format, names)]
    )
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    options += ["-Og", *(["-fsanitize=thread,alignment"] if watched else [])]
    seen = [(HERE / "emulator.h").read_text(), str(emulator())]
    return compiled(program, [*options, f"-I{HERE}"], [str(emulator())], seen)


@cache
def emulator():
    options = ["-O2", "-U_FORTIFY_SOURCE", f"-I{HERE}"]  # which knows nothing of fibers' stacks
    program = (HERE / "emulator.cpp").read_text()
    return compiled(program, options, [], [(HERE / "emulator.h").read_text()])


def compiled(program, options, libraries, seen):
    """Return where a C++ program lies as a library; `seen` is all else that it is made of."""
    options = ["-std=c++17", "-ffp-contract=off", "-fPIC", "-w", *options]
    stamp = hashlib.sha256("\n".join([program, *options, *seen]).encode()).hexdigest()[:32]
    library = BUILT / f"{stamp}.so"
    if not library.exists():
        BUILT.mkdir(exist_ok=True)
        # Processes that test side by side want the same ones: who comes second waits.
        with (
            FileLock(BUILT / f"{stamp[:2]}.lock"),
            tempfile.TemporaryDirectory(dir=BUILT) as folder,
        ):
            if library.exists():
                return library
            # In two steps: linked with -fsanitize it would be watched by the compiler's own.
            code, made = Path(folder, "code.o"), Path(folder, "made.so")
            run(["g++", *options, "-c", "-x", "c++", "-", "-o", str(code)], program)
            run(["g++", "-shared", str(code), *libraries, "-o", str(made)])
            made.replace(library)
    return library


def run(command, given=""):
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    if done.returncode:
        raise KernelFailed(done.stderr)


def build(works):
    """Call what builds libraries, as many at a time as there are processors."""
    emulator()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [pool.submit(work) for work in works]:
            done.result()


def aligned(shape, dtype):
    """Return an array of undefined content that begins where a GPU's memory would."""
    size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 256, np.uint8)
    first = -raw.ctypes.data % 256
    return raw[first : first + size].view(dtype).reshape(shape)


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
    watched
        Whether each access of a kernel to memory is looked at; see emulator.cpp.

    Attributes
    ----------
    launches
        The names of the kernels that were launched or recorded, in turn.
    recordings
        How many recordings were made.
    """

    description = "an emulated GPU"

    def __init__(
        self,
        limits=H200,
        memory=1 << 40,
        order=0,
        changed=lambda source: source,
        watched=False,
    ):
        self.limits, self.memory, self.order, self.changed = limits, memory, order, changed
        self.watched = watched
        self.launches, self.recordings = [], 0
        self._cublas = Cublas(HostCublas(), stream=0, workspace=0, tf32=False)
        self._recording = None
        self._later = []
        self._taken = {}
        self._slots = []

    def asarray(self, host):
        host = np.asarray(host)
        array = self._take(host.nbytes, lambda: aligned(host.shape, host.dtype))
        array[...] = host
        return array

    def to_numpy(self, array):
        assert self._recording is None
        self._receive()
        return array.copy()

    def empty(self, shape, dtype):
        size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        array = self._take(size, lambda: aligned(shape, dtype))
        spoil(array)
        return array

    def _take(self, size, make):
        assert self._recording is None, "memory was asked for while recording"
        free, total = self.free_memory()
        if size > free:
            raise DeviceOutOfMemory(f"{free} of {total} bytes are free; {size} were asked for")
        array = make()
        key, begin = object(), array.ctypes.data
        self._taken[key] = begin, begin + array.nbytes
        weakref.finalize(array, self._taken.pop, key).atexit = False
        return array

    def copy(self, source, out):
        assert (source.size, source.dtype) == (out.size, out.dtype)
        self._do(lambda: out.reshape(-1).__setitem__(slice(None), source.reshape(-1)))

    def address(self, array):
        assert array.flags.c_contiguous
        return array.ctypes.data

    def free_memory(self):
        return self.memory - sum(end - begin for begin, end in self._taken.values()), self.memory

    def kernel(self, source, name, definitions, shared_bytes=0):
        assert shared_bytes <= self.limits.shared_memory
        library = built(self.changed(source_of(source)), definitions, self.watched)
        return name, getattr(ctypes.CDLL(str(library)), f"run_{name}")

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
            assert kept is not None  # what a recorded launch reads must live
            addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
            library = ctypes.CDLL(str(emulator()))
            if self.watched:
                mine = np.array(sorted(self._taken.values()), np.uintp)
                library.give(len(mine), ctypes.c_void_p(mine.ctypes.data))
            failure = function(three(grid), three(block), int(shared_bytes), addresses, self.order)
            if failure:
                library.what_was_said.restype = ctypes.c_char_p
                said = f" ({library.what_was_said().decode()})" if self.watched else ""
                raise KernelFailed(f"{name}: {FAILURES[failure]}{said}")

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

    def aside(self, work):
        """Enqueue work as early as it may run, or as late: it must not matter."""
        if self.order % 2:
            self._later.append(work)
        else:
            work()

    def join(self):
        later, self._later = self._later, []
        for work in later:
            work()

    def recorded(self, work):
        self._recording = []
        self.recordings += 1
        work()
        recorded, self._recording = self._recording, None

        def replay():
            self._receive()
            for each in recorded:
                each()

        return replay

    def _do(self, work):
        if self._recording is None:
            self._receive()
            work()
        else:
            self._recording.append(work)

    def _receive(self):
        """Do the copies from the host that were sent."""
        while self._slots:
            self._slots.pop().arrive()

    def synchronize(self):
        assert self._recording is None
        assert not self._later
        self._receive()


class EmulatedSlot:
    """Copies as late as it may, and fills with ones what may no longer, or not yet, be read."""

    def __init__(self, gpu, rows):
        self.host, self._rows, self._gpu = np.empty_like(rows), rows, gpu
        self._waited = self._released = True
        self._sent = None  # how many rows, and what the piece held

    def wait(self):
        self.arrive()
        self._waited = True
        spoil(self.host)

    def send(self, count):
        assert self._waited, "the host wrote before its piece was sent"
        assert self._released, "rows are replaced that are still read"
        assert self._gpu._recording is None
        self._waited = self._released = False
        self._sent = count, self.host.tobytes()
        self._gpu._slots.append(self)

    def arrive(self):
        if self._sent:
            (count, before), self._sent = self._sent, None
            assert self.host.tobytes() == before, "the host wrote before its piece was sent"
            self._rows[:count] = self.host[:count]

    def release(self):
        assert not self._sent, "what was sent was never read"
        self._released = True
        spoil(self._rows)


def spoil(array):
    array.reshape(-1).view(np.uint8).fill(0xFF)


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

    def cublasDestroy_v2(self, handle):
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
    """The CUDA device on an emulated GPU; a subclass says what that has."""

    name = "cuda"
    has: ClassVar = {}

    @classmethod
    def _open(cls, index, tf32):
        return EmulatedGpu(**cls.has)

    @classmethod
    def unavailable(cls, index=None):
        return None if index in (None, 0) else "there is one emulated GPU"

    @classmethod
    def checks(cls, index=None):
        return ()
