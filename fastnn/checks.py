"""Arguments are checked once, at the boundary; inside, they are trusted."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.errors import ArgumentError

__all__ = [
    "BALANCED",
    "MOST_EPOCHS",
    "MOST_THREADS",
    "fits_memory",
    "function_or_none",
    "is_true",
    "layer_sizes",
    "number_arrays",
    "number_between",
    "positive_number",
    "weights_of_classes",
    "whole_number",
    "yes_or_no",
]

BALANCED = "balanced"  # in place of the classes' weights
MOST_EPOCHS = 1_000_000
MOST_THREADS = 1024


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


def number_between(name: str, value: Any, least: float, below: float = math.inf) -> float:
    """Return the value as a float, or raise an ArgumentError unless least <= value < below."""
    if isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):
            number = float(value)
            if least <= number < below:
                return number
    limits = f"{least:g} or more" if below == math.inf else f"from {least:g} to below {below:g}"
    raise ArgumentError(f"{name} must be a number, {limits}, not {reprlib.repr(value)}")


def weights_of_classes(value: Any) -> str | tuple[float, ...]:
    """Return "balanced", or a number a class, or raise an ArgumentError if it is neither."""
    if isinstance(value, str):
        if value == BALANCED:
            return value
    elif isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim):
        numbers = tuple(number_between("a class's weight", each, 0) for each in value)
        if any(numbers):
            return numbers
    raise ArgumentError(
        f"class_weights must be {BALANCED!r} or a number for each class, 0 or more and not all 0, "
        f"not {reprlib.repr(value)}"
    )


def yes_or_no(name: str, value: Any) -> bool:
    """Return the value as a bool, or raise an ArgumentError if it is another thing, as "no" is."""
    if not isinstance(value, bool | np.bool):
        raise ArgumentError(f"{name} must be True or False, not {reprlib.repr(value)}")
    return bool(value)


def function_or_none(name: str, value: Any) -> None:
    """Raise an ArgumentError if it is neither None nor to be called."""
    if value is not None and not callable(value):
        raise ArgumentError(f"{name} must be a function, or None, not {reprlib.repr(value)}")


def is_true(answer: object) -> bool:
    """Whether it is True, or NumPy's; anything else, such as a count, ends no training."""
    return isinstance(answer, bool | np.bool) and bool(answer)


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


def layer_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the units of every layer, or raise an ArgumentError.

    They are two layers at least, and no more parameters than this machine has room for: drawn in
    float64, and copied in a precision that may be that.
    """
    if not isinstance(sizes, Sequence | np.ndarray):
        raise ArgumentError(f"sizes must be a list of whole numbers, not {sizes!r}")
    checked = tuple(whole_number("a layer's size", size, 1) for size in sizes)
    if len(checked) < 2:
        raise ArgumentError(
            f"a network has an input and an output layer at least, not {list(sizes)}"
        )
    parameters = sum((n_in + 1) * n_out for n_in, n_out in pairwise(checked))
    fits_memory(f"a network of {parameters:,} parameters", 16 * parameters)
    return checked


def number_arrays(what: str, arrays: Sequence[ArrayLike]) -> list[NDArray[Any]]:
    """Return them as arrays, or raise an ArgumentError if they are not of real numbers."""
    try:
        numbers = [np.asarray(array) for array in arrays]
    except (TypeError, ValueError) as error:  # not iterable, or rows of different lengths
        raise ArgumentError(f"{what} must be a list of arrays of numbers: {error}") from None
    if any(array.dtype.kind not in "iuf" for array in numbers):
        raise ArgumentError(f"{what} must be a list of arrays of numbers, real ones")
    return numbers
