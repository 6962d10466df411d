"""``fastnn tune``."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from click.core import ParameterSource

from fastnn.checks import MOST_EPOCHS
from fastnn.cli.building import Blueprint, descent_of
from fastnn.cli.options import (
    batch_size_option,
    data_option,
    descent_options,
    json_option,
    option,
    quiet_option,
    rate_option,
    shape_options,
    step_options,
    validation_option,
)
from fastnn.cli.output import (
    INTERRUPTED,
    Notes,
    check_distinct,
    describe_data,
    describe_device,
    emit,
    load_data,
    percent,
    versions,
)
from fastnn.cli.progress import stopping_politely
from fastnn.cli.train import train
from fastnn.errors import Diverged
from fastnn.tuning import MOST_TRIALS, SEARCHED

if TYPE_CHECKING:
    from fastnn import Epoch, Progress, Score, Tried, Tuning

SHORT = {"hidden": "hidden", "batch_size": "batch", "learning_rate": "η", "l2": "λ"}
ELSE = ("path", "as_json", "quiet")  # of a training, and not of what it comes to
SHOWN = 5  # of the finished trials, the best


@click.command()
@data_option
@validation_option
@option(
    "--trials",
    type=click.IntRange(1, MOST_TRIALS),
    default=20,
    help="How many in all, with those that --study has from before.",
)
@click.option(
    "--study",
    "file",
    metavar="FILE",
    type=click.Path(),
    help="Keep the trials in this SQLite file; if it is there, go on with its trials.",
)
@option(
    "--epochs", type=click.IntRange(1, MOST_EPOCHS), default=30, help="End a trial after so many."
)
@option(
    "--patience",
    type=click.IntRange(1, MOST_EPOCHS),
    default=10,
    help="End a trial after so many epochs in a row without a better validation accuracy.",
)
@shape_options
@batch_size_option
@rate_option
@descent_options
@option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is drawn.")
@step_options
@click.option("--save", "path", type=click.Path(), help="Save the best network in this model file.")
@json_option
@quiet_option
def tune(
    source: str | None,
    validation: int | float,
    trials: int,
    file: str | None,
    epochs: int,
    patience: int,
    shape: dict[str, Any],
    batch_size: int | None,
    learning_rate: float | None,
    descends: dict[str, Any],
    seed: int,
    fused: bool,
    threads: int | None,
    path: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Search for the settings that do best in validation, and show how to train with them.

    Trains a network a trial, with another --learning-rate, --l2, --batch-size and --hidden (one
    layer of 30, 60 or 100 units) each time. Those of these four that you give are not searched for;
    they and the other options are the same in all trials. The test set is asked once, about the
    best.
    """
    from fastnn import evaluate
    from fastnn import tune as search
    from fastnn.model_file import check_writable
    from fastnn.study import Study

    notes = Notes(quiet)
    # What can be refused is refused before the work.
    blueprint = Blueprint(**shape, seed=seed)
    descent = descent_of(**descends, hidden=shape["hidden"])
    check_distinct(("--save", path), ("--study", file))
    if path is not None:
        check_writable(path)
    with Study(file):
        pass
    datasets = load_data(source if source is not None else "digits", notes)
    train_set, validation_set = datasets.train.split(validation)
    network, own, why = blueprint.network(datasets, train_set, batch_size, descent, fused)
    settings = {
        **{name: shape[name] for name in ("hidden", "activation", "output", "cost", "init")},
        **descent,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "fused": own,
        "threads": threads,
    }
    for name in SEARCHED:
        if not _given(name):
            del settings[name]
    notes.say(
        f"data     {datasets.name}: {len(train_set):,} training and {len(validation_set):,} "
        f"validation samples of {datasets.features} numbers, {datasets.classes} classes"
    )
    detail = f": {network.backend.detail}" if network.backend.detail else ""
    notes.say(f"device   {network.backend.spec}{detail}")
    if why:
        notes.say(f"auto     {why}")
    test: Score | None = None
    with stopping_politely() as interrupted, _Watch(notes, trials, epochs, interrupted) as watch:
        tuning = search(
            train_set,
            validation_set,
            trials=trials,
            epochs=epochs,
            patience=patience,
            seed=seed,
            device=network.backend,
            study=file,
            on_rate=watch.rate,
            on_start=watch.start,
            on_trial=watch.trial,
            on_epoch=watch.epoch,
            on_call=watch.call,
            **settings,
        )
        best = tuning.best
        if best is not None and not interrupted:
            watch.begin(f"trial {best.number}, trained again")
            network, history = tuning.train_best(watch.epoch, watch.call)
            if not interrupted:
                test = evaluate(network, datasets.test)
    if test is not None and path is not None:
        network.trained_on = {"name": datasets.name, "sha256": datasets.sha256}
        network.save(path)
    command = None if best is None else _command(best, network.backend.spec, own)
    if as_json:
        report = {
            "device": describe_device(network.backend),
            "data": describe_data(datasets),
            "validation": len(validation_set),
            "study": file,
            "space": tuning.space,
            "suggestion": tuning.suggestion,
            "trials": [asdict(tried) for tried in tuning.trials],
            "best": None if best is None else best.number,
            "train": command,
            "test": None if test is None else test._asdict(),
            "model": path if test is not None else None,
            "versions": versions(),
        }
        emit("tune", report)
    elif best is not None and command is not None:
        _show(tuning, best)
        click.echo(shlex.join(command))
        if test is not None:
            click.echo(f"test accuracy {percent(test.accuracy)} of trial {best.number}, so trained")
            if path is not None:
                click.echo(f"model saved in {path}")
    if interrupted:
        notes.say(_interrupted(len(tuning.trials), trials, file))
        return INTERRUPTED
    if best is None:
        raise Diverged(
            f"all {len(tuning.trials)} trials diverged: weights or costs grew beyond all numbers. "
            "`fastnn lr-find` shows at which rates"
        )
    commonest = np.bincount(validation_set.labels).max() / len(validation_set)
    if (best.validation_accuracy or 0) <= commonest:
        notes.say(
            f"note     nothing is learned: the commonest class alone is {percent(commonest)}; "
            "try another --init\n         or --activation, or give a --learning-rate"
        )
    again = history.epochs[(history.best_epoch or 1) - 1].validation_accuracy
    if again is not None and again != best.validation_accuracy:
        notes.say(f"note     trained again, on {network.backend.spec}, it came to {percent(again)}")
    return 0


# What is searched for has no default, and the validation set has one here.
for each in tune.params:
    assert isinstance(each, click.Option)
    if each.name in SEARCHED:
        each.show_default = "searched"
    if each.name == "learning_rate":
        each.help = "η."
    if each.name == "validation":
        each.default, each.show_default = "0.2", True


def _given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is not ParameterSource.DEFAULT


class _Watch:
    """A line a trial and, on a terminal, a bar for the trial at hand."""

    def __init__(self, notes: Notes, trials: int, epochs: int, interrupted: list[bool]) -> None:
        self._notes, self._trials, self._epochs = notes, trials, epochs
        self._interrupted, self._context = interrupted, notes.bar()
        self._rated = False

    def __enter__(self) -> _Watch:
        self._bar = self._context.__enter__()
        if self._bar is not None:
            self._task = self._bar.add_task("", total=self._epochs, note="")
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def rate(self, rate: float, cost: float) -> bool:
        if not self._rated:
            self._say("rate     a network is trained at growing rates, to see where to search")
        self._rated = True
        if self._bar is not None:
            note = f"η {rate:.2g}  cost {cost:.4g}"
            self._bar.update(self._task, description="rate", note=note)
        return bool(self._interrupted)

    def start(self, tuning: Tuning) -> None:
        if tuning.suggestion is None and "learning_rate" in tuning.space:
            self._say(
                "rate     no rate lowers the cost by a tenth: the optimiser's default stands in"
            )
        self._say(f"search   {_searched(tuning.space)}")
        if done := len(tuning.trials):
            self._say(f"study    {done} of {max(done, self._trials)} trials are done")
        self.begin(self._name(done + 1))

    def begin(self, name: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=name, completed=0, note="")

    def trial(self, tried: Tried) -> None:
        self._say(f"{self._name(tried.number)}  {_settings(tried)}  {_result(tried)}")
        self.begin(self._name(tried.number + 1))

    def epoch(self, epoch: Epoch) -> bool:
        if self._bar is not None:
            assert epoch.validation_accuracy is not None
            note = f"epoch {epoch.epoch}/{self._epochs}  {percent(epoch.validation_accuracy)}"
            self._bar.update(self._task, completed=epoch.epoch, note=note)
        return bool(self._interrupted)

    def call(self, progress: Progress) -> bool:
        if self._bar is not None:
            done = progress.epoch - 1 + progress.samples / progress.total
            self._bar.update(self._task, completed=done)
        return bool(self._interrupted)

    def _name(self, number: int) -> str:
        return f"trial {min(number, self._trials):>{len(str(self._trials))}}/{self._trials}"

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line)
        else:
            self._notes.say(line)


def _searched(space: dict[str, list[Any]]) -> str:
    """Return in words what is searched."""
    words = []
    for name, values in space.items():
        if name in ("hidden", "batch_size"):
            words.append(f"{SHORT[name]} {', '.join(map(str, values))}")
        else:
            low, high = values
            none = "none or " if name == "l2" else ""
            words.append(f"{SHORT[name]} {none}{low:g} to {high:g}")
    return "; ".join(words)


def _settings(tried: Tried) -> str:
    hidden = ",".join(map(str, tried.hidden)) or "none"
    batch = "full" if tried.batch_size is None else tried.batch_size
    return f"hidden {hidden:<3}  batch {batch:<4}  η {tried.learning_rate:<7g}  λ {tried.l2:<7g}"


def _result(tried: Tried) -> str:
    if tried.state == "diverged" or tried.validation_accuracy is None:
        return f"diverged in epoch {tried.epochs + 1}"
    accuracy = percent(tried.validation_accuracy)
    if tried.state == "pruned":
        return f"{accuracy}, pruned at {tried.epochs}"
    return f"{accuracy}, epoch {tried.best_epoch}/{tried.epochs}"


def _show(tuning: Tuning, best: Tried) -> None:
    """Write the table of the best trials."""
    finished = [tried for tried in tuning.trials if tried.state == "finished"]
    ranked = sorted(finished, key=lambda tried: -(tried.validation_accuracy or 0.0))
    assert ranked[0] == best
    width = len(str(len(tuning.trials)))
    click.echo(f"{_counts(tuning)}; the best:")
    for tried in ranked[:SHOWN]:
        click.echo(f"trial {tried.number:>{width}}  {_settings(tried)}  {_result(tried)}")


def _counts(tuning: Tuning) -> str:
    """3 trials: 2 finished, 1 pruned."""
    ends = Counter(tried.state for tried in tuning.trials)
    words = [f"{ends[end]} {end}" for end in ("finished", "pruned", "diverged") if ends[end]]
    return f"{len(tuning.trials)} trials: {', '.join(words)}"


def _command(best: Tried, device: str, own: bool) -> list[str]:
    """Return the command that trains as a trial did: what was found, and what was given."""
    params = click.get_current_context().params
    told = {name: value for name, value in params.items() if name not in ELSE and _given(name)}
    told |= {name: params[name] for name in ("validation", "epochs", "patience")}
    told |= {"hidden": best.hidden, **best.settings, "device": device, "fused": own}
    command = ["fastnn", "train"]
    for each in train.params:
        assert isinstance(each, click.Option)
        if each.name not in told:
            continue
        value = told[each.name]
        if each.is_flag:
            switches = each.opts if value else each.secondary_opts
            command += [] if value == each.default else switches[:1]
        elif value is not None or each.name == "batch_size":
            text = _text(value)
            command += [] if text == str(each.default) else [each.opts[0], text]
    return command


def _text(value: Any) -> str:
    """Return what an option reads as that value."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return "full" if value is None else str(value)


def _interrupted(done: int, trials: int, file: str | None) -> str:
    said = f"interrupted after {done} of {trials} trials"
    if not done:
        return said
    if file is None:
        return f"{said}, which --study FILE would have kept"
    return f"{said}; the same command goes on with {file}"
