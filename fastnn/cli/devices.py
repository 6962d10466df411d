"""``fastnn devices``."""

from __future__ import annotations

from dataclasses import asdict

import click

from fastnn.cli.output import emit, foreign_code, json_option, printable


@click.command()
@json_option
def devices(as_json: bool) -> None:
    """List the devices, whether they can be used here, and if not, why.

    On each that can, a small network is trained, and compared with the reference.
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
    """Train a little on the device, and return None if it comes out right, else what is wrong."""
    import numpy as np

    from fastnn import DeviceError, Network, train
    from fastnn.backends.registry import anothers_code
    from fastnn.testing import StrictBackend

    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 256, (23, 6), dtype=np.uint8), np.arange(23) % 3

    def trained(device: str | StrictBackend, fused: bool) -> np.ndarray:
        network = Network([6, 5, 3], device=device, dtype="float64")
        train(network, (x, labels), epochs=2, batch_size=5, fused=fused)
        return network.backend.to_numpy(network.buffer)

    right = trained(StrictBackend(dtype="float64"), fused=False)
    for fused in (False, True):
        try:
            with anothers_code(name):
                off = np.abs(trained(name, fused) - right).max() / np.abs(right).max()
        except DeviceError as error:
            return str(error)
        if not off < 1e-9:
            step = "its own step" if fused else "the plain step"
            return f"it trains wrongly: by {step} the weights come out {off:.1g} off"
    return None
