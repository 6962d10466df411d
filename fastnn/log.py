"""A training's epochs in a file, JSON lines or CSV, each written when it is done.

A log is only ever added to. A line takes the place of those before it that are of the same epoch or
a later one: epoch 1 begins a training anew, and one that goes on at epoch 7 leaves 1 to 6 standing.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from fastnn.checks import whole_number
from fastnn.data.reading import opened
from fastnn.errors import ArgumentError, DataError
from fastnn.history import Epoch
from fastnn.outputs import append, check_output

__all__ = ["Log", "read_log"]

PathLike = str | os.PathLike[str]

FIELDS = [field.name for field in fields(Epoch)]
MAY_LACK = {field.name for field in fields(Epoch) if field.default is None}


class Log:
    """A file that epochs are added to, a line each; give one to :func:`fastnn.train`.

    >>> history = fastnn.train(network, train_set, on_epoch=fastnn.Log("run.jsonl"))
    >>> fastnn.Log("run.csv").write(history.epochs)

    Called with an epoch it adds a line, which is the system's when the call returns: other
    processes see it, and it stays if this one is killed. The file is made with the first line.

    Parameters
    ----------
    path
        The file. If its name ends in ``.jsonl``, a line is a JSON object with the fields of
        :class:`fastnn.Epoch`, null for what was not measured. If it ends in ``.csv``, a line has
        the numbers with commas between, and the first one has the fields' names. A log that is
        there is added to.

    Raises
    ------
    ArgumentError
        If the name ends otherwise.
    OutputError
        If the file cannot be written, or holds something other than a log.
    """

    def __init__(self, path: PathLike) -> None:
        self._form = _form(path)
        self._path = check_output(path, "a whole log of this form", self._is_log)

    def __call__(self, epoch: Epoch) -> None:
        """Add one epoch; see :meth:`write`."""
        self.write([epoch])

    def write(self, epochs: Iterable[Epoch]) -> None:
        """Add epochs, such as those of a :class:`fastnn.History`: all of them or, on errors, none.

        Raises
        ------
        ArgumentError
            If a number is not finite.
        OutputError
            If the file cannot be written, as where the disk is full.
        """
        lines = [self._form.line(asdict(_checked(asdict(epoch)))) for epoch in epochs]
        if lines:
            append(self._path, "".join(lines).encode(), self._form.head.encode())

    def _is_log(self, path: Path) -> bool:
        try:
            _read(path, self._form)
        except DataError:
            return False
        return True


def read_log(path: PathLike) -> list[Epoch]:
    """Read the epochs of the last training in a log, as :class:`fastnn.Log` writes it.

    Parameters
    ----------
    path
        The file; its name ends in ``.jsonl`` or ``.csv``.

    Returns
    -------
    list of fastnn.Epoch
        In order. The numbers are those that were written, to the last bit.

    Raises
    ------
    ArgumentError
        If the name ends otherwise.
    DataError
        If the file is missing, or is no log: the sentence names the line.
    """
    return _read(path, _form(path))


class _Form(NamedTuple):
    """How a log is written: its head, and an epoch's fields as a line and back."""

    head: str
    line: Callable[[Mapping[str, Any]], str]
    parse: Callable[[str], Mapping[str, Any]]


def _json_line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, allow_nan=False) + "\n"


def _parse_json(line: str) -> Mapping[str, Any]:
    values = _parse(line)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    return values


def _csv_line(values: Mapping[str, Any]) -> str:
    return ",".join("" if value is None else repr(value) for value in values.values()) + "\n"


def _parse_csv(line: str) -> Mapping[str, Any]:
    cells = line.split(",")
    if len(cells) != len(FIELDS):
        raise ValueError(f"it has {len(cells)} cells, not {len(FIELDS)}")
    return {name: _parse(cell) if cell else None for name, cell in zip(FIELDS, cells, strict=True)}


def _parse(text: str) -> Any:
    """Return what a text is in JSON, or raise a ValueError."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError(f"{reprlib.repr(text)} cannot be read") from None


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


FORMS = {
    ".jsonl": _Form("", _json_line, _parse_json),
    ".csv": _Form(",".join(FIELDS) + "\n", _csv_line, _parse_csv),
}


def _form(path: PathLike) -> _Form:
    form = FORMS.get(Path(path).suffix.lower())
    if form is None:
        raise ArgumentError(
            f"the name of a log ends in .jsonl, for a JSON object a line, or in .csv, "
            f"unlike {os.fspath(path)!r}"
        )
    return form


def _read(path: PathLike, form: _Form) -> list[Epoch]:
    epochs: list[Epoch] = []
    with opened(os.fspath(path)) as (file, _):
        for number, line in enumerate(map(bytes.decode, file), 1):
            if not line.endswith("\n"):
                raise DataError(f"line {number} is cut off; without it the log can be read")
            line = line.rstrip("\r\n")
            if number == 1 and form.head:
                if line != form.head.rstrip():
                    raise DataError(f"its first line is not {form.head.rstrip()}")
                continue
            try:
                epoch = _checked(form.parse(line))
            except ValueError as error:
                raise DataError(f"line {number} is no epoch: {error}") from error
            while epochs and epochs[-1].epoch >= epoch.epoch:
                epochs.pop()
            epochs.append(epoch)
    return epochs


def _checked(values: Mapping[str, Any]) -> Epoch:
    """Return the epoch that has these fields, or raise an ArgumentError."""
    if values.keys() != set(FIELDS):
        raise ArgumentError(f"its fields are not {', '.join(FIELDS)}")
    numbers = {
        name: None if values[name] is None and name in MAY_LACK else _finite(name, values[name])
        for name in FIELDS[1:]
    }
    return Epoch(whole_number("epoch", values["epoch"], 1), **numbers)  # type: ignore[arg-type]


def _finite(name: str, value: Any) -> float:
    if isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):
            if math.isfinite(number := float(value)):
                return number
    raise ArgumentError(f"{name} must be a finite number, not {reprlib.repr(value)}")
