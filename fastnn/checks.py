"""Arguments are checked once, at the boundary; inside, they are trusted."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from contextlib import suppress
from numbers import Real
from typing import Any

from fastnn.errors import ArgumentError

__all__ = ["MOST_EPOCHS", "fits_memory", "positive_number", "whole_number"]

MOST_EPOCHS = 1_000_000


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return the value as an int, or raise an ArgumentError that says what it must be."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if (
        number is None
        or isinstance(value, bool)
        or number < least
        or (most is not None and number > most)
    ):
        limits = f"{least} or more" if most is None else f"{least} to {most:,}"
        raise ArgumentError(f"{name} must be a whole number, {limits}, not {reprlib.repr(value)}")
    return number


def positive_number(name: str, value: Any) -> float:
    """Return the value as a float, or raise an ArgumentError unless it is finite and above zero."""
    if isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):
            number = float(value)
            if math.isfinite(number) and number > 0:
                return number
    raise ArgumentError(f"{name} must be a number above 0, not {reprlib.repr(value)}")


def fits_memory(what: str, needed: int) -> None:
    """Raise an ArgumentError if so many bytes exceed this machine's memory, where that is known."""
    try:
        present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return
    if needed > present:
        raise ArgumentError(
            f"{what} would take {needed // 10**9:,} GB of memory; "
            f"this machine has {present // 10**9:,} GB"
        )
