"""What the commands share: options, JSON, and the lines and bars on stderr."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TextIO

import click

from fastnn.errors import ArgumentError, DataError, did_you_mean

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from fastnn.backends.base import Backend
    from fastnn.data import Datasets
    from fastnn.network import Network

SCHEMA = 1
INTERRUPTED = 130


class Group(click.Group):
    """Commands in the order they are first used in, and a guess at a mistyped one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or raise a UsageError that helps."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise click.UsageError(did_you_mean("command", args[0], self.commands), ctx)
        return super().resolve_command(ctx, args)


def tell(line: str) -> bool:
    """Write a line to stderr; False if no one reads them any more."""
    try:
        click.echo(printable(line), err=True)
    except OSError:
        return False
    return True


class Notes:
    """Progress and hints, on stderr; nothing at all when quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        logging.getLogger("fastnn").setLevel(logging.ERROR if quiet else logging.NOTSET)

    def say(self, line: str) -> None:
        """Write a line. If no one reads them any more, be quiet: they are not worth the work."""
        if not self.quiet:
            self.quiet = not tell(line)

    @contextmanager
    def bar(self) -> Iterator[Bar | None]:
        """Give a rich progress bar on a terminal, else None: lines must then do."""
        if self.quiet or sys.stderr is None or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console(stderr=True, highlight=False)
        if not console.is_interactive:  # TERM=dumb
            yield None
            return
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        with bar:
            yield bar


def foreign_code() -> redirect_stdout[TextIO]:
    """What a plug-in has to say on being loaded does not belong to our result."""
    return redirect_stdout(sys.stderr)


def printable(text: str) -> str:
    """Return the text with what could command a terminal made visible."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def emit(command: str, content: dict[str, Any]) -> None:
    """Print the one JSON object of a command."""
    click.echo(json.dumps({"schema": SCHEMA, "command": command, **content}, allow_nan=False))


def load_data(source: str, notes: Notes) -> Datasets:
    """Load a data set by name or path; a download shows its progress."""
    from fastnn.data import load_dataset

    with downloading(notes) as on_progress:
        return load_dataset(source, on_progress=on_progress)


def load_data_of(network: Network, model: str, source: str | None, notes: Notes) -> Datasets:
    """Load the data that a network from a model file was trained on, or others by name or path."""
    origin = network.trained_on
    if source is None and origin is None:
        raise ArgumentError(f"{model} does not say what it was trained on; name the data by --data")
    try:
        datasets = load_data(origin["name"] if source is None and origin else str(source), notes)
    except DataError as error:
        if source is not None:
            raise
        raise DataError(
            f"{error}\n  The network was trained on it; name other data by --data."
        ) from error
    if origin and datasets.name == origin["name"] and datasets.sha256 != origin["sha256"]:
        notes.say(f"note: {datasets.name} is not what it was when the network was trained on it")
    return datasets


@contextmanager
def downloading(notes: Notes) -> Iterator[Callable[[str, int, int | None], None]]:
    """Give a callback that shows the progress of a download."""
    tasks: dict[str, Any] = {}
    with ExitStack() as stack:

        @cache  # when something is downloaded, and not before
        def bar() -> Bar | None:
            return stack.enter_context(notes.bar())

        def on_progress(name: str, received: int, total: int | None) -> None:
            if name not in tasks:
                size = f" ({total / 1e6:.1f} MB)" if total else ""
                drawn = bar()
                tasks[name] = drawn and drawn.add_task(name, total=total, note=size)
                if drawn is None:
                    notes.say(f"downloading {name}{size}")
            if drawn := bar():
                drawn.update(tasks[name], completed=received, total=total)

        yield on_progress


def describe_data(datasets: Datasets) -> dict[str, Any]:
    """Return the JSON object that identifies data."""
    return {
        "name": datasets.name,
        "train": len(datasets.train),
        "test": len(datasets.test),
        "features": datasets.features,
        "classes": datasets.classes,
        "sha256": datasets.sha256,
    }


def describe_device(backend: Backend) -> dict[str, str]:
    """Return the JSON object that names a device."""
    return {"name": backend.spec, "precision": backend.precision, "detail": backend.detail}


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    packages = {"fastnn": "fastnn-mlp", "numpy": "numpy", "scipy": "scipy"}
    return {
        "python": platform.python_version(),
        **{name: version(distribution) for name, distribution in packages.items()},
    }


def check_distinct(*outputs: tuple[str, str | os.PathLike[str] | None]) -> None:
    """Refuse two options that name the same place, also where nothing is yet."""
    named: dict[str, str] = {}
    for name, path in outputs:
        if path is not None:
            other = named.setdefault(os.path.realpath(path), name)
            if other != name:
                raise click.UsageError(f"{other} and {name} name the same place, {path}")


def percent(part: float) -> str:
    """0.9543 -> '95.43 %'."""
    return f"{100 * part:.2f} %"
