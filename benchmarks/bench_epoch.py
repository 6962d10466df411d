"""Whole epochs of MNIST through ``train()``, and the same by others.

In each round every device and every peer that is installed takes an epoch, one after the other:
what the machine does meanwhile, it does to all. Ratios are medians over the rounds. Compilation is
in the warm-up.

    pytest benchmarks/bench_epoch.py                all of it
    pytest benchmarks/bench_epoch.py -k 784-30-10   one network; or by its name, -k video
    pytest benchmarks --benchmark-disable           untimed: everything runs once and is checked

The images are those in the folder that FASTNN_MNIST names, else synthetic ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import sleep

import numpy as np
import peers
import pytest
from networks import NETWORKS, for_device
from roofs import setting, sgemm_rate, timed

import fastnn
from fastnn.training import epoch_order

DEVICES = ["numba", "numpy"]
NAMES = for_device("numpy")
ROUNDS = 7
# Seconds before each epoch: so long the threads of some libraries look out for more work, and would
# take a processor from whoever comes next.
REST = 0.4


@pytest.fixture(scope="module")
def data(request: pytest.FixtureRequest) -> fastnn.Dataset:
    if request.config.getoption("benchmark_disable"):
        return fastnn.synthetic(train=1_003, test=10).train
    folder = os.environ.get("FASTNN_MNIST")
    return (fastnn.load_dataset(folder) if folder else fastnn.synthetic()).train


@pytest.mark.filterwarnings("ignore")  # the peers' own
@pytest.mark.parametrize("network", NAMES, ids=[NETWORKS[name].title for name in NAMES])
def test_epoch(benchmark, data, network: str) -> None:
    shape = NETWORKS[network]
    sizes, batch_size = shape.sizes, shape.batch_size
    benchmark.group = f"epoch {shape.title}"
    networks: dict[str, fastnn.Network] = {
        device: fastnn.Network(sizes, cost="quadratic", device=device) for device in DEVICES
    }
    start = networks["numpy"]
    order = epoch_order(len(data), seed=0, epoch=1)
    epochs: dict[str, Callable[[], float]] = {}
    trained = {}
    for device, mine in networks.items():
        # The second of two epochs: in the first the loop still finds out how far to go in one call.
        epochs[device] = lambda mine=mine: train(mine, data, batch_size, 2).epochs[-1].seconds
        trained[device] = lambda mine=mine: [*mine.weights, *mine.biases]
    for peer, make in peers.installed().items():
        epoch, parameters = make(start.weights, start.biases, data, batch_size)
        epochs[peer] = lambda epoch=epoch: timed(lambda: epoch(order))
        trained[peer] = parameters

    # The same work: after an epoch all have the same parameters.
    taken = {}
    for who, epoch in epochs.items():
        if who in networks:
            taken[who] = train(networks[who], data, batch_size, 1).step
        else:
            epoch()
    expected = trained["NumPy by hand"]()
    for who, parameters in trained.items():
        for got, each in zip(parameters(), expected, strict=False):
            close = 1e-3 * np.abs(each).max()
            np.testing.assert_allclose(got, each, rtol=0, atol=close, err_msg=who)

    seconds: dict[str, list[float]] = {who: [] for who in epochs}

    def take(who: str) -> None:
        sleep(REST if benchmark.enabled else 0)
        seconds[who].append(epochs[who]())

    ours, *others = epochs
    benchmark.pedantic(
        take, args=(ours,), setup=lambda: [take(who) for who in others] and None, rounds=ROUNDS
    )
    medians = {who: float(np.median(each)) for who, each in seconds.items()}
    best = min((who for who in epochs if who not in DEVICES), key=medians.__getitem__)
    rates = {who: len(data) / median for who, median in medians.items()}
    steps = -(-len(data) // batch_size)
    benchmark.extra_info |= {
        "network": shape.shape,
        "name": network,
        "batch_size": batch_size,
        "details": {device: mine.backend.detail for device, mine in networks.items()},
        "steps": taken,
        "samples_per_second": rates,
        "us_per_step": {who: 1e6 * median / steps for who, median in medians.items()},
        "best_peer": best,
        "ratio_to_best_peer": {
            device: float(np.median(np.divide(seconds[best], seconds[device])))
            for device in DEVICES
        },
        "flops_per_sample": shape.flops_per_sample,
        "fraction_of_roof": {
            device: rates[device] * shape.flops_per_sample / sgemm_rate() for device in DEVICES
        },
        "sgemm_flops_per_second": sgemm_rate(),
        **setting(),
    }


def train(
    network: fastnn.Network, data: fastnn.Dataset, batch_size: int, epochs: int
) -> fastnn.History:
    """Train; an epoch's seconds are without the measuring of cost and accuracy."""
    return fastnn.train(
        network, data, epochs=epochs, batch_size=batch_size, learning_rate=peers.RATE
    )
