"""``fastnn devices``."""

from __future__ import annotations

from dataclasses import asdict

import click

from fastnn.cli.output import emit, foreign_code, json_option, printable


@click.command()
@json_option
def devices(as_json: bool) -> None:
    """List the devices, whether they can be used here, and if not, why.

    On each that can, a small network's gradients are computed and checked.
    """
    from fastnn.backends.registry import devices as reports

    rows = []
    with foreign_code():
        for report in reports():
            reason = report.reason or _wrong(report.name)
            rows.append({**asdict(report), "reason": reason, "usable": reason is None})
    if as_json:
        emit("devices", {"devices": rows})
        return
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        state = "works" if row["usable"] else "cannot be used"
        about = row["detail"] if row["usable"] else row["reason"]
        line = f"{row['name']:<{width}}  {row['source']:<8}  {state:<14}  "
        click.echo(printable(line + " ".join(str(about).split())).rstrip())


def _wrong(name: str) -> str | None:
    """Compute something on the device, and return None if it is right, else what is wrong."""
    import numpy as np

    from fastnn import DeviceError, Network
    from fastnn.backends.registry import anothers_code
    from fastnn.testing import gradient_error

    x = np.random.default_rng(0).standard_normal((5, 4))
    y = np.eye(3)[[0, 1, 2, 1, 0]]
    try:
        with anothers_code(name):
            network = Network([4, 6, 3], device=name, dtype="float64")
            error = gradient_error(network, x, y)
    except DeviceError as failure:
        return str(failure)
    if not error < 1e-6:
        return f"it computes wrong gradients, off by {error:.1g} of the largest"
    return None
