"""Which devices there are, and how a name becomes one.

Built-in devices stand in a table of "module:Class" and are imported when asked for. Others register
an entry point in the group ``fastnn.backends``: its name is the device's, its value the backend's
class. The environment variable FASTNN_DISABLE_PLUGINS=1 leaves them out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from numpy.typing import DTypeLike

from fastnn.backends.base import Backend, Check, checked_dtype
from fastnn.errors import (
    ArgumentError,
    DeviceError,
    DeviceUnavailable,
    FastnnError,
    did_you_mean,
    known_name,
)

__all__ = ["GROUP", "DeviceReport", "anothers_code", "device", "devices", "reasons", "usable"]

GROUP = "fastnn.backends"

BUILT_IN = {
    "cuda": "fastnn.backends.cupy_cuda:CupyBackend",
    "numba": "fastnn.backends.numba_cpu:NumbaBackend",
    "numpy": "fastnn.backends.numpy_cpu:NumpyBackend",
}
# What "cpu" and "auto" try, best first.
CPU = ("numba", "numpy")
AUTO = ("cuda", *CPU)
CHOICES = ("auto", "cpu")
# Of products in float32: as float32 is, or with factors rounded to tf32's 11 bits.
PRECISIONS = ("full", "tf32")


@dataclass(frozen=True)
class DeviceReport:
    """What ``fastnn devices`` says of a device.

    Attributes
    ----------
    name, source, detail
        Its name, where it is from, and what it is.
    reason
        Why it cannot be used, or None where it can.
    checks
        What was looked at to find that out, for a device that says so.
    """

    name: str
    source: Literal["built in", "plug-in"]
    detail: str
    reason: str | None
    checks: tuple[Check, ...] = ()


def device(
    spec: str | Backend = "auto", dtype: DTypeLike | None = None, precision: str = "full"
) -> Backend:
    """Return the backend that a name stands for.

    Parameters
    ----------
    spec
        "auto" (the best usable device), "cpu" (the best one on the CPU), a device's name ("numpy"),
        a name with a number ("cuda:1"), or a backend, which is returned as it is.
    dtype
        "float32" (the default) or "float64".
    precision
        Of products in float32: "full" (the default), or "tf32" on a device that has it, which is
        faster and rounds their factors to 11 bits.

    Raises
    ------
    DeviceError
        If the device is unknown, broken, or cannot be used here. Only "auto" and "cpu" look for
        another.
    ArgumentError
        If dtype is neither of the two, or differs from that of the backend given; if there is no
        such precision.
    """
    if isinstance(spec, Backend):
        if dtype is not None and checked_dtype(dtype) != spec.dtype:
            raise ArgumentError(f"the backend given computes in {spec.dtype}, not in {dtype}")
        return spec
    if not isinstance(spec, str):
        raise ArgumentError(f"a device is a name or a Backend, not {type(spec).__name__}")
    dtype = checked_dtype("float32" if dtype is None else dtype)
    known_name("precision", precision, PRECISIONS)
    if spec in CHOICES:
        return _first_usable(AUTO if spec == "auto" else CPU, dtype, precision)
    name, colon, number = spec.partition(":")
    if name in CHOICES:
        raise DeviceError(f"device {spec!r}: {name} chooses a device and takes no number")
    if colon and not (number.isascii() and number.isdigit() and len(number) < 10):
        raise DeviceError(f"device {spec!r}: behind the colon stands a number, as in 'cuda:1'")
    cls = _load(name)
    index = int(number) if colon else None
    with anothers_code(name):
        reason = cls.unavailable(index)
    if reason is not None:
        raise DeviceUnavailable(
            f"device {spec!r} cannot be used: {reason}\n"
            f"  usable here: {', '.join(usable()) or 'none'}.  "
            "Try --device cpu, or `fastnn devices` for the reasons."
        )
    if precision not in cls.precisions:
        raise ArgumentError(f"device {name!r} has no precision {precision!r}")
    with anothers_code(name):
        if precision == "full":
            return cls(index, dtype)
        with_precision: Callable[..., Backend] = cls
        return with_precision(index, dtype, precision)


def devices() -> list[DeviceReport]:
    """Return a report on every device that is built in or registered, the broken ones included."""
    return [_report(name) for name in _names()]


def reasons() -> dict[str, str | None]:
    """Return why each device cannot be used here, or None; without making one, so in no time."""
    found: dict[str, str | None] = {}
    for name in _names():
        try:
            cls = _load(name)
            with anothers_code(name):
                found[name] = cls.unavailable()
        except FastnnError as error:
            found[name] = str(error)
    return found


def usable() -> list[str]:
    """Return the names of the devices that can be used here: that can be made, too."""
    names = []
    for name in [name for name, reason in reasons().items() if reason is None]:
        with suppress(FastnnError), anothers_code(name):
            _load(name)()
            names.append(name)
    return names


def _names() -> list[str]:
    return [*BUILT_IN, *sorted(_plug_ins().keys() - BUILT_IN.keys())]


def _first_usable(names: tuple[str, ...], dtype: DTypeLike, precision: str) -> Backend:
    reasons = []
    for name in names:
        try:
            return device(name, dtype, precision)
        except (ArgumentError, DeviceError) as error:
            reasons.append(str(error).splitlines()[0])
    raise DeviceUnavailable("no device can be used here.\n  " + "\n  ".join(reasons))


def _plug_ins() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    if os.environ.get("FASTNN_DISABLE_PLUGINS") != "1":
        for entry in entry_points(group=GROUP):
            # The same installation can be seen twice, through two entries of sys.path.
            if entry not in found.setdefault(entry.name, []):
                found[entry.name].append(entry)
    return found


def _entries(name: str) -> Iterator[EntryPoint]:
    if name in BUILT_IN:
        yield EntryPoint(name, BUILT_IN[name], GROUP)
    yield from _plug_ins().get(name, [])


def _load(name: str) -> type[Backend]:
    """Import the class of a device, or say in a DeviceError why that is impossible."""
    if name in CHOICES:
        raise DeviceError(f"a plug-in cannot be called {name!r}, which chooses among the devices")
    entries = list(_entries(name))
    if not entries:
        known = {*BUILT_IN, *_plug_ins(), *CHOICES}
        raise DeviceError(did_you_mean("device", name, known))
    if len(entries) > 1:
        claims = " and ".join(entry.value for entry in entries)
        raise DeviceError(f"device {name!r} is claimed by {claims}; uninstall all but one")
    with anothers_code(name, f": {entries[0].value} cannot be loaded"):
        cls = entries[0].load()
    if not (isinstance(cls, type) and issubclass(cls, Backend)):
        raise DeviceError(f"device {name!r} is broken: {entries[0].value} is no Backend class")
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise DeviceError(f"device {name!r} is broken: {cls.__name__} lacks {', '.join(missing)}")
    return cls


def _report(name: str) -> DeviceReport:
    source: Literal["built in", "plug-in"] = "built in" if name in BUILT_IN else "plug-in"
    detail, checks = "", list[Check]()
    try:
        cls = _load(name)
        with anothers_code(name):
            for check in cls.checks():
                checks.append(_checked(check))
            failed = next((check.sentence for check in checks if not check.ok), None)
            reason = cls.unavailable() or failed
            if reason is None:
                detail = cls().detail
    except FastnnError as error:
        reason = str(error)
    return DeviceReport(name, source, detail, reason, tuple(checks))


def _checked(check: object) -> Check:
    if not isinstance(check, Check):
        raise TypeError(f"a check is a fastnn.backends.base.Check, not {type(check).__name__}")
    return check


@contextmanager
def anothers_code(name: str, what: str = "") -> Iterator[None]:
    """Run a device's own code, which may fail in any way: it must not take us along."""
    try:
        yield
    except FastnnError:  # is a sentence already
        raise
    except (Exception, SystemExit) as error:
        raise DeviceError(
            f"device {name!r} is broken{what} ({type(error).__name__}: {error})"
        ) from error
