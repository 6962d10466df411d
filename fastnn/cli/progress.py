"""A training as it is watched: a line an epoch, a bar on a terminal, and Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastnn.cli.output import Notes, percent

if TYPE_CHECKING:
    from fastnn.history import Epoch, Progress

__all__ = ["Reporter", "stopping_politely"]


@contextmanager
def stopping_politely() -> Iterator[list[bool]]:
    """Note Ctrl-C in a list, so that the mini-batch at hand is finished; a second ends at once."""
    heard: list[bool] = []

    def handler(*_: object) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(True)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)


class Reporter:
    """A line an epoch and, on a terminal, a bar for the whole."""

    def __init__(self, notes: Notes, epochs: int) -> None:
        self._notes, self._epochs = notes, epochs
        self._context = notes.bar()

    def __enter__(self) -> Reporter:
        self._bar = self._context.__enter__()
        if self._bar:
            self._task = self._bar.add_task("epoch 1", total=self._epochs, note="")
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def call(self, progress: Progress) -> None:
        """Move the bar."""
        done = progress.epoch - 1 + progress.samples / progress.total
        self._show(progress.epoch, done, progress.samples_per_second)

    def _show(self, epoch: int, done: float, samples_per_second: float) -> None:
        if self._bar:
            self._bar.update(
                self._task,
                completed=done,
                description=f"epoch {epoch}",
                note=f"{samples_per_second:,.0f} samples/s",
            )

    def epoch(self, epoch: Epoch) -> None:
        """Write the epoch's line, above the bar if there is one."""
        assert epoch.test_accuracy is not None
        line = (
            f"epoch {epoch.epoch:>{len(str(self._epochs))}}/{self._epochs}   "
            f"cost {epoch.train_cost:.4f}   "
            f"test {epoch.test_cost:.4f}, {percent(epoch.test_accuracy)}   "
            f"{epoch.samples_per_second:>9,.0f} samples/s"
        )
        if self._bar:
            self._show(epoch.epoch, epoch.epoch, epoch.samples_per_second)
            self._bar.console.print(line)
        else:
            self._notes.say(line)
