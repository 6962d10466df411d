"""``fastnn compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fastnn.checks import MOST_EPOCHS
from fastnn.cli.options import (
    batch_size_option,
    data_option,
    devices_option,
    hidden_option,
    json_option,
    quiet_option,
    rate_option,
)
from fastnn.cli.output import Notes, describe_data, emit, foreign_code, load_data

if TYPE_CHECKING:
    from fastnn.comparing import Comparison
    from fastnn.data import Datasets


# Where NumPy's own rounding allows so much, devices that agree need not be right.
TELLS_LITTLE = 0.1


@click.command()
@data_option
@devices_option
@hidden_option
@click.option("--epochs", type=click.IntRange(1, MOST_EPOCHS), default=3, show_default=True)
@batch_size_option
@rate_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--fused/--no-fused", default=True, show_default=True)
@json_option
@quiet_option
def compare(
    source: str | None,
    devices: list[str] | None,
    hidden: list[int],
    epochs: int,
    batch_size: int | None,
    learning_rate: float | None,
    seed: int,
    fused: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Train the same network on several devices, and see that they go the same way.

    NumPy does so in float64. A device may be off from that by what rounding does to this very
    training, which NumPy in float32 shows. Ends with 1 if one is off by more.
    """
    from fastnn.backends.registry import usable
    from fastnn.comparing import compare as run
    from fastnn.optimisers import SGD

    notes = Notes(quiet)
    with foreign_code():
        devices = devices if devices is not None else usable()
    datasets = load_data(source if source is not None else "digits", notes)
    sizes = [datasets.features, *hidden, datasets.classes]
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": SGD.learning_rate if learning_rate is None else learning_rate,
        "seed": seed,
        "fused": fused,
    }
    shape = "-".join(map(str, sizes))
    notes.say(f"{shape} on {datasets.name}, by NumPy in float64 and on {', '.join(devices)}")
    with foreign_code():
        result = run(devices, sizes, datasets.train, **settings)
    if as_json:
        _emit(result, datasets, sizes, settings)
    else:
        _show(result)
    if result.allowed[-1] > TELLS_LITTLE:
        notes.say("rounding alone takes this training far; a smaller --learning-rate tells more")
    return 0 if result.agree else 1


def _emit(
    result: Comparison, datasets: Datasets, sizes: list[int], settings: dict[str, Any]
) -> None:
    emit(
        "compare",
        {
            "data": describe_data(datasets),
            "network": {"sizes": sizes},
            "settings": settings,
            "exact": {"train_cost": result.exact},
            "allowed": result.allowed,
            "devices": [
                {
                    "device": course.device,
                    "step": course.step,
                    "train_cost": course.costs,
                    "max_relative_difference": course.off,
                    "agrees": course.agrees,
                }
                for course in result.courses
            ],
            "agree": result.agree,
        },
    )


def _show(result: Comparison) -> None:
    heads = ["epoch", "cost, exact"]
    heads += [f"{course.device}, {course.step}: cost, off" for course in result.courses]
    table = [[*heads, "may be off"]]
    for i, (exact, allowed) in enumerate(zip(result.exact, result.allowed, strict=True)):
        cells = [f"{i + 1}", f"{exact:.7f}"]
        for course in result.courses:
            parted = allowed < course.off[i]
            cells.append(f"{course.costs[i]:.7f}, {course.off[i]:.1e}{' (!)' if parted else ''}")
        table.append([*cells, f"{allowed:.1e}"])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())
    parted_ones = [course.device for course in result.courses if not course.agrees]
    click.echo(f"{', '.join(parted_ones)} parted" if parted_ones else "they agree")
