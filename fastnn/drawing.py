"""Pictures of what a network has learned, from the numbers of :mod:`fastnn.inspecting`, and more.

Each function returns a matplotlib ``Figure``; :func:`png` makes the bytes of a file of it. Samples
whose number of pixels is a square are shown as images, others as one row of stripes. They need
matplotlib, which the extra ``plot`` brings.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastnn.errors import ArgumentError
from fastnn.history import Epoch
from fastnn.inspecting import SURE, Mistake
from fastnn.range_test import HIGHEST, LOWEST, RangeTest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "MARK",
    "activations",
    "confusion",
    "curves",
    "is_picture",
    "mistakes",
    "noise",
    "png",
    "rates",
    "saliency",
    "sensitivity",
    "weights",
]

Array = NDArray[Any]

# Stands in the head of every PNG of ours.
MARK = b"tEXtSoftware\0fastnn"

MOST_UNITS = 100  # of a layer whose weights are shown
MOST_MISTAKES = 20
MOST_NAMED = 30  # classes whose names and numbers are legible
SIGNED = "RdBu_r"  # white at 0, red above, blue below
GREY = "gray"
# What the activations of a layer can be at the most, where that is known.
RANGES = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0)}
RIGHT, WRONG, OTHER = "tab:blue", "tab:orange", "0.7"


def weights(w: Array, title: str = "What each unit of the first layer looks for") -> Figure:
    """Draw the weights of the first layer (n_out, n_in): an image of the input for each unit."""
    shown = w[:MOST_UNITS]
    figure, places = _grid(len(shown), 0.95)
    # All share one scale, on which a few outliers are not to make the rest pale.
    limit = float(np.quantile(np.abs(shown), 0.995)) or 1.0
    for unit, (axes, row) in enumerate(zip(places, shown, strict=True)):
        image = _image(axes, row, SIGNED, -limit, limit)
        axes.set_title(f"{unit}", fontsize=8, pad=2)
    _scale(figure, image, places, "weight", extend="both")
    what = f"units 0 to {len(shown) - 1} of {len(w)}" if len(shown) < len(w) else f"{len(w)} units"
    _headline(
        figure,
        title,
        f"{what}; a bright pixel where it is red makes the unit more active, where blue less",
    )
    return figure


def activations(layers: Sequence[Array], names: Sequence[str], label: int) -> Figure:
    """Draw the activations of one sample, (units,) for each layer, the input first.

    Parameters
    ----------
    layers
        What :func:`fastnn.inspecting.activations` returns, a row of each.
    names
        Of the activation functions, one for each layer but the input.
    label
        The sample's class.
    """
    *hidden, output = layers[1:]
    figure, places = _grid(len(layers), 2.6, most_columns=6)
    places[0].set_title(f"input: {len(layers[0])} pixels", fontsize=9)
    _image(places[0], layers[0], GREY)
    for number, (axes, a, name) in enumerate(zip(places[1:], hidden, names, strict=False), 1):
        columns = math.ceil(math.sqrt(len(a)))
        cells = np.full(columns * math.ceil(len(a) / columns), np.nan)
        cells[: len(a)] = a
        low, high = RANGES.get(name, (min(0.0, float(a.min())), float(a.max()) or 1.0))
        if low < 0:  # 0 is to be white
            low, high = -max(-low, high), max(-low, high)
        image = axes.imshow(
            cells.reshape(-1, columns), SIGNED if low < 0 else "viridis", vmin=low, vmax=high
        )
        axes.set_axis_off()
        axes.set_title(f"hidden layer {number}: {len(a)} × {name}", fontsize=9)
        _scale(figure, image, axes)
    _outputs(places[-1], output, label, names[-1])
    verdict = f"taken for {int(output.argmax())}"
    _headline(
        figure,
        f"The activations of every layer for one sample of class {label}, {verdict}",
        "a cell a unit, row by row from unit 0; of the outputs, the right one is blue, "
        "and orange what it is taken for instead",
    )
    return figure


def _outputs(axes: Any, output: Array, label: int, name: str) -> None:
    predicted = int(output.argmax())
    colours = [OTHER] * len(output)
    colours[predicted] = WRONG
    colours[label] = RIGHT
    axes.barh(range(len(output)), output, color=colours)
    axes.invert_yaxis()
    if len(output) <= MOST_NAMED:
        axes.set_yticks(range(len(output)))
    axes.tick_params(labelsize=8)
    axes.set_box_aspect(1)
    axes.set_title(f"output: {len(output)} × {name}", fontsize=9)


def confusion(matrix: NDArray[np.int64]) -> Figure:
    """Draw a confusion matrix (classes, classes), a row for each class that is right."""
    k = len(matrix)
    named = k <= MOST_NAMED
    figure = _figure(3 + 0.45 * min(k, MOST_NAMED), 2.4 + 0.45 * min(k, MOST_NAMED))
    axes = figure.add_subplot()
    # The right ones would drown the rest: colours are for what goes wrong.
    part = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(part, np.nan)
    highest = float(np.nanmax(part, initial=0)) or 1.0
    image = axes.imshow(part, "Reds", vmin=0, vmax=highest)
    axes.set_facecolor("0.92")
    if named:
        for i, j in np.argwhere(matrix):
            dark = i != j and part[i, j] > 0.6 * highest
            axes.text(
                j, i, f"{matrix[i, j]}", ha="center", va="center", fontsize=8,
                color="white" if dark else "black",
            )  # fmt: skip
        axes.set_xticks(range(k))
        axes.set_yticks(range(k))
    axes.set_xlabel("the network says")
    axes.set_ylabel("it is")
    _scale(figure, image, axes, "% of the class's samples, wrongly classified")
    right, n = int(np.trace(matrix)), int(matrix.sum())
    _headline(figure, "What is taken for what", f"{right:,} of {n:,} right, on the diagonal")
    return figure


def mistakes(x: Array, wrong: Sequence[Mistake]) -> Figure:
    """Draw mistakes (:func:`fastnn.inspecting.mistakes`) in a set of samples x (n, features)."""
    shown = wrong[:MOST_MISTAKES]
    figure, places = _grid(max(len(shown), 1), 1.5, most_columns=5)
    for axes, mistake in zip(places, shown, strict=False):
        _image(axes, x[mistake.sample], GREY)
        axes.set_title(
            f"{mistake.label} taken for {mistake.predicted}\n"
            f"output {mistake.output:.4f}, sample {mistake.sample}",
            fontsize=7,
        )
    if not shown:
        places[0].set_axis_off()
    _headline(
        figure,
        "The mistakes it is surest of" if shown else "No mistakes",
        f"{len(shown)} of {len(wrong):,}; the output is that of the wrong class"
        if shown
        else "every sample is classified rightly",
    )
    return figure


def saliency(x: Array, slope: Array, label: int, predicted: int) -> Figure:
    """Draw one sample x (features,) beside ∂C/∂x (features,) and its magnitude."""
    figure, places = _grid(3, 3.2)
    _image(places[0], x, GREY)
    places[0].set_title(f"the sample: class {label}, taken for {predicted}", fontsize=9)
    limit = float(np.abs(slope).max()) or 1.0
    for axes, values, low, colours, title in (
        (places[1], slope, -limit, SIGNED, "∂C/∂x"),
        (places[2], np.abs(slope), 0.0, "magma", "|∂C/∂x|"),
    ):
        image = _image(axes, values, colours, low, limit)
        axes.set_title(title, fontsize=9)
        _scale(figure, image, axes, format="%.2g")
    _headline(
        figure,
        "The pixels that this sample's cost depends on",
        "a brighter pixel raises the cost where it is red, and lowers it where blue",
    )
    return figure


def sensitivity(slopes: Sequence[Array]) -> Figure:
    """Draw ∂C/∂W, (n_out, n_in) of every layer: how large by layer, and at which pixels."""
    figure = _figure(10, 4.4)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    sizes = [np.abs(slope[slope != 0]) for slope in slopes]
    most = max((float(size.max()) for size in sizes if size.size), default=1.0)
    bins = np.geomspace(1e-7 * most, 1.001 * most, 60)  # less is not worth the room
    for number, (size, slope) in enumerate(zip(sizes, slopes, strict=True), start=1):
        n_out, n_in = slope.shape
        zeros = 100 * (1 - size.size / slope.size)
        label = f"layer {number}, {n_in} to {n_out}" + (f", {zeros:.0f} % are 0" if zeros else "")
        share = np.full(size.size, 100 / slope.size)
        left.hist(size, bins, weights=share, histtype="step", linewidth=1.8, label=label)
    left.set_xscale("log")
    left.set_xlabel("|∂C/∂w|")
    left.set_ylabel("% of the layer's weights")
    left.legend(fontsize=8, loc="upper left")
    left.set_title("by layer", fontsize=9)
    image = _image(right, np.abs(slopes[0]).mean(axis=0), "magma", 0.0)
    right.set_title("first layer: the mean at each pixel", fontsize=9)
    _scale(figure, image, right, "|∂C/∂w|", format="%.2g")
    _headline(
        figure,
        "How sensitive the cost is to each weight",
        "a layer whose slopes are small learns slowly",
    )
    return figure


def curves(epochs: Sequence[Epoch]) -> Figure:
    """Draw the epochs of a training, of a history or a log: cost and accuracy of each set."""
    figure = _figure(10, 4.2)
    sets = {"train": "training set", "validation": "validation set", "test": "test set"}
    for axes, what in zip(figure.subplots(1, 2), ("cost", "accuracy"), strict=True):
        for colour, (of, name) in enumerate(sets.items()):
            of_set = [(each.epoch, getattr(each, f"{of}_{what}")) for each in epochs]
            known = [(number, value) for number, value in of_set if value is not None]
            if known:
                numbers, values = np.transpose(known)
                values = 100 * values if what == "accuracy" else values
                axes.plot(numbers, values, f"C{colour}.-", label=name)
                axes.legend(fontsize=8)
        axes.set_xlabel("epoch")
        axes.set_ylabel("accuracy, %" if what == "accuracy" else "cost")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    _headline(
        figure,
        "How it learned",
        "from where the training set alone still improves, the network overfits",
    )
    return figure


def noise(x: Array, outputs: Array, of_samples: Array) -> Figure:
    """Draw some noise x (n, features), and how sure the network is of it and of true samples.

    Parameters
    ----------
    x
        The noise.
    outputs, of_samples
        The network's outputs for the noise (n, classes), and for samples of a set.
    """
    figure = _figure(11, 4.6)
    parts: Any = figure.subfigures(1, 2)
    images, axes = parts[0].subplots(2, 4).flat, parts[1].subplots()
    for place, row, output in zip(images, x, outputs, strict=False):
        _image(place, row, GREY)
        place.set_title(f"taken for {int(output.argmax())}\n{output.max():.4f}", fontsize=8)
    tops = {"test samples": of_samples.max(axis=1), "noise": outputs.max(axis=1)}
    low, high = (limit(float(limit(top)) for top in tops.values()) for limit in (min, max))
    bins = np.linspace(min(0, low), max(1, high), 41)
    for (name, top), colour in zip(tops.items(), (RIGHT, WRONG), strict=True):
        share = np.full(len(top), 100 / len(top))
        label = f"{name}: above {SURE:g} in {100 * np.mean(top > SURE):.1f} %"
        axes.hist(top, bins, weights=share, alpha=0.5, color=colour, label=label)
    axes.axvline(SURE, color="0.3", linestyle=":")
    axes.set_xlabel("the most active output")
    axes.set_ylabel("% of them")
    axes.legend(fontsize=8, loc="upper left")
    _headline(
        figure,
        "What it says of random pixels",
        "it has to say something: that there are other things than its classes it never learned",
    )
    return figure


def rates(test: RangeTest) -> Figure:
    """Draw a range test: the cost after some mini-batches at each rate, and the suggestion."""
    figure = _figure(7, 4.2)
    axes = figure.add_subplot()
    axes.plot(test.rates, test.costs, "C0.-", label="cost of samples of the training set")
    axes.axhline(test.start, color="0.6", linestyle=":", label="before training")
    if test.suggestion is not None:
        label = f"suggested: {test.suggestion:.2g}"
        axes.axvline(test.suggestion, color="C1", label=label)
    axes.set_xscale("log")
    axes.set_xlim(LOWEST, HIGHEST)
    axes.set_ylim(0, 1.5 * max(test.start, min(test.costs, default=test.start)))
    axes.set_xlabel("learning rate η")
    axes.set_ylabel("cost")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _headline(figure, "Which learning rate", "one training, in which the rate grows")
    return figure


def is_picture(path: Path) -> bool:
    """Return whether a file is a picture that :func:`png` made."""
    with path.open("rb") as file:
        return MARK in file.read(1024)


def png(figure: Figure) -> bytes:
    """Return the bytes of a PNG file of a figure; the same figure gives the same bytes."""
    file = io.BytesIO()
    software = MARK.decode().removeprefix("tEXtSoftware\0")
    figure.savefig(file, format="png", dpi=120, metadata={"Software": software})
    return file.getvalue()


def _figure(width: float, height: float) -> Figure:
    """Return a figure of so many inches, without pyplot: no window system is asked for."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError:
        raise ArgumentError(
            "pictures need matplotlib, which the extra 'plot' brings: pip install -e '.[plot]'"
        ) from None
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))


def _grid(n: int, inches: float, most_columns: int = 10) -> tuple[Figure, list[Any]]:
    """Return a figure with n places of so many inches a side."""
    columns = min(n, most_columns)
    rows = math.ceil(n / columns)
    figure = _figure(max(columns * 1.15 * inches + 1, 5), rows * 1.15 * inches + 1)
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in places[n:]:
        axes.remove()
    return figure, places[:n]


def _image(
    axes: Any, row: Array, colours: str, low: float | None = None, high: float | None = None
) -> Any:
    """Show one value a pixel, (features,): as a square image if they make one, else as stripes."""
    side = math.isqrt(len(row))
    square = side * side == len(row)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(
        row.reshape(side if square else 1, -1),
        colours,
        vmin=low,
        vmax=high,
        aspect="equal" if square else "auto",
    )


def _scale(figure: Figure, image: Any, axes: Any, label: str = "", **options: Any) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, pad=0.02, **options)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _headline(figure: Figure, title: str, below: str) -> None:
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(below, fontsize=9)
