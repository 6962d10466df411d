"""``fastnn evaluate`` and ``fastnn predict``: what a saved network is worth, and what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fastnn.cli.output import (
    Notes,
    data_option,
    describe_data,
    describe_device,
    device_option,
    emit,
    json_option,
    load_data,
    percent,
    quiet_option,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES = (".png", ".jpg", ".jpeg")


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
    from fastnn.errors import ArgumentError

    notes = Notes(quiet)
    network = Network.load(model, device=device)
    origin = network.trained_on
    if source is None and origin is None:
        raise ArgumentError(f"{model} does not say what it was trained on; name the data by --data")
    datasets = load_data(source or (origin or {})["name"], notes)
    if origin and datasets.name == origin["name"] and datasets.sha256 != origin["sha256"]:
        notes.say(f"note: {datasets.name} is not what it was when the network was trained on it")
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
    from fastnn.data import read_samples

    network = Network.load(model, device=device)
    features = network.sizes[0]
    rows: list[dict[str, Any]] = []
    for file in files:
        if file.lower().endswith(IMAGES):
            x = _read_picture(file, features)
        else:
            x = read_samples(file, features)
        outputs = network.forward(x)
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


def _read_picture(path: str, features: int) -> NDArray[Any]:
    """Return a picture as one sample (1, features): grey, square, light on dark, as in MNIST."""
    import math

    import numpy as np

    from fastnn.errors import ArgumentError, DataError

    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ModuleNotFoundError:
        raise ArgumentError(
            "pictures need Pillow, which the extra 'image' brings: pip install '.[image]'"
        ) from None
    side = math.isqrt(features)
    if side * side != features:
        raise DataError(f"{path}: the network's {features} inputs are no square picture")
    try:
        with Image.open(path) as picture:
            grey = ImageOps.exif_transpose(picture).convert("RGBA")
            paper = Image.new("RGBA", grey.size, "white")
            grey = Image.alpha_composite(paper, grey).convert("L")
    except UnidentifiedImageError:
        raise DataError(f"{path} is no picture") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}") from error
    pixels = np.asarray(grey)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) > 127:
        grey = ImageOps.invert(grey)
    square = ImageOps.pad(grey, (side, side), Image.Resampling.LANCZOS, color=0)
    return np.asarray(square, dtype=np.uint8).reshape(1, features)
