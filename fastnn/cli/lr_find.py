"""``fastnn lr-find``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fastnn.cli.building import Blueprint, descent_of
from fastnn.cli.options import (
    batch_size_option,
    data_option,
    descent_options,
    json_option,
    option,
    quiet_option,
    shape_options,
    step_options,
)
from fastnn.cli.output import Notes, describe_data, describe_device, emit, load_data

if TYPE_CHECKING:
    from fastnn.range_test import RangeTest

EVERY = 5  # rates, of the twenty in a decade, have a line
WIDTH = 50  # columns of the longest bar


@click.command("lr-find")
@data_option
@shape_options
@batch_size_option
@descent_options
@option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is drawn.")
@step_options
@click.option("--plot", type=click.Path(), help="A PNG of the curve. Needs the extra plot.")
@json_option
@quiet_option
def lr_find(
    source: str | None,
    shape: dict[str, Any],
    batch_size: int | None,
    descends: dict[str, Any],
    seed: int,
    fused: bool,
    threads: int | None,
    plot: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Find a learning rate: train a while at rates that grow from tiny to too large.

    Takes the options of `fastnn train` that say what is trained and how it descends, and saves no
    network. Ends with 1 if no rate lowers the cost.
    """
    from fastnn import drawing, range_test
    from fastnn.cache import write_whole
    from fastnn.outputs import check_output

    notes = Notes(quiet)
    blueprint = Blueprint(**shape, seed=seed)
    descent = descent_of(**descends, hidden=shape["hidden"])
    target = None
    if plot is not None:
        target = check_output(plot, "a picture of ours", drawing.is_picture)
    datasets = load_data(source if source is not None else "digits", notes)
    network, own, _ = blueprint.network(datasets, datasets.train, batch_size, descent, fused)
    sizes = "-".join(map(str, network.sizes))
    notes.say(f"{sizes} on {datasets.name}, {network.backend.spec}: the cost at growing rates")
    test = range_test(
        network,
        datasets.train,
        batch_size=batch_size,
        **descent,
        seed=seed,
        fused=own,
        threads=threads,
    )
    if as_json:
        report: dict[str, Any] = {
            "device": describe_device(network.backend),
            "data": describe_data(datasets),
            "network": {"sizes": network.sizes},
            **test._asdict(),
        }
        emit("lr-find", report)
    else:
        _show(test)
    if target is not None:
        write_whole(target, drawing.png(drawing.rates(test)))
        notes.say(f"picture {plot}")
    return 0 if test.suggestion is not None else 1


def _show(test: RangeTest) -> None:
    click.echo(f"{'η':>8}  {'cost':>9}")
    longest = max(test.start, min(test.costs, default=0))
    shown = list(zip(test.rates, test.costs, strict=True))
    # The last one, where it diverged, has a line in any case.
    for rate, cost in shown[:-1][::EVERY] + shown[-1:]:
        part = cost / longest
        bar = "█" * round(WIDTH * part) if part <= 1 else "█" * WIDTH + "▶"
        click.echo(f"{rate:8.2g}  {cost:9.4g}  {bar}".rstrip())
    if test.suggestion is None:
        click.echo("no rate lowers the cost by a tenth: can this network learn these data?")
    else:
        click.echo(f"suggested: --learning-rate {test.suggestion:.2g}")
