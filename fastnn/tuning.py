"""How to choose the hyper-parameters: chapter 3 of the book, as a search by trial.

The order of magnitude of η comes first, from :func:`fastnn.range_test`; around it η is searched
for, with λ, the size of the mini-batches and the hidden units. How long to train is no
hyper-parameter: a trial ends where the accuracy in validation no longer improves, and before, where
it is below what others had come to. The test set takes no part in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from fastnn.backends.base import Backend
from fastnn.backends.registry import device as find_device
from fastnn.checks import function_or_none, is_true, positive_number, whole_number, yes_or_no
from fastnn.data import Dataset
from fastnn.descent import Descent
from fastnn.dropout import layer_rates
from fastnn.errors import ArgumentError, DataError, Diverged, known_name
from fastnn.history import Epoch, History, Progress
from fastnn.network import Network
from fastnn.range_test import range_test
from fastnn.schedules import schedule_of
from fastnn.scoring import LabelledSamples
from fastnn.study import DIVERGED, Asked, Study
from fastnn.told import check_same, plain
from fastnn.training import train

__all__ = ["MOST_TRIALS", "SEARCHED", "Tried", "Tuning", "tune"]

MOST_TRIALS = 100_000

SEARCHED = ("hidden", "batch_size", "learning_rate", "l2")
CHOICES = {
    "hidden": (30, 60, 100),  # units, of one layer
    "batch_size": (10, 20, 50, 100),
}
# Times the rate that the range test suggests, a third of the one from which on less is learned.
LOWEST_RATE, HIGHEST_RATE = 0.1, 5.0
# Of λ/n: the book's 0.1 for 1,000 samples and 5 for 50,000 are both 1e-4.
LOWEST_DECAY, HIGHEST_DECAY = 1e-6, 1e-3
BELOW = 10  # what is drawn from the decade below the lowest λ stands for none

NETWORK = ("activation", "output", "cost", "init", "dtype")
DESCENT = tuple(each.name for each in fields(Descent))
FREE = ("fused", "threads")  # which change the trials by rounding at the most
# What a training may be told beside what a search sees to itself.
TRAINING = {*SEARCHED[1:], *DESCENT, "schedule", "shuffle", *FREE}


@dataclass(frozen=True)
class Tried:
    """What one trial was, and came to.

    Attributes
    ----------
    number
        From 1.
    state
        "finished"; "pruned", when it was below the median of others; or "diverged".
    hidden, batch_size, learning_rate, l2
        What it was trained with; a ``batch_size`` of None is the whole set.
    epochs
        How many it took.
    best_epoch, validation_accuracy
        The first epoch with the highest accuracy on the validation set, and that, 0 to 1; None if
        it diverged in the first.
    """

    number: int
    state: str
    hidden: tuple[int, ...]
    batch_size: int | None
    learning_rate: float
    l2: float
    epochs: int
    best_epoch: int | None
    validation_accuracy: float | None

    @property
    def settings(self) -> dict[str, Any]:
        """What of it :func:`fastnn.train` takes."""
        return {name: getattr(self, name) for name in SEARCHED[1:]}


@dataclass(frozen=True)
class _Training:
    """A training as all trials have it."""

    train_set: Dataset
    validation: Dataset
    network: Mapping[str, Any]
    settings: Mapping[str, Any]

    def untrained(self, hidden: Sequence[int]) -> Network:
        classes = int(max(self.train_set.labels.max(), self.validation.labels.max())) + 1
        return Network([self.train_set.features, *hidden, classes], **self.network)

    def __call__(
        self,
        hidden: Sequence[int],
        on_epoch: Callable[[Epoch], Any] | None = None,
        on_call: Callable[[Progress], Any] | None = None,
        **drawn: Any,
    ) -> tuple[Network, History]:
        network = self.untrained(hidden)
        told = {**self.settings, **drawn, "on_epoch": on_epoch, "on_call": on_call}
        return network, train(network, self.train_set, None, self.validation, **told)


@dataclass(frozen=True)
class _Space:
    """What is drawn of the four, where it begins, and what of them was given.

    What is drawn has no more digits than are shown.
    """

    open: dict[str, list[Any]]
    start: dict[str, Any]
    fixed: dict[str, Any]

    @classmethod
    def of(cls, n: int, start: dict[str, Any], fixed: dict[str, Any], descent: Descent) -> _Space:
        rate = start["learning_rate"]
        low, high = _short(LOWEST_RATE * rate), _short(HIGHEST_RATE * rate)
        if decay := descent.decay(n):  # a penalty that is given must not shrink weights to nothing
            high = min(high, _short(0.9 / decay))
        top = min(HIGHEST_DECAY, 0.1 / (rate if "learning_rate" in fixed else high))
        of_all: dict[str, list[Any]] = {
            "hidden": list(CHOICES["hidden"]),
            "batch_size": [size for size in CHOICES["batch_size"] if size <= n] or [n],
            "learning_rate": [low, high],
            "l2": [_short(top * n * LOWEST_DECAY / HIGHEST_DECAY), _short(top * n)],
        }
        return cls({name: of_all[name] for name in SEARCHED if name not in fixed}, start, fixed)

    def begin(self) -> dict[str, Any]:
        """Return what the first trial draws."""
        drawn = {name: self.start[name] for name in self.open}
        if "hidden" in drawn:
            (drawn["hidden"],) = drawn["hidden"]
        if "l2" in drawn:
            drawn["l2"] = self._none
        return drawn

    def draw(self, asked: Asked) -> dict[str, Any]:
        """Return the settings of a trial."""
        drawn: dict[str, Any] = {}
        for name, values in self.open.items():
            if name in CHOICES:
                drawn[name] = asked.among(name, values)
            else:
                low, high = values
                drawn[name] = asked.between(name, self._none if name == "l2" else low, high)
        return self.settings(drawn)

    def settings(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return the four, by what was drawn."""
        given = {**self.fixed, **{name: drawn[name] for name in self.open}}
        if "hidden" in self.open:
            given["hidden"] = (int(given["hidden"]),)
        if "learning_rate" in self.open:
            given["learning_rate"] = _short(given["learning_rate"])
        if "l2" in self.open:
            given["l2"] = _short(given["l2"]) if given["l2"] >= self.open["l2"][0] else 0.0
        return given

    def tried(self, number: int, trial: Any) -> Tried:
        """Return a trial that is done, from what the study has of it."""
        accuracies = trial.intermediate_values
        best = min(accuracies, key=lambda epoch: (-accuracies[epoch], epoch), default=None)
        state = "finished" if trial.state.name == "COMPLETE" else "pruned"
        return Tried(
            number=number,
            state="diverged" if DIVERGED in trial.user_attrs else state,
            **self.settings(trial.params),
            epochs=len(accuracies),
            best_epoch=best,
            validation_accuracy=None if best is None else accuracies[best],
        )

    @property
    def _none(self) -> float:
        return float(self.open["l2"][0] / BELOW)


@dataclass
class Tuning:
    """What a search came to.

    Attributes
    ----------
    space
        What was searched: the choices of ``hidden`` (units of one layer) and ``batch_size``, the
        bounds of ``learning_rate`` and ``l2``, which may also be none. What was given is not in it;
        empty if ``on_rate`` ended the search before its bounds were known.
    suggestion
        What :func:`fastnn.range_test` suggested, around which the rate is searched for. None if it
        suggested nothing, and the optimiser's default stands in for it, or if it was not asked.
    trials
        The :class:`fastnn.Tried` ones, in their order; those of a study that went on as well.
    """

    space: dict[str, list[Any]]
    suggestion: float | None
    _training: _Training = field(repr=False, compare=False)
    trials: list[Tried] = field(default_factory=list)

    @property
    def best(self) -> Tried | None:
        """The finished trial with the highest accuracy, the first of equals; None if none is."""
        finished = [tried for tried in self.trials if tried.state == "finished"]
        return max(finished, key=lambda tried: tried.validation_accuracy or 0.0, default=None)

    def train_best(
        self,
        on_epoch: Callable[[Epoch], Any] | None = None,
        on_call: Callable[[Progress], Any] | None = None,
    ) -> tuple[Network, History]:
        """Train the best once more, and return the network, with its best epoch's weights.

        On the same device it comes to the same weights, bit for bit.

        Parameters
        ----------
        on_epoch, on_call
            As in :func:`fastnn.train`.

        Raises
        ------
        ArgumentError
            If no trial has finished.
        """
        best = self.best
        if best is None:
            raise ArgumentError("no trial has finished: there is no best one to train")
        return self._training(best.hidden, on_epoch, on_call, **best.settings)


def tune(
    train_set: LabelledSamples,
    validation: LabelledSamples,
    *,
    trials: int = 20,
    epochs: int = 30,
    patience: int = 10,
    seed: int = 0,
    device: str | Backend = "auto",
    study: str | os.PathLike[str] | None = None,
    on_rate: Callable[[float, float], Any] | None = None,
    on_start: Callable[[Tuning], Any] | None = None,
    on_trial: Callable[[Tried], Any] | None = None,
    on_epoch: Callable[[Epoch], Any] | None = None,
    on_call: Callable[[Progress], Any] | None = None,
    **settings: Any,
) -> Tuning:
    """Search for the hyper-parameters with which a network does best in validation.

    Searched for are those of these four that are not given: ``hidden``, one layer of 30, 60 or 100
    units; ``batch_size``, 10, 20, 50 or 100; ``learning_rate``, log-uniform from a tenth to five
    times what :func:`fastnn.range_test` suggests, or the optimiser's default if it suggests
    nothing; and ``l2``, none or log-uniform from n/10⁶ to n/10³ for n training samples. The first
    trial has 30 units, mini-batches of 10, the suggested rate and no penalty; what the others have
    is drawn by Optuna's TPE sampler from what those before came to.

    A trial of which, after its third epoch, the best accuracy is below the median of what the
    finished trials had come to at that epoch, four of them at the least, is pruned: it ends.

    Parameters
    ----------
    train_set, validation
        Each a :class:`fastnn.Dataset` or a pair (x, class numbers), such as both parts of
        ``train_set.split(0.2)``. Give no test set: what was chosen by it cannot be judged by it.
    trials
        How many in all: pruned and diverged ones count, and so do those that the study has from
        before. Default 20.
    epochs, patience
        Of a trial, at the most, and without a better accuracy in validation. Default 30 and 10.
    seed
        Of the weights and the order, the same in each trial, and of what is drawn. Default 0.
    device
        As in :class:`fastnn.Network`.
    study
        A file, of SQLite, that each trial is kept in. If it is there, the search goes on with it,
        and comes to the same trials as one that was not ended, on the same device; all but
        ``trials``, ``device``, ``fused`` and ``threads`` must be as they were, and so must the
        device's precision. Default None: they are not kept.
    on_rate
        As in :func:`fastnn.range_test`, of the one that the search begins with, unless the rate is
        given or the study has what it suggested. If it returns True the search ends, and begins no
        study.
    on_start
        Called with the :class:`Tuning` before the first trial; it has those that the study has.
    on_trial
        Called with a :class:`Tried` after each.
    on_epoch, on_call
        As in :func:`fastnn.train`, of the trial at hand. If one returns True the search ends; that
        trial does not count, and a search that goes on begins it anew.
    settings
        ``hidden``, a list of sizes, ``batch_size``, ``learning_rate`` or ``l2``, which is then not
        searched for but the same in all trials; and what else :class:`fastnn.Network` and
        :func:`fastnn.train` take.

    Returns
    -------
    Tuning
        The trials, and the best of them.

    Raises
    ------
    ArgumentError
        For a setting that is none or out of its range, if all four are given, if Optuna is not
        installed, or if the study was begun with another setting.
    DataError
        If the sets do not fit each other, or are not the study's.
    OutputError
        If the study's file cannot be written, holds something else, or is in use.
    ModelError
        If it is damaged.
    """
    for name in settings:
        known_name("setting", name, {"hidden", *NETWORK, *TRAINING})
    trials = whole_number("trials", trials, 1, MOST_TRIALS)
    seed = whole_number("seed", seed, 0)
    called = {
        "on_rate": on_rate,
        "on_start": on_start,
        "on_trial": on_trial,
        "on_epoch": on_epoch,
        "on_call": on_call,
    }
    for name, function in called.items():
        function_or_none(name, function)
    settings["shuffle"] = yes_or_no("shuffle", settings.get("shuffle", True))
    if set(SEARCHED) <= settings.keys():
        raise ArgumentError(
            f"nothing is left to search for: {', '.join(SEARCHED)} are all given; leave one out"
        )
    descent = Descent(**_of(settings, DESCENT))
    learned, judged = Dataset.of(train_set), Dataset.of(validation)
    backend = find_device(device, settings.get("dtype"))
    network = {**_of(settings, NETWORK), "seed": seed, "device": backend}
    how = {**_of(settings, TRAINING), "epochs": epochs, "patience": patience, "seed": seed}
    training = _Training(learned, judged, network, how)
    fixed = _of(settings, SEARCHED)
    if "hidden" in fixed:
        fixed["hidden"] = _sizes(fixed["hidden"])
    if "learning_rate" in fixed:
        fixed["learning_rate"] = positive_number("learning_rate", fixed["learning_rate"])
    start = {
        "hidden": CHOICES["hidden"][:1],
        "batch_size": min(CHOICES["batch_size"][0], len(learned)),
        "l2": 0.0,
        **fixed,
    }
    told = _told(training, start["hidden"], descent, fixed)
    with Study(study) as kept:
        suggestion = None
        if kept.about is not None:
            with kept.telling():
                before, suggestion = dict(kept.about["told"]), kept.about["suggestion"]
                suggestion = None if suggestion is None else float(suggestion)
        elif "learning_rate" not in fixed:
            suggestion, ended = _suggestion(training, start, on_rate)
            if ended:
                return Tuning({}, None, training)
        start.setdefault("learning_rate", suggestion or descent.optimiser.learning_rate)
        space = _Space.of(len(learned), start, fixed, descent)
        told["space"] = space.open
        if kept.about is not None:
            _compare(kept.name, before, told)
        with suppress(Diverged):  # which a trial may; what must be refused is refused here
            training(**start, on_call=lambda _: True)
        if kept.about is None:
            kept.begin({"told": told, "suggestion": suggestion})
        with kept.telling():
            done = [space.tried(*each) for each in enumerate(kept.done(), 1)]
        tuning = Tuning(space.open, suggestion, training, done)
        if on_start is not None:
            on_start(tuning)
        while len(done) < trials:
            asked = kept.ask(seed, space.begin())
            if not _try(asked, training, space.draw(asked), on_epoch, on_call):
                break
            done.append(space.tried(len(done) + 1, kept.done()[-1]))
            if on_trial is not None:
                on_trial(done[-1])
    return tuning


def _try(
    asked: Asked,
    training: _Training,
    drawn: dict[str, Any],
    on_epoch: Callable[[Epoch], Any] | None,
    on_call: Callable[[Progress], Any] | None,
) -> bool:
    """Train by what was drawn; return whether that came to its end, and not the search."""
    accuracies: list[float] = []
    ends: list[str] = []

    def after_epoch(epoch: Epoch) -> bool:
        assert epoch.validation_accuracy is not None
        accuracies.append(epoch.validation_accuracy)
        if asked.report(accuracies[-1], epoch.epoch) and epoch.epoch < training.settings["epochs"]:
            ends.append("pruned")
        if on_epoch is not None and is_true(on_epoch(epoch)):
            ends.append("ended")
        return bool(ends)

    def after_call(progress: Progress) -> bool:
        if on_call is not None and is_true(on_call(progress)):
            ends.append("ended")
        return bool(ends)

    try:
        training(**drawn, on_epoch=after_epoch, on_call=after_call)
    except Diverged:
        ends.append(DIVERGED)
    how = ends[-1] if ends else "finished"
    asked.end(how, max(accuracies, default=None))
    return how != "ended"


def _suggestion(
    training: _Training,
    start: Mapping[str, Any],
    on_rate: Callable[[float, float], Any] | None,
) -> tuple[float | None, bool]:
    """Return the rate that the range test suggests, if any, and whether it was ended before."""
    settings, ended = training.settings, False

    def after_rate(rate: float, cost: float) -> bool:
        nonlocal ended
        ended = on_rate is not None and is_true(on_rate(rate, cost))
        return ended

    test = range_test(
        training.untrained(start["hidden"]),
        training.train_set,
        batch_size=start["batch_size"],
        seed=settings["seed"],
        **_of(settings, {*DESCENT, *FREE}),
        on_rate=after_rate,
    )
    return None if test.suggestion is None else _short(test.suggestion), ended


def _told(
    training: _Training, hidden: Sequence[int], descent: Descent, fixed: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all that decides what the trials come to, as JSON has it."""
    network, settings = training.untrained(hidden), training.settings
    schedule = schedule_of(settings.get("schedule", "constant"))
    told = {
        "training": [len(training.train_set), training.train_set.sha256],
        "validation": [len(training.validation), training.validation.sha256],
        "activations": list(network.activations),
        "cost": network.cost,
        "init": network.init,
        "dtype": str(network.backend.dtype),
        "precision": network.backend.precision,
        "epochs": settings["epochs"],
        "patience": settings["patience"],
        "seed": settings["seed"],
        "shuffle": settings["shuffle"],
        **descent.described(),
        "dropout": layer_rates(descent.dropout, len(hidden)),
        "schedule": {"name": schedule.name, **asdict(schedule)},
        **{name: fixed.get(name, "searched") for name in SEARCHED},
    }
    return plain(told)


def _compare(path: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Say in what the search that a study was begun with differs from the one that is to go on."""
    for name in ("training", "validation"):
        if before.get(name) != now[name]:
            raise DataError(f"the {name} set is not the one that the study in {path} began with")
    check_same(f"the study in {path}", before, now)


def _sizes(hidden: Any) -> tuple[int, ...]:
    """Return the hidden layers' sizes, or raise an ArgumentError."""
    try:
        return tuple(whole_number("a layer's size", size, 1) for size in hidden)
    except TypeError:
        raise ArgumentError(f"hidden must be a list of sizes, not {hidden!r}") from None


def _of(settings: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return those of these names that there are."""
    return {name: settings[name] for name in names if name in settings}


def _short(number: float) -> float:
    """Return it with three digits, which a reader can type again."""
    return float(f"{number:.3g}")
