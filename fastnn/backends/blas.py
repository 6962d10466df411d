"""The BLAS that compiled code calls: an OpenBLAS of our own, else SciPy's.

One of our own, a copy beside those that NumPy and SciPy bring, has a single thread without a change
to theirs. We share the work out ourselves: OpenBLAS's threads look out for more work for a while
after each call, and would keep the processor from the threads that train.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from fastnn.threads import OWN_BLAS

__all__ = ["Blas", "find_blas"]


class Blas(NamedTuple):
    """Fortran's SGEMM and DGEMM with 32-bit integers."""

    sgemm: int  # its address
    dgemm: int
    detail: str  # for a person
    single: bool  # whether it leaves the sharing out to us


@cache
def find_blas() -> Blas:
    """Return the BLAS for compiled code; loaded once a process."""
    return _own() or _scipys()


def _own() -> Blas | None:
    spec = find_spec(OWN_BLAS)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "lib"
    pattern = {"win32": "libscipy_openblas*.dll", "darwin": "libscipy_openblas*.dylib"}
    found = sorted(folder.glob(pattern.get(sys.platform, "libscipy_openblas*.so")))
    if not found:
        return None
    with _environment(OPENBLAS_NUM_THREADS="1"):
        library = ctypes.CDLL(str(found[0]), mode=os.RTLD_LOCAL if os.name == "posix" else 0)

    def address(name: str) -> int:
        return ctypes.cast(getattr(library, f"scipy_{name}_"), ctypes.c_void_p).value or 0

    core = library.scipy_openblas_get_corename
    core.restype = ctypes.c_char_p
    detail = f"OpenBLAS {version(OWN_BLAS)} ({core().decode()})"
    return Blas(address("sgemm"), address("dgemm"), detail, single=True)


def _scipys() -> Blas:
    import scipy
    from numba.extending import get_cython_function_address

    sgemm, dgemm = (
        get_cython_function_address("scipy.linalg.cython_blas", name) for name in ("sgemm", "dgemm")
    )
    return Blas(sgemm, dgemm, f"the BLAS of SciPy {scipy.__version__}", single=False)


@contextmanager
def _environment(**settings: str) -> Iterator[None]:
    """Change environment variables for a moment."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
