"""Where a training's time goes: by phase for the plain step, by call for a device's own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from fastnn.backends.base import Array, Backend, Step
from fastnn.outputs import check_output

__all__ = ["Profile", "Span", "check_trace"]

TRACE_BEGINS = b'{"traceEvents"'

# The backend's methods, by what they do in the text's order.
PHASES = {
    "gather": "gather",
    "forward": "forward",
    "drop": "dropout",
    "output_delta": "backward",
    "scale_rows": "backward",
    "propagate_delta": "backward",
    **dict.fromkeys(("descend", "gradient", "clip", "momentum", "adam"), "update"),
}
EVALUATE, HOST = "evaluate", "host"


class Span(NamedTuple):
    """Some time spent: what on, when it began and how long it was, in seconds."""

    phase: str
    began: float
    seconds: float


class Profile:
    """Spans of a training; give one to :func:`fastnn.train`.

    The device is waited for after each span, or the time would be another's: a training that is
    profiled takes longer, and a device that works while the host does can show only where it works.

    Attributes
    ----------
    spans
        In order: ``gather``, ``forward``, ``backward`` and ``update`` of each mini-batch of the
        plain step, with ``dropout`` where units rest; or ``NAME step`` for each call of another;
        and ``evaluate``.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._began = self._ended = self._depth = 0.0

    @contextmanager
    def span(self, phase: str, backend: Backend) -> Iterator[None]:
        """Time what is done inside; what is timed within it counts as a part of it."""
        self._depth += 1
        began = perf_counter()
        try:
            yield
            backend.synchronize()
        finally:
            self._depth -= 1
            if not self._depth:
                self.spans.append(Span(phase, began, perf_counter() - began))

    @contextmanager
    def watching(self, backend: Backend, step: Step) -> Iterator[Step]:
        """Give a step in the place of another, of which each call is timed, or each phase."""
        self._began = perf_counter()
        if step.name != "plain":
            try:
                yield _Timed(self, backend, step)
            finally:
                self._ended = perf_counter()
            return

        def timed(method: Callable[..., None], phase: str) -> Callable[..., None]:
            def call(*arguments: Any) -> None:
                with self.span(phase, backend):
                    method(*arguments)

            return call

        for name, phase in PHASES.items():
            setattr(backend, name, timed(getattr(backend, name), phase))
        try:
            yield step
        finally:
            self._ended = perf_counter()
            for name in PHASES:
                delattr(backend, name)

    def seconds(self) -> dict[str, float]:
        """Return the seconds by phase, and under ``host`` the rest."""
        by_phase: dict[str, float] = {}
        for span in self.spans:
            by_phase[span.phase] = by_phase.get(span.phase, 0.0) + span.seconds
        rest = self._ended - self._began - sum(by_phase.values())
        return {**by_phase, HOST: max(0.0, rest)}

    def trace(self) -> str:
        """Return the spans as JSON for chrome://tracing or ui.perfetto.dev, in microseconds."""
        events = [
            {
                "name": span.phase,
                "ph": "X",
                "ts": 1e6 * (span.began - self._began),
                "dur": 1e6 * span.seconds,
                "pid": 0,
                "tid": 0,
            }
            for span in self.spans
        ]
        return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


def check_trace(path: str | os.PathLike[str]) -> Path:
    """Return where a trace is to be written, or say why it cannot be, before the work.

    Raises
    ------
    OutputError
        If the folder cannot be written to, or something other than a trace is there.
    """
    return check_output(path, "a trace", _is_trace)


def _is_trace(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(TRACE_BEGINS)) == TRACE_BEGINS


class _Timed:
    """A step of which each call is a span."""

    def __init__(self, profile: Profile, backend: Backend, step: Step) -> None:
        self.name, self.stride = step.name, step.stride
        self._profile, self._backend, self._step = profile, backend, step

    def __call__(self, order: Array, start: int, stop: int, rate: float, shrink: float) -> None:
        with self._profile.span(f"{self.name} step", self._backend):
            self._step(order, start, stop, rate, shrink)
