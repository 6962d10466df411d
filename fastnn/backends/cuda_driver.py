"""NVIDIA's driver, asked through ctypes, and what its errors mean."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from ctypes import byref, c_char_p, c_int, c_size_t
from typing import Any, NamedTuple

__all__ = [
    "ANOTHERS",
    "COMPUTE_MODE",
    "DEVICE_UNAVAILABLE",
    "INVALID_DEVICE",
    "Card",
    "Driver",
    "Wrong",
]

_NO_DEVICE, INVALID_DEVICE, DEVICE_UNAVAILABLE = 100, 101, 46
ANOTHERS = "nvidia-smi lists the processes that use it; end them, or wait"
_MPS = (
    "the Multi-Process Service does not answer or takes no more",
    "echo quit | nvidia-cuda-mps-control",
)
# What an error of the driver means, and what mends it.
_CAUSES = {
    2: ("the GPU's memory is full", ANOTHERS),
    3: (
        "CUDA had been used in this process before it was forked",
        'call multiprocessing.set_start_method("spawn") first',
    ),
    34: ("a stub was found in the driver's place", "take `stubs` out of LD_LIBRARY_PATH"),
    DEVICE_UNAVAILABLE: ("the GPU is busy or out of reach", ANOTHERS),
    INVALID_DEVICE: ("the GPU is out of reach", ANOTHERS),
    214: ("the GPU's memory has an error that ECC cannot correct", "sudo nvidia-smi --gpu-reset"),
    304: ("the operating system refuses", "ls -l /dev/nvidia* shows who may use the GPU"),
    802: ("the GPUs' switch is not ready", "sudo systemctl start nvidia-fabricmanager"),
    803: ("the driver was updated while it ran", "restart the machine"),
    804: ("CUDA's compatibility package is not for it", "take `compat` out of LD_LIBRARY_PATH"),
    **dict.fromkeys(range(805, 811), _MPS),
    999: ("the driver is in disorder", "restart the machine"),
}

COMPUTE_MODE, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 20, 75, 76


class Wrong(Exception):
    """Something is not as CUDA needs it; ``code`` is the driver's error, if it is one."""

    def __init__(self, detail: str, remedy: str, code: int = 0) -> None:
        super().__init__(detail)
        self.detail, self.remedy, self.code = detail, remedy, code


class Card(NamedTuple):
    """A GPU as the driver describes it."""

    name: str
    capability: tuple[int, int]
    memory: int  # bytes


class Driver:
    """NVIDIA's driver; what it answers with an error raises what that means."""

    def __init__(self) -> None:
        self._library = _driver()

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of the driver, or raise what its error means."""
        code = int(getattr(self._library, function)(*arguments))
        if code:
            cause, remedy = _CAUSES.get(
                code, (f"{function} failed", "nvidia-smi shows whether the driver works")
            )
            raise Wrong(f"{self._name(code)}: {cause}", remedy, code)

    def whole(self, function: str, *arguments: Any) -> int:
        """Return the whole number that a function writes to its first argument."""
        answer = c_int()
        self.call(function, byref(answer), *arguments)
        return answer.value

    def _name(self, code: int) -> str:
        name = c_char_p()
        with suppress(AttributeError):
            self._library.cuGetErrorName(code, byref(name))
        return name.value.decode() if name.value else f"CUDA's error {code}"

    def initialised(self) -> bool:
        """Return whether there is any GPU."""
        try:
            self.call("cuInit", 0)
        except Wrong as wrong:
            if wrong.code == _NO_DEVICE:
                return False
            raise
        return True

    def gpu(self, number: int) -> Card:
        """Return what the driver says of a GPU."""
        device, memory = self.whole("cuDeviceGet", number), c_size_t()
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, len(name), device)
        self.call("cuDeviceTotalMem_v2", byref(memory), device)
        major, minor = (
            self.whole("cuDeviceGetAttribute", attribute, device)
            for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)
        )
        return Card(name.value.decode(errors="replace"), (major, minor), memory.value)


def _driver() -> Any:
    """Return the driver's library, or raise OSError."""
    return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
