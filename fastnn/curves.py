"""The log of a training, read for its curves: cost and accuracy, epoch by epoch."""

from __future__ import annotations

import json
import math
import os
import reprlib
from typing import Any

from fastnn.data.reading import opened
from fastnn.errors import DataError

__all__ = ["SERIES", "read_log"]

# What may be known of each epoch.
SERIES = tuple(
    f"{of}_{what}" for what in ("cost", "accuracy") for of in ("train", "validation", "test")
)


def read_log(path: str | os.PathLike[str]) -> dict[str, list[float]]:
    """Read what the epochs of a training came to.

    Parameters
    ----------
    path
        A file with one JSON object an epoch, each on its line, or one object with a list of them
        as ``epochs``, as ``fastnn train --json`` prints. Each has ``epoch``, its number, and some
        of :data:`SERIES`.

    Returns
    -------
    ``epoch`` and those of :data:`SERIES` that occur, one number an epoch each; NaN where one is
    missing or null.

    Raises
    ------
    DataError
        If the file is missing, or holds anything else.
    """
    with opened(os.fspath(path)) as (file, _):
        epochs = _epochs(file.read().decode())
        known = [key for key in SERIES if any(each.get(key) is not None for each in epochs)]
        if not known:
            raise DataError(f"no epoch in it has one of {', '.join(SERIES)}")
        return {key: [_number(each, key) for each in epochs] for key in ("epoch", *known)}


def _epochs(text: str) -> list[dict[str, Any]]:
    """Return the objects of a log, one an epoch."""
    report = _json(text)
    if isinstance(report, dict) and "epochs" in report:
        epochs = report["epochs"]
    else:
        epochs = [_json(line) for line in text.splitlines() if line.strip()]
    if not isinstance(epochs, list) or not epochs:
        raise DataError("there is no epoch in it")
    for number, each in enumerate(epochs, start=1):
        if not isinstance(each, dict) or each.get("epoch") is None:
            raise DataError(f"entry {number} is no JSON object with the number of its 'epoch'")
    return epochs


def _json(text: str) -> Any:
    """Return what a text says in JSON, or None."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _number(epoch: dict[str, Any], key: str) -> float:
    value = epoch.get(key)
    if value is None:
        return math.nan
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        said = f"{key} of epoch {reprlib.repr(epoch['epoch'])}"
        raise DataError(f"{said} is not a finite number: {reprlib.repr(value)}")
    return number
