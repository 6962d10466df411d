"""Work for several threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Thread

__all__ = ["processors", "together"]


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def together(team: int, work: Callable[[int], None]) -> None:
    """Run work(rank) for every rank of a team, 0 in the calling thread; return when all are done.

    The threads are made for the call, so that whoever meets in it is there, and nobody waits
    anywhere between calls.
    """
    others = [Thread(target=work, args=(rank,)) for rank in range(1, team)]
    for other in others:
        other.start()
    work(0)
    for other in others:
        other.join()
