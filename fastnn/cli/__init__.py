"""The command ``fastnn``: results on stdout, progress and hints on stderr, and exit codes.

0 done, 1 failed, 2 wrong usage, 3 the device asked for cannot be used, 4 data or model missing or
malformed, 5 diverged, 130 interrupted.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

import click

from fastnn import __version__
from fastnn.cli.bench import bench
from fastnn.cli.compare import compare
from fastnn.cli.data import data
from fastnn.cli.devices import devices
from fastnn.cli.inspect import inspect
from fastnn.cli.lr_find import lr_find
from fastnn.cli.model import evaluate, predict
from fastnn.cli.output import INTERRUPTED, Group, printable
from fastnn.cli.train import train
from fastnn.cli.tune import tune
from fastnn.errors import FastnnError

__all__ = ["main"]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="fastnn %(version)s")
def cli() -> None:
    """Train the multilayer perceptron of the teaching texts, on the device of your choice.

    Without further ado: `fastnn train`.
    """


for command in (train, lr_find, tune, evaluate, predict, inspect, devices, bench, compare, data):
    cli.add_command(command)


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code; ``args`` default to those of the process."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # in many an encoding there is no η
    try:
        code = cli.main(args, prog_name="fastnn", standalone_mode=False)
        if sys.stdout is not None:  # as it is where it was closed
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _fail("interrupted", INTERRUPTED)
    except FastnnError as error:
        code = _fail(str(error), error.exit_code)
    except MemoryError as error:
        code = _fail(f"out of memory: {error or 'the network or the data are too large'}")
    except BrokenPipeError:  # the reader of our output went away: nothing is left to say, to no one
        sys.stdout = None
        code = 1
    except OSError as error:
        what = error.filename or "the result cannot be written"
        code = _fail(f"{what}: {error.strerror or error}")
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int = 1) -> int:
    click.echo(f"fastnn: {printable(message)}", err=True)
    return code
