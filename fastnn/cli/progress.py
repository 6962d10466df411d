"""A training as it is watched: a line an epoch, a bar on a terminal, and what ends it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fastnn.cli.output import Notes, percent, printable, tell

if TYPE_CHECKING:
    from rich.console import Console

    from fastnn.history import Epoch, Progress

__all__ = ["Remaining", "Reporter", "stopping_politely"]

LEAST_BAR = 5  # columns
SETTLED = 1.0  # seconds, after which the first mini-batches no longer tell how long all will take


@contextmanager
def stopping_politely() -> Iterator[list[bool]]:
    """Note Ctrl-C or SIGTERM in a list, so that the call at hand ends; a second ends at once."""
    heard: list[bool] = []

    def handler(*_: object) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(True)

    before = {each: signal.signal(each, handler) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for each, handler_before in before.items():
            signal.signal(each, handler_before)


class Reporter:
    """A line an epoch and, on a terminal, a bar for the whole."""

    def __init__(self, notes: Notes, epochs: int, before: int) -> None:
        self._notes, self._epochs, self._before = notes, epochs, before
        self._context = notes.bar()

    def __enter__(self) -> Reporter:
        self._bar = self._context.__enter__()
        if self._bar:
            self._state = _State(self._epochs, self._before, self._bar.console)
            name = self._name(min(self._before + 1, self._epochs))
            self._task = self._bar.add_task(name, total=self._epochs, note=self._state)
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def call(self, progress: Progress) -> None:
        """Move the bar."""
        if self._bar:
            self._state.call(progress)
            self._show(progress.epoch)

    def _name(self, epoch: int) -> str:
        return f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}"

    def _show(self, epoch: int) -> None:
        assert self._bar
        self._bar.update(self._task, completed=self._state.time.done, description=self._name(epoch))

    def epoch(self, epoch: Epoch) -> None:
        """Write the epoch's line, above the bar if there is one."""
        assert epoch.test_accuracy is not None
        validation = ""
        if epoch.validation_accuracy is not None:
            validation = f"validation {percent(epoch.validation_accuracy)}   "
        line = (
            f"{self._name(epoch.epoch)}   cost {epoch.train_cost:.4f}   {validation}"
            f"test {epoch.test_cost:.4f}, {percent(epoch.test_accuracy)}   "
            f"{epoch.samples_per_second:>9,.0f} samples/s"
        )
        if self._bar:
            self._state.epoch(epoch)
            self._show(epoch.epoch)
            self._bar.console.print(line)
        else:
            self._notes.say(line)

    def complain(self, line: str) -> None:
        """Write what went wrong, also when quiet, above the bar if there is one."""
        if self._bar:
            self._bar.console.print(printable(line), markup=False, soft_wrap=True)
        else:
            tell(line)


class Remaining:
    """How long a training will yet take, the measuring after each epoch included.

    Parameters
    ----------
    epochs
        Of all of it.
    before
        So many of them were done before, and tell nothing of how long it takes.

    Attributes
    ----------
    done
        So many epochs. One that is trained and not measured yet counts as the part of an epoch
        that training takes, by the epochs before.
    """

    def __init__(self, epochs: int, before: int = 0) -> None:
        self._epochs, self._before = epochs, before
        self._began: float | None = None
        self._trained, self._training_part = 0.0, 1.0
        self.done = float(before)

    def call(self, progress: Progress) -> None:
        """Note what is trained of an epoch."""
        self._now = perf_counter()
        if self._began is None:
            self._began = self._now - progress.samples / progress.samples_per_second
        part = progress.samples / progress.total
        self.done = progress.epoch - 1 + self._training_part * part

    def epoch(self, epoch: Epoch) -> None:
        """Note that an epoch is trained and measured."""
        assert self._began is not None  # a call comes before
        self._now = perf_counter()
        self._trained += epoch.seconds
        self._training_part = min(1.0, self._trained / max(self._now - self._began, 1e-9))
        self.done = epoch.epoch

    def seconds(self) -> float | None:
        """Return how long it will take from now on, or None while that cannot be said yet."""
        done = self.done  # which is asked by the thread that draws the bar
        here = done - self._before
        if not here or self._began is None or self._now - self._began < SETTLED:
            return None
        then = (self._now - self._began) * (self._epochs - done) / here
        return max(0.0, then - (perf_counter() - self._now))


class _State:
    """What stands behind the bar, as much as fits; as a string, what it is at that moment."""

    def __init__(self, epochs: int, before: int, console: Console) -> None:
        self.time = Remaining(epochs, before)
        self._epochs, self._console, self._began = epochs, console, perf_counter()
        self._score, self._rate = "", ""

    def call(self, progress: Progress) -> None:
        self.time.call(progress)
        self._rate = f"{progress.samples_per_second:,.0f} samples/s"

    def epoch(self, epoch: Epoch) -> None:
        assert epoch.test_accuracy is not None
        self.time.epoch(epoch)
        self._rate = f"{epoch.samples_per_second:,.0f} samples/s"
        self._score = f"cost {epoch.train_cost:.4f}, test {percent(epoch.test_accuracy)}"

    def __str__(self) -> str:
        left = self.time.seconds()
        times = f"{_clock(perf_counter() - self._began)}, {_clock(left)} left"
        parts = [part for part in (self._score, self._rate, times) if part]
        before = len(f"epoch {self._epochs}/{self._epochs}  ") + LEAST_BAR
        while parts and before + len("  ".join(parts)) > self._console.width:
            del parts[0]
        return "  ".join(parts)


def _clock(seconds: float | None) -> str:
    """75 -> '1:15'; with hours from an hour on; None -> '-:--'."""
    if seconds is None:
        return "-:--"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
