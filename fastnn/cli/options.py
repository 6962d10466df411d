"""The options that commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from typing import Any

import click

from fastnn.checks import BALANCED, MOST_THREADS, positive_number, weights_of_classes
from fastnn.errors import ArgumentError


def _hidden(ctx: click.Context, param: click.Parameter, value: str) -> list[int]:
    sizes = [_whole(size) for size in _split(value)] if value != "none" else []
    if not all(sizes):
        raise click.BadParameter(
            f"{value!r} is neither a size, like 30, nor several, like 16,16, nor none"
        )
    return sizes


def _batch_size(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    if value == "full":
        return None
    size = _whole(value)
    if not size:
        raise click.BadParameter(
            f"{value!r} is neither a number from 1 nor 'full', the whole training set"
        )
    return size


def _rate(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is None:
        return None
    try:
        return positive_number("it", value)
    except ArgumentError as error:
        raise click.BadParameter(str(error)) from None


def _class_weights(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> str | tuple[float, ...] | None:
    if value is None:
        return None
    with suppress(ValueError, ArgumentError):
        return weights_of_classes(value if value == BALANCED else list(map(float, _split(value))))
    raise click.BadParameter(
        f"{value!r} is neither {BALANCED!r} nor a number for each class, 0 or more and not all 0, "
        "like 1,1,2.5"
    )


def _validation(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | float | None:
    if value is None:
        return None
    if size := _whole(value):
        return size
    with suppress(ValueError):
        if 0 < (part := float(value)) < 1:
            return part
    raise click.BadParameter(
        f"{value!r} is neither a part, like 0.1, nor a number of samples, like 10000"
    )


def _dropout(ctx: click.Context, param: click.Parameter, value: str) -> float | list[float]:
    try:
        parts = [float(part) for part in _split(value)]
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither a part, like 0.5, nor several, like 0.2,0.5"
        ) from None
    return parts if "," in value else parts[0]


def _one_or_each(ctx: click.Context, param: click.Parameter, value: str) -> str | list[str]:
    """Read a value, or several with commas between."""
    return _split(value) if "," in value else value


def _whole(value: str) -> int:
    """Return a number from 1 that a machine could hold so many of, or 0."""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else 0


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")]


def _sizes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9][0-9]{0,14}(-[1-9][0-9]{0,14})+", value):
        raise click.BadParameter(f"{value!r} is not the sizes of layers, like 784-30-10")
    return tuple(map(int, value.split("-")))


def _devices(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    if value is None:
        return None
    names = _split(value)
    if not all(names):
        raise click.BadParameter(f"{value!r} is not a list of devices, like numpy,numba")
    if len(set(names)) < len(names):
        raise click.BadParameter(f"{value!r} names a device twice")
    return names


option = partial(click.option, show_default=True)

data_option = click.option(
    "--data",
    "source",
    metavar="NAME|PATH",
    help="digits, mnist, synthetic, a folder of IDX files, or an .npz file.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, or one that `fastnn devices` lists.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress and no hints.")
devices_option = click.option(
    "--devices",
    metavar="NAME,...",
    callback=_devices,
    help="Of those that `fastnn devices` lists; by default all that can be used here.",
)
hidden_option = option(
    "--hidden", default="30", callback=_hidden, help="Hidden layers: 30, or 16,16, or none."
)
batch_size_option = option(
    "--batch-size",
    default="10",
    callback=_batch_size,
    help="Samples a mini-batch; 1 learns on-line, full is gradient descent.",
)
rate_option = click.option(
    "--learning-rate", "--eta", type=float, callback=_rate, help="η; 0.5, for adam and adamw 0.001."
)
validation_option = click.option(
    "--validation",
    metavar="PART|NUMBER",
    callback=_validation,
    help="Training samples to validate by instead, the last ones: 0.1 or 10000.",
)
network_option = option(
    "--network",
    "sizes",
    default="784-30-10",
    callback=_sizes,
    help="Units of every layer, input first.",
)


def _together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the decorator that gives a command all of them, in that order."""

    def decorate(command: Any) -> Any:
        for each in reversed(options):
            command = each(command)
        return command

    return decorate


def _as_one(name: str, *options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the decorator that gives a command all of them, and their values as one argument."""

    def decorate(command: Callable[..., int]) -> Any:
        @wraps(command)
        def gathering(**values: Any) -> int:
            return command(**{name: {each: values.pop(each) for each in names}}, **values)

        before = len(getattr(command, "__click_params__", ()))
        decorated = _together(*options)(gathering)
        names = [param.name for param in decorated.__click_params__[before:]]
        return decorated

    return decorate


# What a network is and where it is, what descends its cost, and by which step: see cli.building.
shape_options = _as_one(
    "shape",
    device_option,
    option("--precision", default="full", help="Of products: full, or tf32 on GPUs that have it."),
    hidden_option,
    option(
        "--activation",
        default="sigmoid",
        callback=_one_or_each,
        help="Of the hidden layers, one or one each: sigmoid, tanh, relu, leaky-relu, identity.",
    ),
    option("--output", default="sigmoid", help="Of the output layer: one of those, or softmax."),
    option(
        "--cost",
        default="cross-entropy",
        help="quadratic, squared-error, cross-entropy or log-likelihood.",
    ),
    option("--init", default="scaled", help="scaled, normal, glorot or he."),
)
descent_options = _as_one(
    "descends",
    option("--optimiser", default="sgd", help="sgd, adam or adamw."),
    option("--momentum", type=float, default=0.0, help="Of sgd: 0 to below 1, such as 0.9."),
    option("--nesterov", is_flag=True, help="Let the momentum look ahead."),
    option("--l1", type=float, default=0.0, help="λ of the penalty λ/n Σ|w|."),
    option("--l2", type=float, default=0.0, help="λ of the penalty λ/2n Σw²."),
    click.option("--clip-norm", type=float, help="Shorten longer gradients to that length."),
    option(
        "--dropout",
        default="0",
        metavar="PART,...",
        callback=_dropout,
        help="The part of the hidden units that rests; or of the input and each layer: 0.2,0.5.",
    ),
    click.option(
        "--class-weights",
        metavar="balanced|NUMBER,...",
        callback=_class_weights,
        help="How much a sample of each class counts, like 1,1,2.5; balanced: as much in all.",
    ),
)
step_options = _together(
    option("--fused/--no-fused", default=True, help="The device's own step, where it has one."),
    option(
        "--threads",
        type=click.IntRange(1, MOST_THREADS),
        help="Of a device on the CPU; by default as many as pay for the network's size.",
    ),
)
