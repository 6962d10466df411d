"""``fastnn train``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click
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
    foreign_code,
    load_data,
    percent,
    versions,
)
from fastnn.cli.progress import Reporter, stopping_politely
from fastnn.cli.resuming import resume
from fastnn.errors import ArgumentError, DataError, OutputError

if TYPE_CHECKING:
    from fastnn import Checkpoint
    from fastnn.data import Dataset, Datasets
    from fastnn.history import Epoch, History, Progress
    from fastnn.network import Network
    from fastnn.profiling import Profile


FORMS = (
    "constant, step:EVERY,FACTOR, exponential:FACTOR, cosine:FLOOR, inverse:POWER or "
    "plateau:PATIENCE,FACTOR,FLOOR; the numbers may be left out"
)


@click.command()
@data_option
@validation_option
@shape_options
@option("--epochs", type=click.IntRange(1, MOST_EPOCHS), default=30)
@batch_size_option
@rate_option
@descent_options
@option("--schedule", default="constant", help=f"Of the rate, by epoch: {FORMS}.")
@option(
    "--warm-up",
    type=click.IntRange(0, MOST_EPOCHS),
    default=0,
    help="Epochs at first in which the rate grows.",
)
@click.option(
    "--patience",
    type=click.IntRange(1, MOST_EPOCHS),
    help="Stop after so many epochs without a better validation accuracy; keep the best weights.",
)
@option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is drawn.")
@option("--shuffle/--no-shuffle", default=True, help="Another order every epoch.")
@step_options
@click.option(
    "--checkpoint",
    "folder",
    metavar="FOLDER",
    type=click.Path(),
    help="Keep the state there after each epoch, so that a training that was ended can go on.",
)
@option(
    "--checkpoint-every",
    "every",
    metavar="EPOCHS",
    type=click.IntRange(1, MOST_EPOCHS),
    default=1,
    help="So seldom; the last epoch's is kept in any case.",
)
@click.option(
    "--resume",
    "resumed",
    metavar="FOLDER",
    type=click.Path(),
    is_eager=True,
    callback=resume,
    help="Go on from there by the same settings, and go on keeping it; --epochs may be another.",
)
@click.option(
    "--profile",
    "trace",
    type=click.Path(),
    help="Show where the time goes, and write a Chrome trace there. Training takes longer.",
)
@click.option(
    "--log",
    type=click.Path(),
    help="A .jsonl or .csv file that each epoch's costs and accuracies are added to.",
)
@click.option(
    "--tensorboard",
    metavar="FOLDER",
    type=click.Path(),
    help="A folder for TensorBoard, one a training. Needs the extra tensorboard.",
)
@option("--save", "path", type=click.Path(), help="The model file; fastnn-DATA.safetensors.")
@json_option
@quiet_option
def train(
    source: str | None,
    validation: int | float | None,
    shape: dict[str, Any],
    epochs: int,
    batch_size: int | None,
    learning_rate: float | None,
    descends: dict[str, Any],
    schedule: str,
    warm_up: int,
    patience: int | None,
    seed: int,
    shuffle: bool,
    fused: bool,
    threads: int | None,
    folder: str | None,
    every: int,
    resumed: Checkpoint | None,
    trace: str | None,
    log: str | None,
    tensorboard: str | None,
    path: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Train a network and save it.

    Without options: 30 hidden units learn scikit-learn's handwritten digits in a few seconds,
    off-line.
    """
    from fastnn import Log, Profile, TensorBoard
    from fastnn import train as run
    from fastnn.cache import write_whole
    from fastnn.model_file import check_writable
    from fastnn.profiling import check_trace
    from fastnn.schedules import schedule_of
    from fastnn.training import check_validated

    notes = Notes(quiet)
    by_default = source is None
    if source is None and resumed is not None:
        raise ArgumentError(
            f"{resumed.folder} does not say by what data the training began; name them by --data"
        )
    source = source if source is not None else "digits"
    # What can be refused is refused before the work.
    blueprint = Blueprint(**shape, seed=seed)
    descent = descent_of(**descends, hidden=shape["hidden"])
    rates = replace(schedule_of(schedule), warm_up=warm_up)
    check_validated(rates, patience, validation is not None)
    path = path if path is not None else _default_path(source)
    checkpoint = _checkpoint(folder, every, resumed)
    check_distinct(
        ("--save", path),
        ("--log", log),
        ("--tensorboard", tensorboard),
        ("--profile", trace),
        *(("the checkpoint", file) for file in (checkpoint.files if checkpoint else [])),
    )
    replaced = check_writable(path).exists()
    target = check_trace(trace) if trace is not None else None
    records = _Records()
    if log is not None:
        records.to.append(Log(log))
    if tensorboard is not None:
        with foreign_code():
            records.to.append(TensorBoard(tensorboard))
    try:
        datasets = load_data(source, notes)
    except DataError as error:
        if resumed is None:
            raise
        raise DataError(
            f"{error}\n  The training in {resumed.folder} began with it; if it is elsewhere now, "
            "name that by --data."
        ) from error
    train_set, validation_set = datasets.train, None
    if validation is not None:
        train_set, validation_set = train_set.split(validation)
    weights = _weights(train_set, descent["class_weights"])
    network, own, why = blueprint.network(datasets, train_set, batch_size, descent, fused)
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": (
            learning_rate if learning_rate is not None else descent["optimiser"].learning_rate
        ),
        **descent,
        "schedule": rates,
        "patience": patience,
        "seed": seed,
        "shuffle": shuffle,
        "fused": own,
        "threads": threads,
    }
    _introduce(notes, datasets, validation_set, weights, network, why)
    if log is not None and os.path.exists(log):
        notes.say(f"log      {log}: the epochs of this training are added to it")
    profile = Profile() if trace is not None else None
    network.trained_on = {"name": datasets.name, "sha256": datasets.sha256}
    done = 0
    if resumed is not None:
        done = resumed.done
        notes.say(f"resumed  {resumed.folder}: {done} epochs are done")
    with stopping_politely() as interrupted, Reporter(notes, epochs, done) as reporter:
        unkept: list[OutputError] = []

        def on_epoch(epoch: Epoch) -> bool:
            reporter.epoch(epoch)
            for error in records(epoch):
                reporter.complain(f"fastnn: {error}; the training goes on without it")
            return bool(interrupted)

        def on_call(progress: Progress) -> bool:
            reporter.call(progress)
            return bool(interrupted)

        def on_error(error: OutputError) -> None:
            if not unkept:
                reporter.complain(f"fastnn: {error}; the training goes on, and tries again")
            unkept.append(error)

        if checkpoint is not None:
            checkpoint.on_error = on_error
        history = run(
            network,
            train_set,
            test=datasets.test,
            validation=validation_set,
            **settings,
            checkpoint=checkpoint,
            profile=profile,
            on_epoch=on_epoch,
            on_call=on_call,
        )
        if saved := bool(history.epochs):
            network.save(path)
    if profile is not None and target is not None:
        _show(notes, profile)
        write_whole(target, profile.trace().encode())
    if as_json:
        settings["validation"] = 0 if validation_set is None else len(validation_set)
        _emit(history, datasets, network, settings, path if saved else None)
    elif saved:
        _summarise(history, path)
    if history.why.startswith("plain"):
        notes.say(f"step     {history.why}")
    if replaced and saved:
        notes.say(f"the model that was in {path} before is replaced")
    if interrupted:
        if not saved:
            what = " before the first epoch's end: nothing is saved"
        elif history.best_epoch is not None:
            what = f"; what is saved are the weights of epoch {history.best_epoch}"
        else:
            what = f"; what is saved has learned a little more than epoch {len(history.epochs)}"
        notes.say(f"interrupted{what}")
        if saved and checkpoint is not None and not unkept:
            notes.say(f"it goes on after epoch {checkpoint.done}: --resume {checkpoint.folder}")
        return INTERRUPTED
    if resumed is not None and len(history.epochs) == done:
        notes.say(f"nothing was left to train: that of {resumed.folder} is finished")
    if by_default:
        notes.say("\nThese were small digits. MNIST, the real ones: fastnn train --data mnist")
    return 1 if records.failed or unkept else 0


class _Records:
    """Where each epoch is written to. What cannot be written is given up, and not the training."""

    def __init__(self) -> None:
        self.to: list[Callable[[Epoch], None]] = []
        self.failed = False

    def __call__(self, epoch: Epoch) -> list[OutputError]:
        errors = []
        for record in self.to.copy():
            try:
                record(epoch)
            except OutputError as error:
                self.to.remove(record)
                self.failed = True
                errors.append(error)
        return errors


def _checkpoint(folder: str | None, every: int, resumed: Checkpoint | None) -> Checkpoint | None:
    """Return where the state is to be kept, if anywhere."""
    from fastnn import Checkpoint

    context = click.get_current_context()
    source = context.get_parameter_source("every")
    if folder is None and resumed is None and source is ParameterSource.COMMANDLINE:
        raise click.UsageError("--checkpoint-every needs a folder, by --checkpoint or --resume")
    if resumed is None:
        return None if folder is None else Checkpoint(folder, every)
    if folder is not None:
        raise click.UsageError(
            "--resume goes on keeping the state in its own folder; leave --checkpoint out"
        )
    resumed.every = every
    return resumed


def _default_path(source: str) -> str:
    name = os.path.splitext(os.path.basename(os.path.realpath(source)))[0]
    return f"fastnn-{name}.safetensors"


def _weights(train_set: Dataset, class_weights: str | tuple[float, ...] | None) -> str:
    """Return the range of what training samples count, if not all count alike."""
    if class_weights is not None:
        train_set = train_set.weighted(class_weights)
    given = train_set.weights
    return "" if given is None else f"{given.min():.3g} to {given.max():.3g} a training sample"


def _introduce(
    notes: Notes,
    datasets: Datasets,
    validation: Dataset | None,
    weights: str,
    network: Network,
    why: str,
) -> None:
    shape = "-".join(map(str, network.sizes))
    held_out = 0 if validation is None else len(validation)
    validating = f", {held_out:,} validation" if held_out else ""
    notes.say(
        f"data     {datasets.name}: {len(datasets.train) - held_out:,} training{validating} and "
        f"{len(datasets.test):,} test samples of {datasets.features} numbers, "
        f"{datasets.classes} classes"
    )
    if weights:
        notes.say(f"weights  {weights}")
    notes.say(f"network  {shape}, {network.parameter_count:,} parameters")
    detail = f": {network.backend.detail}" if network.backend.detail else ""
    notes.say(f"device   {network.backend.spec}{detail}")
    if why:
        notes.say(f"auto     {why}")


def _show(notes: Notes, profile: Profile) -> None:
    by_phase = profile.seconds()
    all_of_it = sum(by_phase.values())
    for phase, seconds in by_phase.items():
        notes.say(f"{phase:<16} {seconds:9.3f} s  {100 * seconds / all_of_it:5.1f} %")


def _accuracy(epoch: Epoch) -> float:
    assert epoch.test_accuracy is not None
    return epoch.test_accuracy


def _summarise(history: History, path: str) -> None:
    last = history.epochs[-1]
    if history.best_epoch is not None:
        kept = history.epochs[history.best_epoch - 1]
        assert kept.validation_accuracy is not None
        click.echo(
            f"test accuracy {percent(_accuracy(kept))} by the weights of epoch {kept.epoch} of "
            f"{last.epoch}, the best in validation, {percent(kept.validation_accuracy)}"
        )
    else:
        best = max(history.epochs, key=_accuracy)
        was_better = _accuracy(best) > _accuracy(last)
        better = f", best {percent(_accuracy(best))} in epoch {best.epoch}" if was_better else ""
        click.echo(f"test accuracy {percent(_accuracy(last))} after epoch {last.epoch}{better}")
    click.echo(
        f"{history.samples_per_second:,.0f} samples/s (median), "
        f"{history.step} step on {history.device}"
    )
    click.echo(f"model saved in {path}")


def _emit(
    history: History,
    datasets: Datasets,
    network: Network,
    settings: dict[str, Any],
    path: str | None,
) -> None:
    settings = {
        **settings,
        **{
            key: {"name": settings[key].name, **asdict(settings[key])}
            for key in ("optimiser", "schedule")
        },
    }
    emit(
        "train",
        {
            "device": describe_device(network.backend),
            "step": history.step,
            "data": describe_data(datasets),
            "network": {
                "sizes": network.sizes,
                "parameters": network.parameter_count,
                "activation": network.activation,
                "output": network.output,
                "cost": network.cost,
                "init": network.init,
            },
            "settings": settings,
            "epochs": [
                {
                    "epoch": epoch.epoch,
                    "learning_rate": rate,
                    "seconds": epoch.seconds,
                    "samples_per_second": epoch.samples_per_second,
                    "train_cost": epoch.train_cost,
                    "validation_cost": epoch.validation_cost,
                    "validation_accuracy": epoch.validation_accuracy,
                    "test_cost": epoch.test_cost,
                    "test_accuracy": epoch.test_accuracy,
                }
                for epoch, rate in zip(history.epochs, history.learning_rates, strict=True)
            ],
            "best_epoch": history.best_epoch,
            "samples_per_second": history.samples_per_second,
            "model": path,
            "versions": versions(),
        },
    )
