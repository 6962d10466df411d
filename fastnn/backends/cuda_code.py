"""CUDA sources to machine code by NVRTC, kept on disk.

The sources need no CUDA headers, which is what installations lack most often. What is kept is named
by all that it was made from, and carries a checksum: a damaged file is made again.
"""

from __future__ import annotations

import hashlib
import logging
from functools import cache
from pathlib import Path

import fastnn.kernels
from fastnn.backends.cuda_gpu import Definitions
from fastnn.cache import cache_folder, write_whole
from fastnn.errors import DeviceError

__all__ = ["compiled", "kernel_source", "machine_code", "options_for"]

HEADER = "cuda_sigma.cuh"
OPTIONS = ("-std=c++17", "-default-device")

_log = logging.getLogger("fastnn")


def kernel_source(name: str) -> str:
    """Return the text of a source in :mod:`fastnn.kernels`."""
    return (Path(fastnn.kernels.__file__).parent / name).read_text(encoding="utf-8")


def machine_code(source: str, definitions: Definitions, capability: tuple[int, int]) -> bytes:
    """Return a source compiled for a GPU, from the cache if it is there.

    Raises
    ------
    DeviceError
        If it does not compile.
    """
    from cupy.cuda import nvrtc

    options = options_for(definitions, _known_to_nvrtc(capability))
    made_from = [kernel_source(source), kernel_source(HEADER), *options, str(nvrtc.getVersion())]
    stamp = hashlib.sha256("\n".join(made_from).encode()).hexdigest()[:32]
    path = cache_folder("cuda") / f"{Path(source).stem}-{stamp}.cubin"
    code = _read(path)
    if code is None:
        code, _ = compiled(source, options)
        _write(path, code)
    return code


def _known_to_nvrtc(capability: tuple[int, int]) -> tuple[int, int]:
    """Return the newest architecture that this compiler knows and this GPU runs the code of."""
    from cupy.cuda import nvrtc

    known = [divmod(arch, 10) for arch in nvrtc.getSupportedArchs()]
    fitting = [each for each in known if each[0] == capability[0] and each <= capability]
    if not fitting:
        version = ".".join(map(str, nvrtc.getVersion()))
        raise DeviceError(
            f"NVRTC {version} knows no GPU of compute capability {capability[0]}.{capability[1]}: "
            "another CUDA is needed, as of the extra cuda12 or cuda13"
        )
    return int(max(fitting)[0]), int(max(fitting)[1])


def compiled(source: str, options: tuple[str, ...]) -> tuple[bytes, str]:
    """Return machine code, and what the compiler had to say.

    Raises
    ------
    DeviceError
        If it does not compile.
    """
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(
        kernel_source(source), source, [kernel_source(HEADER).encode()], [HEADER.encode()]
    )
    try:
        nvrtc.compileProgram(program, options)
        return nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program).strip()
        raise DeviceError(f"{source} does not compile ({error}):\n{log}") from error
    finally:
        nvrtc.destroyProgram(program)


def options_for(definitions: Definitions, capability: tuple[int, int]) -> tuple[str, ...]:
    """Return what the compiler is told."""
    defined = (f"-D{name}={value}" for name, value in definitions.items())
    major, minor = capability
    return (f"--gpu-architecture=sm_{major}{minor}", *OPTIONS, *defined)


def _read(path: Path) -> bytes | None:
    """Return the code in a file if it is as it was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == checksum else None


def _write(path: Path, code: bytes) -> None:
    """Keep the code in a file; where that cannot be, go without."""
    try:
        write_whole(path, hashlib.sha256(code).digest() + code)
    except OSError as error:
        _say_once(str(error))


@cache
def _say_once(error: str) -> None:
    _log.warning(
        "fastnn: compiled code cannot be kept (%s); FASTNN_CACHE_DIR names another folder", error
    )
