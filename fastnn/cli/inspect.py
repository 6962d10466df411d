"""``fastnn inspect``: what a saved network has learned, in pictures and in words."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

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
from fastnn.errors import ArgumentError, OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastnn.data import Dataset
    from fastnn.network import Network

    Pictures = dict[str, Callable[[], Figure]]

PICTURES = tuple(
    f"{name}.png"
    for name in (
        "weights", "activations", "confusion", "mistakes", "saliency", "sensitivity", "noise",
        "curves",
    )
)  # fmt: skip
MOST_SAID = 5  # mistakes and confusions, in words


@click.command()
@click.argument("model", type=click.Path())
@data_option
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    help="Which one of the test set to look at, counted from 0; by default the first.",
)
@click.option(
    "--digit", type=click.IntRange(min=0), help="Look at the first test sample of this class."
)
@click.option("--noise", is_flag=True, help="See too how sure the network is of random pixels.")
@click.option(
    "--log", type=click.Path(), help="Draw the training's curves, too, from what train --log wrote."
)
@click.option("--out", type=click.Path(), help="The folder of the pictures; MODEL-inspect.")
@device_option
@json_option
@quiet_option
def inspect(
    model: str,
    source: str | None,
    sample: int | None,
    digit: int | None,
    noise: bool,
    log: str | None,
    out: str | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """See what a saved network has learned: its weights, its mistakes, what its cost depends on.

    Says it in words and draws pictures, which need the extra "plot".
    """
    from fastnn import Network, drawing, evaluate, read_log
    from fastnn.cache import write_whole

    notes = Notes(quiet)
    # What can be refused is refused before the work.
    if sample is not None and digit is not None:
        raise ArgumentError("--sample and --digit both say which sample; give one of them")
    epochs = read_log(log) if log is not None else []
    with foreign_code():
        network = Network.load(model, device=device)
    folder = _checked(out if out is not None else f"{Path(model).stem}-inspect")
    datasets = load_data_of(network, model, source, notes)
    score = evaluate(network, datasets.test)
    chosen = _chosen(datasets.test, sample, digit)
    found, pictures = _on_test_set(network, datasets.test, chosen)
    if noise:
        found["noise"], pictures["noise.png"] = _on_noise(network, datasets.test)
    if epochs:
        pictures["curves.png"] = partial(drawing.curves, epochs)
    written: list[str] = []
    try:
        for name, draw in pictures.items():
            write_whole(folder / name, drawing.png(draw()))
            written.append(str(folder / name))
    finally:  # what was found holds, whatever becomes of the pictures
        report = {
            "model": model,
            "device": describe_device(network.backend),
            "data": describe_data(datasets),
            "cost": score.cost,
            "accuracy": score.accuracy,
            **found,
            "pictures": written,
        }
        if as_json:
            emit("inspect", report)
        else:
            _show(report)
    if math.isqrt(datasets.features) ** 2 != datasets.features:
        notes.say(f"{datasets.features} pixels make no square image: they are shown as stripes")
    if not epochs:
        notes.say(
            "for the training's curves, train with --log FILE and name the file by --log here"
        )


def _on_test_set(network: Network, test: Dataset, chosen: int) -> tuple[dict[str, Any], Pictures]:
    """Return what is found on a test set and on one sample of it, and how to draw it."""
    from fastnn import drawing, inspecting

    one = (test.x[[chosen]], test.labels[[chosen]])
    layers = [a[0] for a in inspecting.activations(network, one[0])]
    (saliency,) = inspecting.saliency(network, one)
    slopes = inspecting.sensitivity(network, test)
    matrix = inspecting.confusion_matrix(network, test)
    wrong = inspecting.mistakes(network, test)
    label, output = int(test.labels[chosen]), layers[-1]
    predicted = int(output.argmax())
    found = {
        "confusion": matrix.tolist(),
        "most_confused": [each._asdict() for each in inspecting.most_confused(matrix, MOST_SAID)],
        "mistakes": [each._asdict() for each in wrong[:MOST_SAID]],
        "sample": {
            "sample": chosen,
            "label": label,
            "predicted": predicted,
            "output": float(output.max()),
        },
        "sensitivity": [
            float(np.sqrt(np.mean(np.square(slope, dtype=np.float64)))) for slope in slopes
        ],
    }
    pictures: Pictures = {
        "weights.png": partial(drawing.weights, network.weights[0]),
        "activations.png": partial(drawing.activations, layers, network.activations, label),
        "confusion.png": partial(drawing.confusion, matrix),
        "mistakes.png": partial(drawing.mistakes, test.x, wrong),
        "saliency.png": partial(drawing.saliency, layers[0], saliency, label, predicted),
        "sensitivity.png": partial(drawing.sensitivity, slopes),
    }
    return found, pictures


def _on_noise(network: Network, test: Dataset) -> tuple[dict[str, Any], Callable[[], Figure]]:
    """Return how sure the network is of noise, and how to draw it."""
    from fastnn import drawing, inspecting

    noise = inspecting.noise_like(test.x)
    outputs = network.forward(noise)
    top = outputs.max(axis=1)
    found = {
        "samples": len(noise),
        "sure": float(np.mean(top > inspecting.SURE)),
        "mean_output": float(np.mean(top, dtype=np.float64)),
    }
    return found, partial(drawing.noise, noise, outputs, network.forward(test.x))


def _show(report: dict[str, Any]) -> None:
    from fastnn.inspecting import SURE

    data, wrong, seen = report["data"], report["mistakes"], report["sample"]
    click.echo(
        f"accuracy {percent(report['accuracy'])}, cost {report['cost']:.4f} "
        f"on {data['test']:,} test samples of {data['name']}"
    )
    pairs = [
        f"{pair['label']} for {pair['predicted']} ({pair['times']})"
        for pair in report["most_confused"]
    ]
    click.echo(f"most confused: {', '.join(pairs)}" if pairs else "no mistakes")
    for each in wrong:
        click.echo(f"surest mistake: {_sentence(each)}")
    click.echo(f"looked at: {_sentence(seen)}")
    slopes = [f"layer {i} {slope:.2g}" for i, slope in enumerate(report["sensitivity"], start=1)]
    click.echo(f"∂C/∂w, root mean square: {', '.join(slopes)}")
    if noise := report.get("noise"):
        click.echo(
            f"noise: in {percent(noise['sure'])} of {noise['samples']:,} images of random pixels "
            f"the top output is above {SURE:g}; its mean is {noise['mean_output']:.4f}"
        )
    for path in report["pictures"]:
        click.echo(f"picture {path}")


def _sentence(each: dict[str, Any]) -> str:
    return (
        f"sample {each['sample']} of class {each['label']}, taken for {each['predicted']} "
        f"with an output of {each['output']:.4f}"
    )


def _chosen(test: Dataset, sample: int | None, digit: int | None) -> int:
    """Return which test sample is asked for."""
    if digit is None:
        if (sample or 0) >= len(test):
            raise ArgumentError(f"--sample {sample}: the test samples are 0 to {len(test) - 1}")
        return sample or 0
    of_class = np.flatnonzero(test.labels == digit)
    if not of_class.size:
        classes = ", ".join(map(str, np.unique(test.labels)))
        raise ArgumentError(f"--digit {digit}: the test samples are of the classes {classes}")
    return int(of_class[0])


def _checked(path: str) -> Path:
    """Return a folder if our pictures can be written there, and would destroy nothing else."""
    from fastnn.drawing import is_picture

    folder = Path(path)
    try:
        if not path:
            raise OutputError("the folder to write into has no name")
        there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
        if not there.is_dir():
            raise OutputError(f"cannot write into {path}: {there} is not a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write into {path}: {there} is write-protected")
        for picture in (folder / name for name in PICTURES):
            if picture.exists() and not (picture.is_file() and is_picture(picture)):
                raise OutputError(
                    f"cannot write {picture}: it holds something other than a picture of ours; "
                    "name another folder by --out"
                )
    except OutputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"cannot write into {path}: {reason}") from error
    return folder
