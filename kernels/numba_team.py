"""Threads that work on one mini-batch: who does what, and how they wait for each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from fastnn.kernels.numba_sigma import FLAGS

Board = Any  # int64, one for a team

# On cache lines of their own: how many have arrived, how often all have met, and whether not all
# will ever come.
_ARRIVED, _MEETINGS, _ABANDONED, _SIZE = 0, 8, 16, 24
# So often a thread looks before it lets others have its processor. Two that have come to be on the
# same one must keep it busy for a while: else the system sees no reason to move one to another.
_PATIENCE = 20_000

_yield_processor = types.ExternalFunction("sched_yield", types.int32())


def new_board() -> Any:
    """Return what a team meets at."""
    return np.zeros(_SIZE, np.int64)


def abandon(board: Any) -> None:
    """Let nobody wait any longer; what they are at is then of no use."""
    board[_ABANDONED] = 1


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    board = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(board.data, [arguments[1]])


@intrinsic
def _atomic_add(typing, board, place, number):  # type: ignore[no-untyped-def]
    """Add, and return what was there before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature, arguments)
        return builder.atomic_rmw("add", pointer, arguments[2], "seq_cst")

    return types.int64(board, types.int64, types.int64), generate


@intrinsic
def _atomic_load(typing, board, place):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature, arguments)
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(board, types.int64), generate


@njit(**FLAGS)
def meet(board: Board, team: int) -> None:
    """Wait until all of the team are here; what they wrote before is then seen by all."""
    if team == 1:
        return
    meetings = _atomic_load(board, _MEETINGS)
    if _atomic_add(board, _ARRIVED, 1) == team - 1:
        _atomic_add(board, _ARRIVED, -team)
        _atomic_add(board, _MEETINGS, 1)
        return
    looks = 0
    while _atomic_load(board, _MEETINGS) == meetings:
        looks += 1
        if looks > _PATIENCE:
            if _atomic_load(board, _ABANDONED):
                return
            _yield_processor()


@njit(**FLAGS)
def share(items: int, rank: int, team: int) -> tuple[int, int]:
    """Return the first of the items that are a thread's, and the one behind its last."""
    return items * rank // team, items * (rank + 1) // team
