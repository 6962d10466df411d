"""A training at the end of an epoch, and the file that it is kept in.

That is a model file with more in it: what the optimiser keeps, the best epoch's parameters, the
history, and all that the training was told. Orders are drawn from the seed and the epoch's number,
and a schedule goes by the history, so that this is all that the next epoch needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn import model_file
from fastnn.checks import whole_number
from fastnn.errors import ArgumentError, ModelError
from fastnn.history import Epoch, Score

if TYPE_CHECKING:
    from fastnn.network import Network

__all__ = ["State", "Stored", "content", "read"]

Array = NDArray[Any]

COLUMNS = [field.name for field in fields(Epoch)][1:]


@dataclass
class State:
    """A training at the end of an epoch.

    Attributes
    ----------
    epochs, learning_rates
        The history so far.
    parameters
        The network's, one array.
    kept, taken
        The optimiser's: see :class:`fastnn.optimisers.Update`. [] and 0 for plain descent.
    best_epoch, best
        The number of the best epoch, and its parameters.
    """

    epochs: list[Epoch]
    learning_rates: list[float]
    parameters: Array
    kept: list[Array]
    taken: int
    best_epoch: int
    best: Array


class Stored(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    network
        The one that is trained, on NumPy.
    state
        Where its training is.
    settings
        What that was told.
    every
        After how many epochs it is written.
    """

    network: Network
    state: State
    settings: dict[str, Any]
    every: int


def content(network: Network, state: State, settings: Mapping[str, Any], every: int) -> bytes:
    """Return the file that :func:`read` takes these from; the parameters are the state's."""
    tensors = {f"optim.{number}": each for number, each in enumerate(state.kept)}
    tensors["best"] = state.best
    tensors["history.learning_rate"] = np.array(state.learning_rates)
    for name in COLUMNS:
        if getattr(state.epochs[0], name) is not None:
            tensors[f"history.{name}"] = np.array([getattr(e, name) for e in state.epochs])
    told = {
        "settings": settings,
        "every": every,
        "taken": state.taken,
        "best_epoch": state.best_epoch,
    }
    return model_file.content(network, state.parameters, tensors, **{model_file.CHECKPOINT: told})


def read(path: Path) -> Stored:
    """Return what a file holds.

    Raises
    ------
    ModelError
        If it is missing, damaged, or no checkpoint.
    """
    network = model_file.load(path, device="numpy")
    description, tensors = model_file.read(path)
    if model_file.CHECKPOINT not in description:
        raise ModelError(f"{path} is a model, and no checkpoint to go on from")
    try:
        told = description[model_file.CHECKPOINT]
        settings, state = dict(told["settings"]), _state(network, told, tensors)
        return Stored(network, state, settings, whole_number("every", told["every"], 1))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = error if isinstance(error, ArgumentError) else "its description is not complete"
        raise ModelError(f"{path} is damaged: {why}") from error


def _state(network: Network, told: Mapping[str, Any], tensors: Mapping[str, Array]) -> State:
    """Return the state that a file holds, or raise an error of those that read expects."""
    parameters = network.backend.to_numpy(network.buffer)
    kept = [tensors[f"optim.{n}"] for n in range(sum(name[:6] == "optim." for name in tensors))]
    for array in (tensors["best"], *kept):
        if (array.shape, array.dtype) != (parameters.shape, parameters.dtype):
            raise ArgumentError("its tensors are not those of its layers")
    columns = {name[8:]: array for name, array in tensors.items() if name.startswith("history.")}
    rates = columns.pop("learning_rate")
    sets = dict(told["settings"]["sets"])
    measured = {f"{key}_{what}" for key in sets for what in Score._fields}
    if columns.keys() != {"seconds", "samples_per_second"} | measured or any(
        array.shape != (rates.size,) or array.dtype != np.float64
        for array in (rates, *columns.values())
    ):
        raise ArgumentError("its history does not fit together")
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise ArgumentError("it holds numbers that are not finite")
    rows = zip(*(array.tolist() for array in columns.values()), strict=True)
    epochs = [
        Epoch(number, **dict(zip(columns, row, strict=True))) for number, row in enumerate(rows, 1)
    ]
    return State(
        epochs=epochs,
        learning_rates=rates.tolist(),
        parameters=parameters,
        kept=kept,
        taken=whole_number("taken", told["taken"], 0),
        best_epoch=whole_number("best_epoch", told["best_epoch"], 1, len(epochs)),
        best=tensors["best"],
    )
