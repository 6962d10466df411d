"""``fastnn devices``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from fastnn.cli.options import json_option, network_option
from fastnn.cli.output import emit, foreign_code, printable
from fastnn.errors import DeviceError

if TYPE_CHECKING:
    from fastnn.backends.registry import DeviceReport
    from fastnn.testing.self_test import SelfTest


@click.command()
@network_option
@click.option(
    "--batch-size",
    type=click.IntRange(1, 10**9),
    default=10,
    show_default=True,
    help="Samples a mini-batch.",
)
@json_option
def devices(sizes: tuple[int, ...], batch_size: int, as_json: bool) -> None:
    """List the devices, whether they can be used here, and if not, why.

    Those that can are tried: 100 mini-batches of a network are compared with NumPy's, and timed.
    """
    from fastnn.backends.registry import devices as reports
    from fastnn.testing.self_test import SelfTest

    with foreign_code():
        self_test = SelfTest(sizes, batch_size)
        network = {"network": "-".join(map(str, sizes)), "batch_size": batch_size}
        rows = [_row(report, self_test, network) for report in reports()]
    if as_json:
        emit("devices", {"devices": rows})
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        state = "works" if row["usable"] else "cannot be used"
        about = row["detail"] if row["usable"] else row["reason"]
        head = f"{row['name']:<{width}}  {row['source']:<8}  {state:<14}  "
        click.echo(_line(head, about))
        for line in _below(row):
            click.echo(_line(" " * (width + 2), line))


def _row(report: DeviceReport, self_test: SelfTest, network: dict[str, Any]) -> dict[str, Any]:
    """Return what the JSON says of a device, once it has been tried."""
    reason, measured = report.reason, None
    if reason is None:
        try:
            measured = {**network, **self_test(report.name)._asdict()}
        except DeviceError as error:
            reason = str(error)
    return {
        "name": report.name,
        "source": report.source,
        "detail": report.detail,
        "reason": reason,
        "usable": reason is None,
        "checks": [check._asdict() for check in report.checks],
        "self_test": measured,
    }


def _below(row: dict[str, Any]) -> Iterator[str]:
    """Give the lines that stand below a device's own."""
    for check in row["checks"]:
        yield f"{'ok' if check['ok'] else 'not ok'}: {check['name']}, {check['detail']}"
        if check["remedy"]:
            yield f"mend it: {check['remedy']}"
    if tried := row["self_test"]:
        yield (
            f"{tried['network']}, mini-batches of {tried['batch_size']}: {tried['step']} step, "
            f"{tried['us_per_step']:.3g} microseconds each, ready in {tried['prepare_ms']:.0f} ms, "
            f"{tried['max_relative_error']:.1g} off"
        )
        if tried["why"]:
            yield tried["why"]


def _line(head: str, text: object) -> str:
    return printable(head + " ".join(str(text).split())).rstrip()
