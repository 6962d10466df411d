"""The compiled code of the Numba device: made once, kept on disk, shared by all processes."""

from __future__ import annotations

import atexit
import hashlib
import logging
import shutil
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import fastnn.kernels
from fastnn.backends.blas import find_blas
from fastnn.cache import cache_folder
from fastnn.errors import DeviceError

__all__ = ["Code", "code", "modules"]

_log = logging.getLogger("fastnn")
_lock = Lock()


class Code(NamedTuple):
    """The modules ``fastnn.kernels.numba_…``, of whose functions those used here are compiled."""

    blas: ModuleType
    epoch: ModuleType
    kernels: ModuleType
    sigma: ModuleType
    team: ModuleType
    tiles: ModuleType


def code(dtype: np.dtype[Any]) -> Code:
    """Return the modules with all that is needed in a precision compiled, or loaded from disk.

    Only one process at a time compiles; others wait, and find it done. Nothing compiles later.
    """
    with _lock:
        return _code(dtype)


@cache
def _code(dtype: np.dtype[Any]) -> Code:
    from filelock import FileLock

    imported, folder = modules()
    blas = find_blas()
    imported.blas.bind(blas.sgemm, blas.dgemm)
    with FileLock(folder / "lock"):
        done = folder / f"{dtype.name}.done"
        if not done.exists():
            _log.warning(
                "fastnn: compiling the numba device for this processor and %s, once; about 10 s",
                dtype.name,
            )
        try:
            for function, signatures in _signatures(imported, dtype):
                function.disable_compile(False)
                for signature in signatures:
                    function.compile(signature)
                function.disable_compile()
            done.touch()
        except Exception as error:  # a full disk, a damaged file
            raise DeviceError(
                f"the numba device's code cannot be made or read ({type(error).__name__}: "
                f"{error}). If there is room on the disk, delete {folder}"
            ) from error
    return imported


@cache
def modules() -> tuple[Code, Path]:
    """Import the modules such that Numba keeps their code in a folder of its own."""
    import numba

    folder, before = _folder(), numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        found = [import_module(f"fastnn.kernels.numba_{name}") for name in Code._fields]
    finally:
        numba.config.CACHE_DIR = before
    return Code(*found), folder


def _folder() -> Path:
    """Return a folder for these sources, this Numba and this processor, which can be written."""
    import numba
    from numba.core.registry import cpu_target

    home = Path(fastnn.kernels.__file__).parent  # by which Numba knows its code again
    sources = sorted(home.glob("*.py"))
    processor = cpu_target.target_context.codegen().magic_tuple()
    made_from = [numba.__version__, str(home), *map(str, processor)]
    stamp = hashlib.sha256("\n".join(made_from).encode())
    for source in sources:
        stamp.update(source.read_bytes())
    folder = cache_folder("numba") / stamp.hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        _log.warning(
            "fastnn: compiled code cannot be kept (%s); FASTNN_CACHE_DIR names another folder",
            error,
        )
    folder = Path(tempfile.mkdtemp(prefix="fastnn-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _signatures(modules: Code, dtype: np.dtype[Any]) -> list[tuple[Any, list[tuple[Any, ...]]]]:
    """Return the functions that are called from Python, with the argument types of each."""
    from numba import from_dtype, types

    number = from_dtype(dtype)
    whole, flag = types.int64, types.boolean

    def read(of: Any, dimensions: int) -> Any:
        return types.Array(of, dimensions, "C", readonly=True)

    def write(of: Any, dimensions: int) -> Any:
        return types.Array(of, dimensions, "C")

    matrix, vector, out = read(number, 2), read(number, 1), write(number, 2)
    flat = write(number, 1)
    order, targets, rows = (
        read(types.int32, 1),
        read(types.uint8, 2),
        (read(types.uint8, 2), matrix),
    )
    layer = from_dtype(modules.epoch.LAYER)
    work = types.NamedTuple(
        (
            flat,
            write(layer, 1),
            write(types.uint8, 1),
            write(types.int32, 1),
            *5 * (whole,),
            write(types.int32, 2),
            write(types.int32, 2),
        ),
        modules.epoch.Work,
    )
    kernels, epoch = modules.kernels, modules.epoch
    # fmt: off
    return [
        (kernels.gather, [(kind, order, whole, whole, number, out) for kind in rows]),
        (modules.blas.matmul, [(matrix, matrix, flag, flag, number, number, out, whole, whole)]),
        (kernels.sum_rows, [(matrix, number, number, flat)]),
        (kernels.activate, [(vector, whole, out)]),
        (kernels.hadamard, [(matrix, whole, out)]),
        (kernels.output_delta, [(matrix, matrix, number, whole, out)]),
        (kernels.momentum, [(flat, flat, vector, number, number, flag, *3 * [number])]),
        (kernels.adam, [(flat, flat, flat, vector, *11 * [number])]),
        (kernels.clip, [(flat, number)]),
        (kernels.drop, [(flat, *3 * [types.uint64], number)]),
        (epoch.pack, [(flat, layer, matrix, vector)]),
        (epoch.unpack, [(flat, layer, out, flat)]),
        (epoch.train, [(kind, number, targets, matrix, order, whole, whole, whole, number, flag,
                        number, whole, whole, whole, work, write(whole, 1), whole, whole)
                       for kind in rows]),
        (epoch.feed, [(kind, number, order, whole, whole, whole, work, write(whole, 1), out)
                      for kind in rows]),
        (epoch.settle, [(work, whole)]),
    ]
    # fmt: on
