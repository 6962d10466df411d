"""As much of CuPy as CupyGpu uses, on the host, with streams that put off what they can.

Work waits in its stream until it is asked for: by a host that waits, or by another stream that
waits for an event. So what is not ordered by an event comes out wrong. Kernels run by the emulator,
products by the stand-in of cuBLAS. That the names exist in the real CuPy is tested where that is.
"""

import ctypes
import json
import types
from contextlib import nullcontext
from typing import ClassVar

import numpy as np
from emulated import HostCublas, built, included, three

KERNEL_ARGUMENTS = (np.int32, np.int64, np.float32, np.float64)  # and arrays


class DriverError(RuntimeError):
    pass


class OutOfMemory(MemoryError):
    pass


class Event:
    def __init__(self, disable_timing=False):
        assert disable_timing
        self.mark = None

    def record(self, stream):
        self.mark = Mark(stream)
        stream.queue.append(self.mark)

    def synchronize(self):
        if self.mark:
            self.mark.reach()


class Mark:
    """A place in a stream, and whether all before it is done."""

    def __init__(self, stream):
        self.stream, self.queue, self.reached = stream, stream.queue, False

    def __call__(self):
        self.reached = True

    def reach(self):
        while not self.reached:
            self.queue.pop(0)()


class Stream:
    by_address: ClassVar = {}
    current: ClassVar = []

    def __init__(self, non_blocking=False):
        assert non_blocking, "others' work would wait for ours"
        self.queue, self.ptr = [], id(self)
        self.by_address[self.ptr] = self
        self.captured = None

    def __enter__(self):
        self.current.append(self)

    def __exit__(self, *_):
        self.current.pop()

    def wait_event(self, event):
        mark = event.mark
        if mark is None:
            return
        assert self.captured is None or mark.stream.captured is not None, (
            "a stream that is recorded waits for one that is not"
        )
        # A stream that waits for one that is being recorded is recorded with it.
        if mark.stream.captured is not None and self.captured is None:
            self.begin_capture(mark.stream.captured.mode)
        self.queue.append(mark.reach)

    def synchronize(self):
        assert self.captured is None, "the host waits while recording"
        while self.queue:
            self.queue.pop(0)()

    def begin_capture(self, mode=None):
        self.captured = types.SimpleNamespace(mode=mode, before=self.queue)
        self.queue = []

    def end_capture(self):
        recorded = self.queue
        others = [s for s in self.by_address.values() if s.captured and s is not self]
        for stream in others:
            assert any(getattr(item, "__self__", None) in stream.queue for item in recorded), (
                "a stream was not joined before the recording ended"
            )
        graph = Graph(recorded, {stream: stream.queue for stream in others})
        for stream in (self, *others):
            stream.queue, stream.captured = stream.captured.before, None
        return graph


class Graph:
    def __init__(self, recorded, others):
        self.recorded, self.others = recorded, others

    def upload(self, stream):
        pass

    def launch(self, stream):
        stream.queue.append(self.run)

    def run(self):
        """Do what was recorded, with what went aside as late as it may."""
        marks = {
            m for q in (self.recorded, *self.others.values()) for m in q if isinstance(m, Mark)
        }
        for mark in marks:
            mark.reached = False
        queues = [list(self.recorded), *map(list, self.others.values())]
        for queue in queues:
            for mark in queue:
                if isinstance(mark, Mark):
                    mark.queue = queue
        while queues[0]:
            queues[0].pop(0)()


class Array:
    """An array on the GPU: the host may look at it by get() alone."""

    __array__ = None
    kept: ClassVar = []  # freed memory is CuPy's to give out again, in the order of a stream

    def __init__(self, memory):
        self._memory = memory
        self.kept.append(memory)
        self.shape, self.dtype = memory.shape, memory.dtype
        self.size, self.nbytes, self.ndim = memory.size, memory.nbytes, memory.ndim
        self.data = types.SimpleNamespace(ptr=memory.ctypes.data)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, part):
        return Array(self._memory[part])

    def reshape(self, *shape):
        return Array(self._memory.reshape(*shape))

    def set(self, host, stream):
        assert (host.shape, host.dtype) == (self.shape, self.dtype)
        assert host.flags.c_contiguous
        self._memory[...] = host

    def get(self, stream):
        stream.synchronize()
        return self._memory.copy()


class Function:
    def __init__(self, run, log):
        self.run, self.ptr, self.shared_bytes, self._log = run, id(self), 48 << 10, log
        functions[self.ptr] = self

    def __call__(self, grid, block, args, shared_mem=0, stream=None):
        assert isinstance(grid, tuple)
        assert isinstance(block, tuple)
        assert all(type(n) is int for n in (*grid, *block, shared_mem))
        assert shared_mem <= self.shared_bytes, "more shared memory than was asked for"
        values = []
        for value in args:
            if isinstance(value, Array):
                values.append(ctypes.c_void_p(value.data.ptr))
            else:
                assert type(value) in KERNEL_ARGUMENTS, f"no argument of a kernel: {value!r}"
                values.append(np.ctypeslib.as_ctypes_type(value.dtype)(value))

        def launch():
            addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
            assert self.run(three(grid), three(block), shared_mem, addresses, 0) == 0

        stream.queue.append(launch)


functions = {}


class Module:
    def load(self, code):
        made_from = json.loads(code)
        self.library = ctypes.CDLL(str(built(made_from["source"], made_from["definitions"])))

    def get_function(self, name):
        return Function(getattr(self.library, f"run_{name}"), self)


class QueuedCublas(HostCublas):
    """cuBLAS whose products wait in the streams of their handles."""

    def __init__(self):
        super().__init__()
        self.streams = []

    def cublasCreate_v2(self, handle):
        self.streams.append(None)
        handle._obj.value = len(self.streams)
        return 0

    def cublasSetStream_v2(self, handle, stream):
        self.streams[handle.value - 1] = Stream.by_address[stream.value]
        return 0

    def _gemm(self, number, handle, *arguments):
        mode = self.pointers

        def multiply():
            self.pointers = mode
            HostCublas._gemm(self, number, handle, *arguments)

        self.streams[handle.value - 1].queue.append(multiply)
        return 0


def fake(total=1 << 40):
    """Return a module that stands for CuPy, on a GPU with so much memory."""

    def array(host, order):
        assert Stream.current
        return Array(np.array(host, order=order))

    def empty(shape, dtype):
        assert Stream.current
        if np.prod(shape, dtype=float) * np.dtype(dtype).itemsize > total:
            raise OutOfMemory(f"Out of memory allocating {shape}")
        memory = np.empty(shape, dtype)
        memory.view(np.uint8).fill(0xFF)
        return Array(memory)

    def memcpy(to, source, size, kind, stream):
        Stream.by_address[stream].queue.append(lambda: ctypes.memmove(to, source, size))

    def set_attribute(function, attribute, value):
        assert attribute == 8
        functions[function].shared_bytes = value

    def properties(index):
        return {
            "major": 9,
            "minor": 0,
            "sharedMemPerBlockOptin": 227 << 10,
            "regsPerBlock": 65536,
            "name": b"Fake",
            "totalGlobalMem": total,
        }

    def create(source, name, headers, names):
        assert all(isinstance(text, bytes) for text in (*headers, *names))
        for name, text in zip(names, headers, strict=True):
            source = included(source, name.decode(), text.decode())
        return {"source": source}

    def compile_program(program, options):
        defined = [o[2:].split("=", 1) for o in options if o.startswith("-D")]
        program["definitions"] = dict(defined)

    runtime = types.SimpleNamespace(
        CUDARuntimeError=type("CUDARuntimeError", (RuntimeError,), {}),
        getDeviceProperties=properties,
        driverGetVersion=lambda: 13020,
        runtimeGetVersion=lambda: 13020,
        memGetInfo=lambda: (total, total),
        memcpyAsync=memcpy,
        memcpyDeviceToDevice=3,
        memcpyHostToDevice=1,
    )
    nvrtc = types.SimpleNamespace(
        NVRTCError=type("NVRTCError", (RuntimeError,), {}),
        getVersion=lambda: (13, 0),
        getSupportedArchs=lambda: [75, 80, 90],
        createProgram=create,
        compileProgram=compile_program,
        getCUBIN=lambda program: json.dumps(program).encode(),
        getProgramLog=lambda program: "",
        destroyProgram=lambda program: None,
    )
    cupy, cuda = types.ModuleType("cupy"), types.ModuleType("cupy.cuda")
    vars(cuda).update(
        driver=types.SimpleNamespace(CUDADriverError=DriverError, funcSetAttribute=set_attribute),
        runtime=runtime,
        nvrtc=nvrtc,
        Device=lambda index: nullcontext(),
        Stream=Stream,
        Event=Event,
        alloc_pinned_memory=lambda size: bytearray(size),
        function=types.SimpleNamespace(Module=Module),
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemory),
        cublas=None,
    )
    vars(cupy).update(
        __version__="14.0 (fake)",
        cuda=cuda,
        array=array,
        empty=empty,
        ndarray=Array,
        get_default_memory_pool=lambda: types.SimpleNamespace(free_bytes=lambda: 0),
    )
    return cupy
