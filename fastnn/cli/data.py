"""``fastnn data list | fetch | path``."""

from __future__ import annotations

from typing import Any

import click

from fastnn.cli.options import json_option, quiet_option
from fastnn.cli.output import Group, Notes, downloading, emit


@click.group(cls=Group)
def data() -> None:
    """List, download and find data sets."""


@data.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the data sets that have a name."""
    from fastnn.data import BUILT_IN, is_cached

    rows: list[dict[str, Any]] = [
        {"name": name, "what": what, "here": name != "mnist" or is_cached()}
        for name, what in BUILT_IN.items()
    ]
    if as_json:
        emit("data list", {"data": rows})
        return
    for row in rows:
        state = "here" if row["here"] else "not downloaded"
        click.echo(f"{row['name']:<10} {state:<15} {row['what']}")


@data.command()
@click.argument("name", default="mnist")
@quiet_option
def fetch(name: str, quiet: bool) -> None:
    """Download MNIST, 11 MB, unless it is here, and print where it is."""
    from fastnn.data import BUILT_IN, fetch_mnist
    from fastnn.errors import known_name

    if known_name("data set", name, BUILT_IN) != "mnist":
        raise click.UsageError(f"{name} needs no download; the name of what does is mnist")
    with downloading(Notes(quiet)) as on_progress:
        path = fetch_mnist(on_progress)
    click.echo(path)


@data.command()
def path() -> None:
    """Print the folder that downloaded data are kept in."""
    from fastnn.cache import cache_folder

    click.echo(cache_folder("data"))
