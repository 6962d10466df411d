"""Why CUDA can or cannot be used here: what is looked at, what was found, and what mends it.

CuPy says "driver version is insufficient" where there is no driver at all, and is told of most that
is wrong by an exception far from its cause. So the driver itself is asked, through ctypes.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from ctypes import byref, c_size_t, c_uint64, c_void_p
from functools import cached_property
from importlib import import_module, metadata
from importlib.util import find_spec
from itertools import islice
from typing import NamedTuple

from fastnn.backends.base import Check
from fastnn.backends.cuda_driver import (
    ANOTHERS,
    COMPUTE_MODE,
    DEVICE_UNAVAILABLE,
    INVALID_DEVICE,
    Card,
    Driver,
    Wrong,
)
from fastnn.cache import cache_folder

__all__ = ["checks", "unavailable"]


class _Needs(NamedTuple):
    """What CuPy for a CUDA needs."""

    release: int  # of NVIDIA's driver, at least
    capability: tuple[int, int]  # of the GPU, at least


_NEEDS = {13: _Needs(580, (7, 5)), 12: _Needs(525, (5, 0))}

# All distributions that bring a module `cupy`, as CuPy itself knows them. To ask for each by name
# takes a millisecond; to go through all that is installed would take a hundred.
_DISTRIBUTIONS = (
    "cupy",
    *(f"cupy-cuda{cuda}" for cuda in ("13x", "12x", "11x", "102", *range(110, 118))),
    *(f"cupy-rocm-{rocm}" for rocm in ("4-0", "4-2", "4-3", "5-0", "7-0", "7-1", "7-14")),
    "amd-cupy",
)

_ELSE = "use --device cpu"
_COMPUTE_MODES = {
    2: ("its compute mode lets no program use it", "sudo nvidia-smi --compute-mode=DEFAULT"),
    3: ("another process has taken it for itself alone", ANOTHERS),
}


def checks(index: int | None) -> Iterator[Check]:
    """Look at all that CUDA needs, one after the other; what needs what is missing is left out.

    This imports CuPy and takes a context on the GPU, for a moment.

    Parameters
    ----------
    index
        Which GPU; None for the first.
    """
    return _looked_at(_Probe(index))


def unavailable(index: int | None) -> str | None:
    """Return None, or what is missing, and what mends it. Cheap; never raises.

    Where several things are, it is the driver first: CuPy is of no use without.
    """
    failed = [check for check in islice(_looked_at(_Probe(index)), _CHEAP) if not check.ok]
    failed.sort(key=lambda check: check.name != "NVIDIA driver")
    return failed[0].sentence if failed else None


class _Probe:
    """What is looked at; each method says what it found, or raises what is wrong."""

    def __init__(self, index: int | None) -> None:
        self._index = index or 0

    def cupy(self) -> str:
        """Exactly one CuPy is installed, for a CUDA that we know."""
        found = self._distributions
        module = find_spec("cupy")
        there = module is not None and module.origin is not None
        if len(found) > 1:
            both = " and ".join(found)
            raise Wrong(f"{both} are installed at once and spoil each other", self._another())
        if not found and not there:
            raise Wrong("CuPy is not installed", self._another())
        if not there:
            raise Wrong(f"files of {next(iter(found))} are missing", self._another())
        if not found:
            return "one that pip has not installed"
        ((name, version),) = found.items()
        if name != "cupy" and self._major is None:
            raise Wrong(f"{name} is not for CUDA 12 or 13", self._another())
        return f"{name} {version}"

    def driver(self) -> str:
        """The driver is there, works, and is new enough for CuPy."""
        if sys.platform == "darwin":
            raise Wrong("there is no CUDA for macOS", _ELSE)
        version = 0
        with suppress(OSError):
            version = self._version
        if not version:
            raise Wrong(
                "no NVIDIA driver was found",
                "install NVIDIA's driver; a container has the host's if started with --gpus all",
            )
        upto = f"CUDA {version // 1000}.{version % 1000 // 10}"
        if self._major is not None and version < 1000 * self._major:
            newer = f"install NVIDIA's driver {_NEEDS[self._major].release} or newer"
            older = self._another() if version >= 1000 * min(_NEEDS) else None
            raise Wrong(
                f"the driver knows {upto} at most, and CuPy is for CUDA {self._major}",
                f"{older}, or {newer}" if older else newer,
            )
        self._library.initialised()
        return f"knows {upto} and what is older"

    def gpus(self) -> str:
        """The GPU that is asked for is there, and new enough for CuPy."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if not self._gpus:
            if visible is None:
                raise Wrong("the driver sees no GPU", "nvidia-smi -L lists those that there are")
            raise Wrong(
                f"no GPU is visible, since CUDA_VISIBLE_DEVICES is {visible!r}",
                "unset CUDA_VISIBLE_DEVICES",
            )
        listed = "; ".join(
            f"cuda:{number} {gpu.name}, compute capability {_dotted(gpu.capability)}, "
            f"{_gib(gpu.memory)}"
            for number, gpu in enumerate(self._gpus)
        )
        if visible is not None:
            listed += f"; CUDA_VISIBLE_DEVICES is {visible!r}, and cuda:0 the first of that list"
        if self._index >= len(self._gpus):
            raise Wrong(f"there is no cuda:{self._index}, only {listed}", "use --device cuda:0")
        capability, older = self._gpus[self._index].capability, min(_NEEDS)
        if self._major is not None and capability < (least := _NEEDS[self._major].capability):
            raise Wrong(
                f"cuda:{self._index} has compute capability {_dotted(capability)}, and CuPy for "
                f"CUDA {self._major} needs {_dotted(least)}",
                self._another(older) if capability >= _NEEDS[older].capability else _ELSE,
            )
        return listed

    def libraries(self) -> str:
        """What CuPy loads and does not bring: the compiler and the products of matrices."""
        if self._major is None:
            return "those that this CuPy was built for"
        for label, name in (("NVRTC", "nvrtc"), ("cuBLAS", "cublas")):
            try:
                _load(name, self._major)
            except OSError as error:
                raise Wrong(
                    f"{label} cannot be loaded: {_line(error)}", _install(self._major)
                ) from None
        return "NVRTC and cuBLAS"

    def imported(self) -> str:
        """CuPy can be imported."""
        try:
            return f"CuPy {import_module('cupy').__version__}"
        except Exception as error:  # CuPy names what it was as the cause of a page of advice
            reason = _line(error.__cause__ or error)
            raise Wrong(f"CuPy cannot be imported: {reason}", self._another()) from None

    def gpu(self) -> str:
        """The GPU can be had: a context on it, and some of its memory."""
        driver = self._library
        device, context = driver.whole("cuDeviceGet", self._index), c_void_p()
        try:
            driver.call("cuDevicePrimaryCtxRetain", byref(context), device)
            try:
                free, total = self._memory(context)
            finally:
                with suppress(Wrong):
                    driver.call("cuDevicePrimaryCtxRelease_v2", device)
        except Wrong as wrong:
            if wrong.code in (DEVICE_UNAVAILABLE, INVALID_DEVICE):
                mode = driver.whole("cuDeviceGetAttribute", COMPUTE_MODE, device)
                if mode in _COMPUTE_MODES:
                    cause, remedy = _COMPUTE_MODES[mode]
                    raise Wrong(f"cuda:{self._index} cannot be had: {cause}", remedy) from None
            raise Wrong(f"cuda:{self._index} cannot be had, {wrong.detail}", wrong.remedy) from None
        return f"cuda:{self._index} can be had, {_gib(free)} of its {_gib(total)} are free"

    def cache(self) -> str:
        """Whether compiled code is kept: nothing fails without."""
        try:
            folder = cache_folder("cuda")
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return f"compiled code is kept in {folder}"
        except Exception as error:
            return (
                f"compiled code cannot be kept and is compiled again at every start "
                f"({_line(error)}); FASTNN_CACHE_DIR names another folder"
            )

    def _memory(self, context: c_void_p) -> tuple[int, int]:
        """Take some memory in a context and give it back; return how much is free, of how much."""
        driver, free, total, taken = self._library, c_size_t(), c_size_t(), c_uint64()
        driver.call("cuCtxPushCurrent_v2", context)
        try:
            driver.call("cuMemGetInfo_v2", byref(free), byref(total))
            driver.call("cuMemAlloc_v2", byref(taken), c_size_t(1 << 20))
            driver.call("cuMemFree_v2", taken)
        finally:
            with suppress(Wrong):
                driver.call("cuCtxPopCurrent_v2", byref(c_void_p()))
        return free.value, total.value

    def _another(self, major: int | None = None) -> str:
        """Return the command that puts one CuPy in the place of all that are there.

        If it is not said for which CUDA, it is the newest that the driver knows: to ask what the
        GPU goes with would take too long here.
        """
        if major is None:
            major = max(_NEEDS)
            with suppress(Exception):  # there may be no driver to ask
                major = max(each for each in _NEEDS if self._version >= 1000 * each)
        install = _install(major)
        names = " ".join(self._distributions)
        return f"pip uninstall -y {names} && {install}" if names else install

    @cached_property
    def _distributions(self) -> dict[str, str]:
        """The versions of the CuPys that are installed, by name."""
        found = {}
        for name in _DISTRIBUTIONS:
            with suppress(metadata.PackageNotFoundError):
                found[name] = metadata.version(name)
        return found

    @cached_property
    def _major(self) -> int | None:
        """The CUDA that CuPy is for, if it is one wheel for one that we know."""
        known = [f"cupy-cuda{major}x" for major in _NEEDS]
        if len(self._distributions) != 1:
            return None
        (name,) = self._distributions
        return int(re.sub(r"\D", "", name)) if name in known else None

    @cached_property
    def _library(self) -> Driver:
        return Driver()

    @cached_property
    def _version(self) -> int:
        """The CUDA that the driver knows: 13020 is 13.2."""
        return self._library.whole("cuDriverGetVersion")

    @cached_property
    def _gpus(self) -> list[Card]:
        if not self._library.initialised():
            return []
        count = self._library.whole("cuDeviceGetCount")
        return [self._library.gpu(number) for number in range(count)]


# Name, what must have been found for it, and the look itself.
_LOOKS: tuple[tuple[str, set[str], Callable[[_Probe], str]], ...] = (
    ("CuPy", set(), _Probe.cupy),
    ("NVIDIA driver", set(), _Probe.driver),
    ("GPUs", {"NVIDIA driver"}, _Probe.gpus),
    ("libraries", {"CuPy"}, _Probe.libraries),
    ("import", {"libraries", "GPUs"}, _Probe.imported),
    ("GPU", {"CuPy", "GPUs"}, _Probe.gpu),
    ("kernel cache", {"GPU", "import"}, _Probe.cache),
)
# The first so many take nothing of the GPU and do not import CuPy. (They load the libraries, once
# there is a GPU: CuPy does so anyway, and not twice.)
_CHEAP = 4


def _looked_at(probe: _Probe) -> Iterator[Check]:
    good: set[str] = set()
    for name, needs, look in _LOOKS:
        if not needs <= good:
            continue
        try:
            check = Check(name, True, look(probe))
            good.add(name)
        except Wrong as wrong:
            check = Check(name, False, wrong.detail, wrong.remedy)
        except Exception as error:
            check = Check(name, False, f"it cannot be found out: {_line(error)}", None)
        yield check


def _load(name: str, major: int) -> None:
    """Load NVRTC or cuBLAS as CuPy does, or raise OSError.

    CuPy has NVIDIA's package look for them, among the wheels first, and then takes by name what is
    there. So a library for another CUDA than CuPy's does not do.
    """
    with suppress(ImportError, RuntimeError):
        import_module("cuda.pathfinder").load_nvidia_dynamic_lib(name)
    version = f"{major}0_0" if name == "nvrtc" else str(major)
    ctypes.CDLL(f"{name}64_{version}.dll" if os.name == "nt" else f"lib{name}.so.{major}")


def _install(major: int) -> str:
    return f'pip install -e ".[cuda{major}]"'


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
