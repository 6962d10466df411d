"""What comes out of a training: a score for each set, an epoch at a time."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Epoch", "History", "Progress", "Score"]


class Score(NamedTuple):
    """What a network makes of a labelled set: the mean cost, and the part classified rightly."""

    cost: float
    accuracy: float


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. Costs and accuracies are of the weights at its end.

    Attributes
    ----------
    epoch
        Its number, from 1.
    seconds
        Spent on training: the order, its way to the device, all mini-batches. Measuring is not
        counted.
    samples_per_second
        Training samples over ``seconds``.
    train_cost, train_accuracy, and so on
        The mean cost, and the part classified rightly, 0 to 1; None for a set that was not given.
    """

    epoch: int
    seconds: float
    samples_per_second: float
    train_cost: float
    train_accuracy: float
    validation_cost: float | None = None
    validation_accuracy: float | None = None
    test_cost: float | None = None
    test_accuracy: float | None = None


@dataclass
class History:
    """What happened in a training.

    Attributes
    ----------
    device
        The device it ran on, "numpy" or "cuda:1".
    step
        The name of the step that ran: "plain", or that of a device's take-over.
    why
        Why it was that one, in a sentence, if the device says so.
    epochs
        The finished epochs.
    learning_rates
        The rate η of each of them.
    best_epoch
        With ``patience``, the number of the epoch whose weights the network was given at the end:
        the one with the highest accuracy on the validation set. None without, or before the first.
    """

    device: str
    step: str
    why: str = ""
    epochs: list[Epoch] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    best_epoch: int | None = None

    @property
    def samples_per_second(self) -> float | None:
        """The median over the epochs, or None before the first."""
        rates = [epoch.samples_per_second for epoch in self.epochs]
        return statistics.median(rates) if rates else None


class Progress(NamedTuple):
    """Where a training is: so many samples of the epoch's total are done, at such a rate."""

    epoch: int
    samples: int
    total: int
    samples_per_second: float
