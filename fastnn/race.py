"""A race of devices: in turns each trains a network as fast as it can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import NamedTuple, TypeAlias

from fastnn.backends.registry import anothers_code
from fastnn.errors import DeviceError
from fastnn.threads import come_to_rest
from fastnn.trial import Stopwatch, Trial

__all__ = ["Rates", "race"]

# Samples a second by device, and by its own step and the plain one, if that is another.
Rates: TypeAlias = dict[str, dict[str, float]]

# Seconds of a turn, about, how many each has at the most, and seconds within which all are to be
# over, since nobody wants to wait: from the start, or where it takes long to make the trials, as to
# compile them, from then on. Where threads of BLAS have to be waited for, that comes on top.
A_TURN, TURNS, FROM_START, FROM_THEN = 0.01, 4, 0.24, 0.13
# A device has no further turn at less than a fifth of the best one's rate, nor has a plain step at
# less than four fifths of its device's own.
DEVICE_IN_REACH, PLAIN_IN_REACH = 0.2, 0.8


class _Runner(NamedTuple):
    device: str
    step: str  # "own" or "plain"
    watch: Stopwatch


def race(names: Sequence[str], trial: Callable[[str, bool], Trial]) -> tuple[Rates, dict[str, str]]:
    """Return the devices' rates, and why those failed that did.

    Each has a turn with its own step and with the plain one, then those that may still win have
    another, four in all while there is time. A processor may be slow for longer than a turn, but
    hardly in all of one device's turns and in none of another's.

    Parameters
    ----------
    names
        The devices.
    trial
        What makes a device's trial, by its own step or else by the plain one.
    """
    rates: Rates = {}
    failed: dict[str, str] = {}
    runners: list[_Runner] = []
    until = perf_counter() + FROM_START
    for name in names:
        with _noting(failed, name):
            runners += _runners(name, trial)
    until = max(until, perf_counter() + FROM_THEN)
    for _ in range(TURNS):
        took: dict[_Runner, float] = {}
        for runner in runners:
            if runner.device in failed:
                continue
            finished = perf_counter()
            come_to_rest()
            began = perf_counter()
            until += began - finished
            with _noting(failed, runner.device):
                rate = runner.watch.trial.plan.batch_size / runner.watch.turn()
                rates.setdefault(runner.device, {})[runner.step] = rate
            took[runner] = perf_counter() - began
        rates = {device: by_step for device, by_step in rates.items() if device not in failed}
        runners = _in_reach(runners, rates)
        another = sum(took[runner] for runner in runners)
        if len(runners) < 2 or perf_counter() + another > until:
            break
    return rates, failed


@contextmanager
def _noting(failed: dict[str, str], name: str) -> Iterator[None]:
    """Note it if a device fails."""
    try:
        with anothers_code(name):
            yield
    except DeviceError as error:
        failed[name] = str(error)


def _runners(name: str, trial: Callable[[str, bool], Trial]) -> list[_Runner]:
    """Make a device's trials."""
    trials = {"own": trial(name, True)}
    if trials["own"].step.name != "plain":
        trials["plain"] = trial(name, False)
    return [_Runner(name, step, Stopwatch(each, A_TURN)) for step, each in trials.items()]


def _in_reach(runners: Sequence[_Runner], rates: Rates) -> list[_Runner]:
    """Return those that may still turn out to be the fastest."""
    fastest = {device: max(by_step.values()) for device, by_step in rates.items()}
    least = DEVICE_IN_REACH * max(fastest.values(), default=0)

    def may_win(device: str, step: str) -> bool:
        own = PLAIN_IN_REACH * rates[device]["own"]
        return fastest[device] > least and (step == "own" or rates[device]["plain"] > own)

    return [each for each in runners if each.device in rates and may_win(each.device, each.step)]
