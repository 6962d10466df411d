"""``fastnn train --resume``: what a training was told before stands as the options' defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fastnn import Checkpoint

__all__ = ["resume"]

# The settings that an option gives as it is, by the same name.
SAME = [
    *("epochs", "batch_size", "learning_rate", "l1", "l2", "clip_norm", "patience", "seed"),
    *("shuffle", "device", "precision", "fused", "threads"),
]


def resume(ctx: click.Context, param: click.Parameter, folder: str | None) -> Checkpoint | None:
    """Read a checkpoint, and let its settings be the defaults of the options yet to be read.

    What is given beside it is thus compared with them where everything else is, by the training.
    """
    if folder is None or ctx.resilient_parsing:
        return None
    from fastnn import Checkpoint
    from fastnn.errors import ModelError

    checkpoint = Checkpoint(folder, resume=True)
    try:
        ctx.default_map = _options(checkpoint)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ModelError(f"{folder} is damaged: its settings make no sense") from error
    return checkpoint


def _options(checkpoint: Checkpoint) -> dict[str, str]:
    """Return by their parameters' names what options would have given these settings."""
    settings, network = checkpoint.settings, checkpoint.network
    optimiser, schedule = dict(settings["optimiser"]), dict(settings["schedule"])
    validation, origin = settings["sets"].get("validation"), network.trained_on
    options = {
        **{name: settings[name] for name in SAME},
        "source": origin and origin["name"],
        "validation": validation and validation[0],
        "hidden": ",".join(map(str, network.sizes[1:-1])) or "none",
        "activation": ",".join(network.activations[:-1]) or None,
        "output": network.output,
        "cost": network.cost,
        "init": network.init,
        "optimiser": optimiser["name"],
        "momentum": optimiser.get("momentum"),
        "nesterov": optimiser.get("nesterov"),
        # A checkpoint from before there were these has none.
        "dropout": _joined(settings.get("dropout")),
        "class_weights": _joined(settings.get("class_weights")),
        "warm_up": schedule.pop("warm_up"),
        "schedule": _text(schedule),
        "every": checkpoint.every,
    }
    return {name: str(value) for name, value in options.items() if value is not None}


def _joined(value: Any) -> Any:
    """Return a list as an option takes it, and anything else as it is."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _text(schedule: Mapping[str, Any]) -> str:
    name, *numbers = schedule.values()
    return f"{name}:{','.join(map(str, numbers))}" if numbers else str(name)
