"""Mini-batches by each device's plain step and by its own, without the loop around them.

    pytest benchmarks/bench_step.py                       half a second each
    pytest benchmarks/bench_step.py -k "video and numba"

What the clock takes is a run of mini-batches, a hundred or, of a large network, fewer, with the
device waited for at its end; extra_info has what one of them comes to. Before, the device trains on
as many, and its parameters are compared with those of NumPy in float64.
"""

from __future__ import annotations

from functools import lru_cache

import pytest
from networks import NETWORKS, for_device
from roofs import flops_per_second, setting

from fastnn.backends.registry import usable
from fastnn.measuring import STEPS, Contest
from fastnn.trial import RATE

# So many flops does NumPy do for the comparison at the most, or two mini-batches.
MOST = 5e10

DEVICES = usable()
CASES = [
    pytest.param(network, device, step, id=f"{NETWORKS[network].title} {device} {step}")
    for network in NETWORKS
    for device in DEVICES
    if network in for_device(device)
    for step in ("plain", "fused")
]


@lru_cache(maxsize=1)  # the cases of a network come one after the other
def contest(network: str) -> Contest:
    shape = NETWORKS[network]
    affordable = int(MOST / (shape.batch_size * shape.flops_per_sample))
    return Contest(shape.sizes, shape.batch_size, max(2, min(STEPS, affordable)))


@pytest.mark.benchmark(max_time=0.5)
@pytest.mark.parametrize(("network", "device", "step"), CASES)
def test_step(benchmark, network: str, device: str, step: str) -> None:
    entered = contest(network).enter(device, fused=step == "fused")
    if step == "fused" and entered.step == "plain":
        pytest.skip(f"{device} has no step of its own for this network")
    shape, trial = NETWORKS[network], entered.trial
    benchmark.group = f"step {shape.title}"
    few = contest(network).steps
    benchmark(trial.run, 0, few * shape.batch_size, RATE)
    if not benchmark.stats:  # nothing was timed
        return
    rate = few * shape.batch_size / benchmark.stats.stats.median
    benchmark.extra_info |= {
        "network": shape.shape,
        "name": network,
        "batch_size": shape.batch_size,
        "mini_batches": few,
        "step": entered.step,
        "why": entered.why,
        "samples_per_second": rate,
        "us_per_step": 1e6 * shape.batch_size / rate,
        "prepare_ms": entered.prepare_ms,
        "max_relative_error": entered.max_relative_error,
        "flops_per_sample": shape.flops_per_sample,
        "fraction_of_roof": rate * shape.flops_per_sample / flops_per_second(device),
        **setting(trial.network.backend),
    }
