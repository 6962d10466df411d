"""What a training or a search was told: as a file keeps it, and whether it goes on by the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnn.errors import ArgumentError

__all__ = ["check_same", "plain"]


def plain(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return it as it will be when it is read from a file of JSON."""
    read: dict[str, Any] = json.loads(json.dumps(told, default=_plain))
    return read


def check_same(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise an ArgumentError if what goes on is told another thing than when it began.

    Parameters
    ----------
    what
        As it stands in the sentence: "the training in run".
    before, now
        By name; both plain.
    """
    for name in {**before, **now}:
        was, given = before.get(name), now.get(name)
        if was != given:
            raise ArgumentError(
                f"{what} began with {name.replace('_', ' ')} {_shown(was)}, "
                f"and cannot go on with {_shown(given)}"
            )


def _plain(value: Any) -> Any:
    """Return what JSON has for a number of NumPy's or an object that it does not know."""
    return value.item() if isinstance(value, np.generic) else repr(value)


def _shown(value: Any) -> str:
    """Return a setting as it stands in a sentence."""
    if isinstance(value, dict) and "name" in value:
        rest = ", ".join(f"{key} {each}" for key, each in value.items() if key != "name")
        return f"{value['name']} ({rest})"
    if isinstance(value, list):
        between = "," if any(isinstance(each, float) for each in value) else "-"
        return between.join(map(str, value))
    return "none" if value is None else str(value)
