"""How many threads share a piece of work, how they are set to it, and how others come to rest."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from glob import glob
from pathlib import Path
from threading import Lock, Thread, get_native_id
from time import perf_counter, sleep
from typing import Any

__all__ = ["OWN_BLAS", "come_to_rest", "processors", "team", "together", "using"]

OWN_BLAS = "scipy_openblas32"  # the package, and so a part of its library's path
# So often it is looked whether other threads still work, and for so long at the most, in seconds.
LOOK, REST = 0.001, 0.15

_forced: ContextVar[int | None] = ContextVar("threads", default=None)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def using(threads: int | None) -> Iterator[None]:
    """Have everything until the end of the block done by so many threads; None: by what pays.

    That goes for the BLAS of NumPy and SciPy too, of which there is one for all: blocks that run
    at the same time leave it at the number that the last of them asked for. Our own BLAS has a
    single thread.
    """
    if threads is None:
        yield
        return
    token = _forced.set(threads)
    _limit.enter(threads)
    try:
        yield
    finally:
        _limit.leave()
        _forced.reset(token)


class _Limit:
    """The number of threads of the others' BLAS: set by each block, put back by the last."""

    def __init__(self) -> None:
        self._lock, self._blocks = Lock(), 0
        self._before: list[tuple[Any, int]] = []

    def enter(self, threads: int) -> None:
        with self._lock:
            if not self._blocks:
                self._before = [(library, library.num_threads) for library in _others_blas()]
            self._blocks += 1
            for library, _ in self._before:
                library.set_num_threads(threads)

    def leave(self) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                for library, number in self._before:
                    library.set_num_threads(number)


_limit = _Limit()


def _others_blas() -> list[Any]:
    """Return the BLAS of NumPy, and SciPy's if it is loaded, as threadpoolctl holds them."""
    from threadpoolctl import ThreadpoolController

    return [
        library
        for library in ThreadpoolController().lib_controllers
        if library.user_api == "blas" and OWN_BLAS not in library.filepath
    ]


def come_to_rest() -> None:
    """Leave the processors to the calling thread, as far as this process goes.

    The threads of a BLAS look out for more work for a while, OpenBLAS's for a tenth of a second
    after a product, and would take a processor from whoever is timed next. OpenBLAS's are sent
    home, unless there is another thread of Python's. All others that work are waited for, 0.15 s at
    the most, where the system tells of them.
    """
    if _others_work() is False:
        return
    # While another thread is at a product this might never return. Windows has other code for it.
    if os.name == "posix" and len(sys._current_frames()) == 1:
        for library in _others_blas():
            # What OpenBLAS itself does before a process forks; the next product has them again.
            if send_home := getattr(library.dynlib, "blas_thread_shutdown_", None):
                send_home()
    end = perf_counter() + REST
    while _others_work() and perf_counter() < end:
        sleep(LOOK)


def _others_work() -> bool | None:
    """Return whether another thread of this process works, or None if the system does not tell."""
    stats, this = glob("/proc/self/task/*/stat"), f"/{get_native_id()}/"
    for stat in stats:
        with suppress(OSError):  # it has ended
            state = Path(stat).read_text(encoding="utf-8").rpartition(") ")[2][0]
            if state == "R" and this not in stat:
                return True
    return False if stats else None


def team(work: int, worth: int) -> int:
    """Return how many threads take a share: as :func:`using` says, else as many as pay.

    Parameters
    ----------
    work, worth
        How much there is to do, and of how much another thread is worth the while.
    """
    return _forced.get() or max(1, min(processors(), work // worth))


def together(team: int, work: Callable[[int], None]) -> None:
    """Run work(rank) for every rank of a team, 0 in the calling thread; return when all are done.

    The threads are made for the call: all of a team are there, so that they can wait for each
    other, and between calls nobody waits for anything.
    """
    if team == 1:
        work(0)
        return
    places = _places(team)

    def share(rank: int) -> None:
        if places:
            _move_to(places[rank])
        work(rank)

    others = [Thread(target=share, args=(rank,)) for rank in range(1, team)]
    for other in others:
        other.start()
    share(0)
    for other in others:
        other.join()


def _places(team: int) -> list[int]:
    """Return a processor for each of a team, the calling thread's own first; none if too few.

    A system does not always start a thread on a processor that is idle, and on virtual machines,
    where an idle one counts as taken away, it may leave two on the same for many milliseconds.
    """
    if not hasattr(os, "sched_setaffinity") or (getcpu := _getcpu()) is None:
        return []
    allowed, here = sorted(os.sched_getaffinity(0)), getcpu()
    if len(allowed) < team or here not in allowed:
        return []
    first = allowed.index(here)
    return [allowed[(first + rank) % len(allowed)] for rank in range(team)]


@cache
def _getcpu() -> Callable[[], int] | None:
    """Return what tells which processor the calling thread is on, where the C library has it."""
    try:
        return ctypes.CDLL(None).sched_getcpu
    except (AttributeError, OSError, TypeError):
        return None


def _move_to(processor: int) -> None:
    """Bring the calling thread to a processor, from where the system may move it on."""
    getcpu = _getcpu()
    if getcpu is not None and getcpu() == processor:
        return
    allowed = os.sched_getaffinity(0)
    with suppress(OSError):  # the processor may be forbidden by now
        try:
            os.sched_setaffinity(0, {processor})
        finally:
            os.sched_setaffinity(0, allowed)
