"""``fastnn bench``."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import click

from fastnn.cli.options import devices_option, json_option, network_option, option, quiet_option
from fastnn.cli.output import Notes, emit, foreign_code, versions
from fastnn.errors import DeviceError

if TYPE_CHECKING:
    from fastnn.measuring import Contender


@click.command()
@network_option
@option("--batch-size", type=click.IntRange(1, 10**9), default=10, help="Samples a mini-batch.")
@devices_option
@option(
    "--seconds",
    type=click.FloatRange(0.01, 3600),
    default=1.0,
    help="Of timing each device, in five turns.",
)
@json_option
@quiet_option
def bench(
    sizes: tuple[int, ...],
    batch_size: int,
    devices: list[str] | None,
    seconds: float,
    as_json: bool,
    quiet: bool,
) -> int:
    """Measure how fast devices train a network of yours: samples per second, side by side.

    Each is compared with NumPy first, and timed by its own step and by the plain one. The images
    are synthetic, as sparse as MNIST's. A rate is the median of five rounds, of each the shortest
    time: a training, which the machine's other work holds up, is some per cent slower. Ends with 1
    if a device fails that was not named.
    """
    from fastnn.backends.registry import usable
    from fastnn.measuring import Contest, in_turns

    notes, failed = Notes(quiet), dict[str, str]()
    with foreign_code():
        names = devices if devices is not None else usable()
        contest = Contest(sizes, batch_size)
        entered: list[Contender] = []
        for name in names:
            notes.say(f"preparing {name}")
            try:
                own = contest.enter(name)
                entered.append(own)
                if own.step != "plain":
                    entered.append(contest.enter(name, fused=False))
            except DeviceError as error:
                if name in (devices or []):  # who asks for it wants to know at once
                    raise
                failed[name] = str(error)
        notes.say(f"timing {len(entered)} for {seconds:g} s each")
        times = in_turns([contender.trial for contender in entered], seconds)
    rows = [_row(each, mine, batch_size) for each, mine in zip(entered, times, strict=True)]
    rows.sort(key=lambda row: -row["samples_per_second"])
    network = {"network": "-".join(map(str, sizes)), "batch_size": batch_size}
    if as_json:
        emit(
            "bench",
            {**network, "seconds": seconds, "rows": rows, "failed": failed, "versions": versions()},
        )
    else:
        _show(network, rows)
    for name, why in failed.items():
        notes.say(f"{name} failed: {why}")
    return 1 if failed else 0


def _row(contender: Contender, seconds: list[float], batch_size: int) -> dict[str, Any]:
    median = statistics.median(seconds)
    return {
        "device": contender.device,
        "step": contender.step,
        "samples_per_second": batch_size / median,
        "us_per_step": 1e6 * median,
        "spread": (max(seconds) - min(seconds)) / median,
        "prepare_ms": contender.prepare_ms,
        "max_relative_error": contender.max_relative_error,
        "detail": contender.trial.network.backend.detail,
    }


def _show(network: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    click.echo(f"{network['network']}, mini-batches of {network['batch_size']}")
    table = [["device", "step", "samples/s", "µs a step", "spread", "ready in", "to the best"]]
    for row in rows:
        best = row["samples_per_second"] / rows[0]["samples_per_second"]
        table.append(
            [
                row["device"],
                row["step"],
                f"{row['samples_per_second']:,.0f}",
                f"{row['us_per_step']:,.2f}",
                f"{100 * row['spread']:.0f} %",
                f"{row['prepare_ms']:,.0f} ms",
                f"{best:.2f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for device, step, *figures in table:
        cells = [device.ljust(widths[0]), step.ljust(widths[1])]
        cells += [cell.rjust(width) for cell, width in zip(figures, widths[2:], strict=True)]
        click.echo("  ".join(cells))
