"""How the learning rate changes from epoch to epoch.

Every schedule gives a part of η, at the most all of it, for each epoch: what is stable at η stays
so. All the mini-batches of an epoch have the same rate, since a device may take them in one call.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from fastnn.checks import number_between, positive_number, whole_number
from fastnn.errors import ArgumentError, known_name
from fastnn.history import Epoch

__all__ = [
    "SCHEDULES",
    "Constant",
    "CosineDecay",
    "ExponentialDecay",
    "InverseScaling",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
    "schedule_of",
]


@dataclass(frozen=True)
class Schedule(ABC):
    """The rate of each epoch; what all schedules have.

    Parameters
    ----------
    warm_up
        So many epochs come first, in which the rate grows evenly: η e / (warm_up + 1) in epoch e.
        The schedule's own epochs are counted from there. Default 0.

    Raises
    ------
    ArgumentError
        If a number is out of its range.
    """

    warm_up: int = field(default=0, kw_only=True)

    name: ClassVar[str]
    by_validation: ClassVar[bool] = False  # whether it needs the accuracy on a validation set

    def __post_init__(self) -> None:
        whole_number("warm_up", self.warm_up, 0)

    def rate(self, rate: float, epochs: int, done: Sequence[Epoch]) -> float:
        """Return the rate of the next epoch, from η, the number of epochs, and those done."""
        epoch = len(done) + 1
        if epoch <= self.warm_up:
            return rate * epoch / (self.warm_up + 1)
        return rate * self.part(epochs - self.warm_up, done[self.warm_up :])

    @abstractmethod
    def part(self, epochs: int, done: Sequence[Epoch]) -> float:
        """Return the part of η, above 0 to 1, for the next epoch; the warm-up is not counted."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The rate is η in every epoch."""

    name: ClassVar[str] = "constant"

    def part(self, epochs: int, done: Sequence[Epoch]) -> float:
        """See :meth:`Schedule.part`."""
        return 1.0


@dataclass(frozen=True)
class StepDecay(Schedule):
    """In epoch e the rate is η · factor^⌊(e-1) / every⌋.

    Parameters
    ----------
    every
        Epochs with the same rate, 1 or more. Default 10.
    factor
        Above 0 and below 1. Default 0.5.
    """

    every: int = 10
    factor: float = 0.5

    name: ClassVar[str] = "step"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("every", self.every, 1)
        _proper_part("factor", self.factor)

    def part(self, epochs: int, done: Sequence[Epoch]) -> float:
        """See :meth:`Schedule.part`."""
        return float(self.factor ** (len(done) // self.every))


@dataclass(frozen=True)
class ExponentialDecay(Schedule):
    """In epoch e the rate is η · factor^(e-1).

    Parameters
    ----------
    factor
        Above 0 and below 1. Default 0.95.
    """

    factor: float = 0.95

    name: ClassVar[str] = "exponential"

    def __post_init__(self) -> None:
        super().__post_init__()
        _proper_part("factor", self.factor)

    def part(self, epochs: int, done: Sequence[Epoch]) -> float:
        """See :meth:`Schedule.part`."""
        return float(self.factor ** len(done))


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """In epoch e of E the rate is η (floor + (1 - floor) (1 + cos(π (e-1) / E)) / 2).

    Parameters
    ----------
    floor
        What it comes down to, as a part of η, from 0 to below 1; one epoch more would have it.
        Default 0.
    """

    floor: float = 0.0

    name: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        number_between("floor", self.floor, 0, 1)

    def part(self, epochs: int, done: Sequence[Epoch]) -> float:
        """See :meth:`Schedule.part`."""
        wave = (1 + math.cos(math.pi * len(done) / epochs)) / 2
        return float(self.floor + (1 - self.floor) * wave)


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """In epoch e the rate is η / e^power, scikit-learn's "invscaling" with time in epochs.

    Parameters
    ----------
    power
        Above 0. Default 0.5.
    """

    power: float = 0.5

    name: ClassVar[str] = "inverse"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive_number("power", self.power)

    def part(self, epochs: int, done: Sequence[Epoch]) -> float:
        """See :meth:`Schedule.part`."""
        return float((len(done) + 1) ** -self.power)


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """The rate is lowered each time that the accuracy on the validation set does not improve.

    Parameters
    ----------
    patience
        So many epochs in a row, 1 or more, without one better than all before lower the rate; then
        they are counted anew. Default 5.
    factor
        By which it is multiplied then, above 0 and below 1. Default 0.5.
    floor
        The least, as a part of η, from 0 to below 1. Default 0.
    """

    patience: int = 5
    factor: float = 0.5
    floor: float = 0.0

    name: ClassVar[str] = "plateau"
    by_validation: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("patience", self.patience, 1)
        _proper_part("factor", self.factor)
        number_between("floor", self.floor, 0, 1)

    def part(self, epochs: int, done: Sequence[Epoch]) -> float:
        """See :meth:`Schedule.part`."""
        best, waited, part = -1.0, 0, 1.0
        for epoch in done:
            assert epoch.validation_accuracy is not None  # a training refuses to be without
            waited += 1
            if epoch.validation_accuracy > best:
                best, waited = epoch.validation_accuracy, 0
            elif waited == self.patience:
                part, waited = part * self.factor, 0
        return float(max(part, self.floor))


SCHEDULES: dict[str, type[Schedule]] = {
    each.name: each
    for each in (
        Constant,
        StepDecay,
        ExponentialDecay,
        CosineDecay,
        InverseScaling,
        ReduceOnPlateau,
    )
}


def schedule_of(given: str | Schedule) -> Schedule:
    """Return the schedule that a name stands for, such as "cosine" or "step:10,0.5", or the given.

    Behind the colon stand its parameters in their order; those that are left out have their
    defaults.

    Raises
    ------
    ArgumentError
        If there is none of that name, if a parameter is out of its range or too many are given, or
        if it is no schedule.
    """
    if isinstance(given, Schedule):
        return given
    if not isinstance(given, str):
        raise ArgumentError(
            f"schedule must be a name or a schedule such as fastnn.StepDecay(), not {given!r}"
        )
    name, colon, rest = given.partition(":")
    known_name("schedule", name, SCHEDULES)
    parameters = [each.name for each in fields(SCHEDULES[name]) if not each.kw_only]
    texts = rest.split(",") if colon else []
    try:
        if len(texts) > len(parameters):
            raise ValueError
        values: list[Any] = [_number(text) for text in texts]
    except ValueError:
        form = f"{name}:{','.join(map(str.upper, parameters))}" if parameters else name
        raise ArgumentError(f"schedule {given!r} is not of the form {form}, in numbers") from None
    return SCHEDULES[name](**dict(zip(parameters, values, strict=False)))


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _proper_part(name: str, value: Any) -> None:
    if not number_between(name, value, 0, 1):
        raise ArgumentError(f"{name} must be above 0 and below 1, not {value!r}")
