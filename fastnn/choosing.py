"""``auto``: each device tries this network, this mini-batch, these data; the fastest is taken."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any, NamedTuple

import numpy as np

from fastnn.backends.registry import AUTO, anothers_code, device, reasons
from fastnn.cache import cache_folder, write_whole
from fastnn.data import Dataset
from fastnn.errors import DeviceError
from fastnn.network import Network
from fastnn.threads import processors
from fastnn.trial import Stopwatch, Trial

__all__ = ["Choice", "choose"]

# Seconds for which a step is timed in a turn, about; and samples that are enough for that, but for
# large mini-batches, of which so many are.
A_TURN, SAMPLES, MINI_BATCHES = 0.01, 16_384, 4
# BLAS's threads look out for more work for a while after they have had some, and would take a
# processor from a device with threads of its own: so long they are waited for at the most, with a
# look at them so often, in seconds. What another thread works, the system counts every 4 ms.
REST, LOOK = 0.15, 0.011
# Devices that are no farther apart than this, in parts of the faster's rate, chance may put in any
# order: the first of AUTO among them is taken, the same one each time.
TIE = 0.1
# What bears on speed, of all that is installed.
PACKAGES = ("cupy-cuda12x", "cupy-cuda13x", "fastnn-mlp", "numba", "numpy", "scipy")


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
    train_set: Dataset,
    batch_size: int,
    *,
    measure: bool = True,
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
    train_set
        What it is to be trained on.
    batch_size
        Samples in a mini-batch.
    measure
        False takes the first device of a fixed list that can be used, as the environment variable
        ``FASTNN_AUTO=static`` does.
    descent
        Of :func:`fastnn.train`: optimiser, l1, l2, clip_norm, dropout and class_weights, those that
        are not the defaults.

    Raises
    ------
    DeviceError
        If no device can be used.
    """
    if not measure or os.environ.get("FASTNN_AUTO") == "static":
        return Choice(device("auto").spec, True, f"the first usable of {', '.join(AUTO)}")
    batch_size, away, descent = min(batch_size, len(train_set)), reasons(), dict(descent or {})
    # That there are weights takes time, which ones does not.
    weighted = descent.pop("class_weights", None) is not None or train_set.weights is not None
    path = _path(
        {
            "sizes": list(sizes),
            "batch_size": batch_size,
            "network": network,
            "descent": descent,
            "weighted": weighted,
            "rows": train_set.x.dtype.name,
            "away": away,
        }
    )
    rates, failed = _kept(path), dict[str, str]()
    if rates is None:
        few = slice(min(max(SAMPLES, MINI_BATCHES * batch_size), len(train_set)))
        weights = np.ones(few.stop) if weighted else None
        some = Dataset(train_set.x[few], train_set.labels[few], weights)

        def tried(name: str) -> dict[str, Trial]:
            begun = Network(sizes, **network, device=device(name))
            own = Trial(begun, some, batch_size, **descent)
            if own.step.name == "plain":
                return {"own": own}
            return {"own": own, "plain": Trial(begun, some, batch_size, fused=False, **descent)}

        names = [name for name, reason in away.items() if reason is None]
        rates, failed = _measured(names, tried)
        if rates and not failed:
            with suppress(OSError):
                write_whole(path, json.dumps(rates).encode())
    absent = {name: reason for name, reason in {**away, **failed}.items() if reason}
    if not rates:
        lines = [f"{name}: {reason}" for name, reason in absent.items()]
        raise DeviceError("no device can be used here.\n  " + "\n  ".join(lines))
    fastest = {name: max(by_step.values()) for name, by_step in rates.items()}
    first, *_ = by_rate = sorted(fastest, key=fastest.__getitem__, reverse=True)
    tied = (name for name in AUTO if fastest.get(name, 0) >= (1 - TIE) * fastest[first])
    best = next(tied, first)
    said = [
        f"{best}: {_short(fastest[best])} samples/s",
        *(f"{name} {_short(fastest[name])}" for name in by_rate if name != best),
    ]
    why = "; ".join([", ".join(said), *(f"{name}: {_clause(absent[name])}" for name in absent)])
    return Choice(best, rates[best]["own"] == fastest[best], why)


def _rest() -> None:
    """Wait until no thread of this process works any more: until a sleep takes no processor."""
    end = perf_counter() + REST
    while perf_counter() < end:
        before = process_time()
        sleep(LOOK)
        if process_time() - before < LOOK / 10:
            return


def _measured(
    names: Sequence[str], tried: Callable[[str], dict[str, Trial]]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Return samples a second by device and step, and why the devices that failed did.

    Each has a turn on the way there and one on the way back: what changes meanwhile, such as the
    speed of a processor that was asleep, is no one device's loss.
    """
    watches: dict[str, dict[str, Stopwatch]] = {}
    rates, failed = dict[str, dict[str, float]](), dict[str, str]()
    turns = [*reversed(names), *names]
    for before, name in pairwise([*turns[:1], *turns]):
        if name in failed:
            continue
        try:
            with anothers_code(name):
                if name not in watches:
                    trials = tried(name)
                    watches[name] = {step: Stopwatch(trials[step], A_TURN) for step in trials}
                if name != before:
                    _rest()
                rates[name] = {
                    step: watch.trial.plan.batch_size / watch.turn()
                    for step, watch in watches[name].items()
                }
        except DeviceError as error:
            failed[name] = str(error)
            rates.pop(name, None)
    return rates, failed


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


def _kept(path: Path) -> dict[str, dict[str, float]] | None:
    """Return the rates in a file, or None if there is none that makes sense."""
    try:
        rates = json.loads(path.read_bytes())
        return {
            str(name): {"own": float(by_step["own"]), "plain": float(by_step.get("plain", 0))}
            for name, by_step in rates.items()
        } or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _short(rate: float) -> str:
    """1_052_345 -> '1.05 M'."""
    return f"{rate / 1e6:.2f} M" if rate >= 1e5 else f"{rate / 1e3:.2f} k"


def _clause(reason: str) -> str:
    """Return a reason without what mends it, which `fastnn devices` says."""
    return reason.splitlines()[0].partition(" (")[0].rstrip(".")
