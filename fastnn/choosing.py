"""``auto``: each device tries this network, this mini-batch, these data; the fastest is taken."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastnn.backends.registry import AUTO, device, reasons
from fastnn.cache import cache_folder, write_whole
from fastnn.checks import layer_sizes, whole_number, yes_or_no
from fastnn.data import Dataset
from fastnn.descent import Descent
from fastnn.errors import ArgumentError, DeviceError, known_name
from fastnn.initialisers import initial_parameters
from fastnn.network import Network
from fastnn.race import Rates, race
from fastnn.scoring import LabelledSamples, fitting
from fastnn.threads import processors
from fastnn.training import batch_size_of
from fastnn.trial import Trial

__all__ = ["Choice", "choose"]

# Samples that are enough to time steps with, but for large mini-batches, of which so many are.
SAMPLES, MINI_BATCHES = 16_384, 4
# Devices that are no farther apart than this, in parts of the faster's rate, chance may put in any
# order: the first of AUTO among them is taken, the same one each time.
TIE = 0.1
# What bears on speed, of all that is installed.
PACKAGES = ("cupy-cuda12x", "cupy-cuda13x", "fastnn-mlp", "numba", "numpy", "scipy")

# What a network takes but its sizes and its device.
SETTINGS = ("activation", "output", "cost", "init", "seed", "dtype")


class Choice(NamedTuple):
    """What was taken.

    Attributes
    ----------
    device
        The device, as :func:`fastnn.device` takes it.
    fused
        Whether its own step is the faster one.
    why
        What each came to, in a line.
    """

    device: str
    fused: bool
    why: str


def choose(
    sizes: Sequence[int],
    train_set: LabelledSamples,
    batch_size: int | None,
    *,
    measure: bool = True,
    fused: bool = True,
    descent: Mapping[str, Any] | None = None,
    **network: Any,
) -> Choice:
    """Return the device that trains a network the fastest, and by which of its steps.

    Every device that can be used takes some mini-batches. What they came to is kept for this
    machine, these versions and this shape.

    Parameters
    ----------
    sizes, network
        Of :class:`fastnn.Network`: the sizes, and what else it takes but the device.
    train_set, batch_size
        Of :func:`fastnn.train`: what it is to be trained on, and samples in a mini-batch.
    measure
        False takes the first device of a fixed list that can be used, as the environment variable
        ``FASTNN_AUTO=static`` does.
    fused
        Of :func:`fastnn.train`: False leaves out the steps of the devices' own.
    descent
        Of :func:`fastnn.train`: optimiser, l1, l2, clip_norm, dropout and class_weights, those that
        are not the defaults.

    Raises
    ------
    ArgumentError, DataError
        As by the two, for what makes no sense or does not fit.
    DeviceError
        If no device can be used.
    """
    static = os.environ.get("FASTNN_AUTO", "")
    if static not in ("", "static"):
        raise ArgumentError(f"FASTNN_AUTO can be 'static', or not be set; it is {static!r}")
    fused = yes_or_no("fused", fused)
    if static or not yes_or_no("measure", measure):
        return Choice(device("auto").spec, fused, f"the first usable of {', '.join(AUTO)}")
    for name in network:
        known_name("setting", name, SETTINGS)
    begun = _undrawn(sizes, **network, device="numpy")
    data = fitting(begun, "training", train_set)
    batch_size = batch_size_of(batch_size, len(data))
    descent = dict(_descent(descent, begun.sizes[-1]))
    few = slice(min(max(SAMPLES, MINI_BATCHES * batch_size), len(data)))
    # That there are weights takes time, which ones does not.
    weighted = descent.pop("class_weights", None) is not None or data.weights is not None
    away = reasons()
    path = _path(
        {
            "sizes": begun.sizes,
            "batch_size": batch_size,
            "network": network,
            "descent": descent,
            "fused": fused,
            "weighted": weighted,
            "samples": few.stop,
            "rows": data.x.dtype.name,
            "away": away,
        }
    )
    names = [name for name, reason in away.items() if reason is None]
    rates, failed = _kept(path, names), dict[str, str]()
    if rates is not None:
        try:
            device(_best(rates), begun.backend.dtype)
        except DeviceError:  # it could be used when that was measured
            rates = None
    if rates is None:
        weights = np.ones(few.stop) if weighted else None
        some = Dataset(data.x[few], data.labels[few], weights)

        @cache
        def there(name: str) -> Network:
            if name == "numpy":
                return begun
            return _undrawn(sizes, **network, device=device(name, begun.backend.dtype))

        def trial(name: str, own: bool) -> Trial:
            return Trial(there(name), some, batch_size, fused=own and fused, **descent)

        rates, failed = race(names, trial)
        if rates and not failed:
            with suppress(OSError):
                write_whole(path, json.dumps(rates).encode())
    absent = {name: reason for name, reason in {**away, **failed}.items() if reason}
    if not rates:
        lines = [f"{name}: {reason}" for name, reason in absent.items()]
        raise DeviceError("no device can be used here.\n  " + "\n  ".join(lines))
    best, fastest = _best(rates), _fastest(rates)
    others = sorted(fastest.keys() - {best}, key=fastest.__getitem__, reverse=True)
    said = [
        f"{best}: {_short(fastest[best])} samples/s",
        *(f"{name} {_short(fastest[name])}" for name in others),
    ]
    why = "; ".join([", ".join(said), *(f"{name}: {_clause(absent[name])}" for name in absent)])
    return Choice(best, fused and rates[best]["own"] == fastest[best], why)


def _undrawn(
    sizes: Sequence[int], *, init: str = "scaled", seed: int = 0, **network: Any
) -> Network:
    """Return a network as Network does, or refuse it, with weights that took no time to draw."""
    initial_parameters((1, 1), init, whole_number("seed", seed, 0))
    units = layer_sizes(sizes)
    weights = [np.broadcast_to(np.float32(1 / m), (n, m)) for m, n in pairwise(units)]
    biases = [np.broadcast_to(np.float32(0), n) for n in units[1:]]
    return Network.from_parameters(weights, biases, **network)


def _descent(settings: Mapping[str, Any] | None, classes: int) -> Mapping[str, Any]:
    """Return them, or raise an ArgumentError unless they make sense for so many classes."""
    settings = {} if settings is None else settings
    if not isinstance(settings, Mapping):
        raise ArgumentError(f"descent must be a dictionary, or None, not {settings!r}")
    for name in settings:
        known_name("setting", name, [field.name for field in fields(Descent)])
    Descent(**settings).check_classes(classes)
    return settings


def _fastest(rates: Rates) -> dict[str, float]:
    """Return the rate of each device's faster step."""
    return {name: max(by_step.values()) for name, by_step in rates.items()}


def _best(rates: Rates) -> str:
    """Return the device to take: the fastest, or the first that is as good."""
    fastest = _fastest(rates)
    first = max(fastest, key=fastest.__getitem__)
    tied = (name for name in AUTO if fastest.get(name, 0) >= (1 - TIE) * fastest[first])
    return next(tied, first)


def _path(what: dict[str, Any]) -> Path:
    """Return where it is kept how fast that was trained, on this machine by these versions."""
    versions = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    machine = [
        platform.machine(),
        _processor(),
        processors(),
        os.environ.get("CUDA_VISIBLE_DEVICES"),
    ]
    about = json.dumps([what, versions, machine], sort_keys=True, default=str)
    return cache_folder("auto") / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}.json"


def _processor() -> str:
    """Return the processor's name, where the system tells it."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name"))
    return platform.processor()


def _kept(path: Path, names: Sequence[str]) -> Rates | None:
    """Return the rates in a file, or None if there is none that makes sense for these devices."""
    try:
        kept = json.loads(path.read_bytes())
        rates = {
            str(name): {str(step): float(rate) for step, rate in by_step.items()}
            for name, by_step in kept.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        return None
    steps = {step for by_step in rates.values() for step in by_step}
    all_rates = [rate for by_step in rates.values() for rate in by_step.values()]
    sensible = (
        rates.keys() == set(names)
        and all("own" in by_step for by_step in rates.values())
        and steps <= {"own", "plain"}
        and all(0 < rate < math.inf for rate in all_rates)
    )
    return rates if sensible and rates else None


def _short(rate: float) -> str:
    """1_052_345 -> '1.05 M'."""
    return f"{rate / 1e6:.2f} M" if rate >= 1e5 else f"{rate / 1e3:.2f} k"


def _clause(reason: str) -> str:
    """Return a reason without what mends it, which `fastnn devices` says."""
    return reason.splitlines()[0].partition(" (")[0].rstrip(".")
