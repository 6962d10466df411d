"""What can go wrong by a user's doing, one class a kind, each with its exit code.

Every message is one or more plain sentences that say what was wrong and what to do. The command
line prints it behind ``fastnn:`` and ends with the class's ``exit_code``; a library user catches
the class, or :class:`FastnnError` for all of them.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Collection

__all__ = [
    "ArgumentError",
    "DataError",
    "DeviceError",
    "DeviceOutOfMemory",
    "DeviceUnavailable",
    "Diverged",
    "FastnnError",
    "ModelError",
    "OutputError",
    "did_you_mean",
    "known_name",
]


class FastnnError(Exception):
    """Base of all errors of this package."""

    exit_code = 1


class OutputError(FastnnError, OSError):
    """A file that was to be written cannot be written."""


class ArgumentError(FastnnError, ValueError):
    """An argument or a combination of arguments makes no sense."""

    exit_code = 2


class DeviceError(FastnnError, RuntimeError):
    """The device that was asked for is unknown or cannot be used."""

    exit_code = 3


class DeviceUnavailable(DeviceError):
    """The device that was asked for is known, but cannot be used here."""


class DeviceOutOfMemory(DeviceError, MemoryError):
    """The device's memory does not hold what was to be put there."""

    exit_code = 1


class DataError(FastnnError, ValueError):
    """Data are missing, malformed, or do not fit the network."""

    exit_code = 4


class ModelError(FastnnError, ValueError):
    """A model file is missing, malformed, or of a kind this version cannot read."""

    exit_code = 4


class Diverged(FastnnError, ArithmeticError):
    """Training left the finite numbers."""

    exit_code = 5


def known_name(kind: str, name: object, known: Collection[str]) -> str:
    """Return the name if it is a known one, else raise an ArgumentError that helps."""
    if isinstance(name, str) and name in known:
        return name
    raise ArgumentError(did_you_mean(kind, str(name), known))


def did_you_mean(kind: str, name: str, known: Collection[str]) -> str:
    """Return the sentences for an unknown name: the nearest known one, if any, and all."""
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {reprlib.repr(name)}.{hint}  known: {', '.join(known)}"
