"""``fastnn evaluate`` and ``fastnn predict``: what a saved network is worth, and what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fastnn.cli.options import data_option, device_option, json_option, quiet_option
from fastnn.cli.output import (
    Notes,
    describe_data,
    describe_device,
    emit,
    foreign_code,
    load_data_of,
    percent,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


@click.command()
@click.argument("model", type=click.Path())
@data_option
@device_option
@json_option
@quiet_option
def evaluate(model: str, source: str | None, device: str, as_json: bool, quiet: bool) -> None:
    """Measure a saved network on a test set, by default that of the data it was trained on."""
    from fastnn import Network
    from fastnn import evaluate as measure

    notes = Notes(quiet)
    with foreign_code():
        network = Network.load(model, device=device)
    datasets = load_data_of(network, model, source, notes)
    score = measure(network, datasets.test)
    if as_json:
        content = {
            "model": model,
            "device": describe_device(network.backend),
            "data": describe_data(datasets),
            "cost": score.cost,
            "accuracy": score.accuracy,
        }
        emit("evaluate", content)
    else:
        count = f"{len(datasets.test):,} test samples of {datasets.name}"
        click.echo(f"accuracy {percent(score.accuracy)}, cost {score.cost:.4f} on {count}")


@click.command()
@click.argument("model", type=click.Path())
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@device_option
@json_option
def predict(model: str, files: tuple[str, ...], device: str, as_json: bool) -> None:
    """Say what class each sample in the files is of.

    FILE is a picture (.png, .jpg) of one sample, light on dark or dark on light; or many samples in
    an .npy, an .npz or an IDX file.
    """
    from fastnn import Network

    with foreign_code():
        network = Network.load(model, device=device)
    rows: list[dict[str, Any]] = []
    for file in files:
        outputs = network.forward(_read(file, network.sizes[0]))
        rows += [
            {"file": file, "index": index, "class": int(row.argmax()), "output": float(row.max())}
            for index, row in enumerate(outputs)
        ]
    if as_json:
        emit("predict", {"model": model, "predictions": rows})
        return
    several = {row["file"] for row in rows if row["index"]}
    for row in rows:
        place = f"{row['file']}[{row['index']}]" if row["file"] in several else row["file"]
        click.echo(f"{place}\t{row['class']}\t{row['output']:.4f}")


def _read(file: str, features: int) -> NDArray[Any]:
    """Read a picture, or the samples in another file."""
    from fastnn.data import PICTURES, read_picture, read_samples
    from fastnn.errors import DataError

    if file.lower().endswith(PICTURES):
        return read_picture(file, features)
    try:
        return read_samples(file, features)
    except DataError as error:
        if file.lower().endswith((".npy", ".npz")):
            raise
        raise DataError(f"{error} (a picture is called .png or .jpg)") from error
