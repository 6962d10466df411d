"""A race of devices: in turns each trains a network as fast as it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from threading import get_native_id
from time import perf_counter, sleep
from typing import TypeAlias

from fastnn.backends.registry import anothers_code
from fastnn.errors import DeviceError
from fastnn.trial import Stopwatch, Trial

__all__ = ["Rates", "race"]

# Samples a second by device, and by its own step and the plain one, if that is another.
Rates: TypeAlias = dict[str, dict[str, float]]

# Seconds of a turn, about, and seconds within which all are to be over, since nobody wants to wait,
# but for what it takes to make the trials, which may have to be compiled.
A_TURN, AT_MOST = 0.01, 0.18
# BLAS's threads look out for more work for a while after they have had some, and would take a
# processor from a device with threads of its own: they are waited for, with a look at them so often
# and so long at the most, in seconds.
LOOK, REST = 0.001, 0.15


def race(names: Sequence[str], trial: Callable[[str, bool], Trial]) -> tuple[Rates, dict[str, str]]:
    """Return the devices' rates, and why those failed that did.

    Each device has a turn with its own step, then each with the plain one, then, if there is time,
    each another with its own. A processor that was asleep may be slow for longer than a turn, but
    hardly in all of one device's turns and in none of another's.

    Parameters
    ----------
    names
        The devices.
    trial
        What makes a device's trial, by its own step or else by the plain one.
    """
    held = _Race(names, trial)
    held.hold()
    return held.rates, held.failed


class _Race:
    def __init__(self, names: Sequence[str], trial: Callable[[str, bool], Trial]) -> None:
        self._names, self._trial = names, trial
        self._watches: dict[str, dict[str, Stopwatch]] = {}
        self._last, self._took, self._making = "", 0.0, 0.0
        self.rates: Rates = {}
        self.failed: dict[str, str] = {}

    def hold(self) -> None:
        begun = perf_counter()
        self._each(self._own)
        again = self._took
        self._each(self._make_plain)  # while BLAS's threads look out
        self._each(self._plain)
        if perf_counter() - begun - self._making + again <= AT_MOST:
            self._each(self._own)

    def _each(self, work: Callable[[str], None]) -> None:
        """Do that for all devices but those that fail or have failed."""
        for name in self._names:
            if name in self.failed:
                continue
            try:
                with anothers_code(name):
                    work(name)
            except DeviceError as error:
                self.failed[name] = str(error)
                self.rates.pop(name, None)

    def _own(self, name: str) -> None:
        self._after_others(name)
        if name not in self._watches:
            self._watches[name] = {"own": self._watch(name, True)}
        self._turn(name, "own")

    def _make_plain(self, name: str) -> None:
        if self._watches[name]["own"].trial.step.name != "plain":
            self._watches[name]["plain"] = self._watch(name, False)

    def _plain(self, name: str) -> None:
        if "plain" in self._watches[name]:
            self._after_others(name)
            self._turn(name, "plain")

    def _watch(self, name: str, own: bool) -> Stopwatch:
        began = perf_counter()
        watch = Stopwatch(self._trial(name, own), A_TURN)
        self._making += perf_counter() - began
        return watch

    def _after_others(self, name: str) -> None:
        """Have the threads of whoever worked before come to rest."""
        if name != self._last:
            _rest()
        self._last = name

    def _turn(self, name: str, step: str) -> None:
        watch, began = self._watches[name][step], perf_counter()
        self.rates.setdefault(name, {})[step] = watch.trial.plan.batch_size / watch.turn()
        self._took += perf_counter() - began


def _rest() -> None:
    """Wait until no other thread of this process works, or for as long as BLAS's look out."""
    end = perf_counter() + REST
    while _others_work() and perf_counter() < end:
        sleep(LOOK)


def _others_work() -> bool:
    """Return whether another thread of this process works, as far as the system tells."""
    this = f"/{get_native_id()}/"
    for stat in glob("/proc/self/task/*/stat"):
        with suppress(OSError):  # it has ended
            state = Path(stat).read_text(encoding="utf-8").rpartition(") ")[2][0]
            if state == "R" and this not in stat:
                return True
    return False
