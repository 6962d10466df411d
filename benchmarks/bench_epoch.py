"""Whole epochs of MNIST through ``train()``, and the same by others.

In each round every device and every peer that is installed takes an epoch, one after the other:
what the machine does meanwhile, it does to all. Ratios are medians over the rounds. Compilation is
in the warm-up.

    pytest benchmarks                        all of it
    pytest benchmarks -k 784-30-10           one network
    pytest benchmarks --benchmark-disable    untimed: everything runs once and is checked

The images are those in the folder that FASTNN_MNIST names, else synthetic ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter, sleep

import numpy as np
import peers
import pytest

import fastnn
from fastnn.training import epoch_order

NETWORKS = [
    ([784, 30, 10], 10),
    ([784, 16, 16, 10], 32),
    ([784, 100, 10], 10),
    ([784, 128, 10], 128),
    ([784, 1024, 1024, 10], 256),
]
DEVICES = ["numba", "numpy"]
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
@pytest.mark.parametrize(
    ("sizes", "batch_size"), NETWORKS, ids=["-".join(map(str, s)) + f" b{b}" for s, b in NETWORKS]
)
def test_epoch(benchmark, data, sizes: list[int], batch_size: int) -> None:
    name = f"{'-'.join(map(str, sizes))} b{batch_size}"
    benchmark.group = f"epoch {name}"
    networks = {
        device: fastnn.Network(sizes, cost="quadratic", device=device) for device in DEVICES
    }
    start = networks["numpy"]
    order = epoch_order(len(data), seed=0, epoch=1)
    epochs: dict[str, Callable[[], float]] = {}
    trained = {}
    for device, network in networks.items():
        # The second of two epochs: in the first the loop still finds out how far to go in one call.
        epochs[device] = lambda network=network: train_epoch(network, data, batch_size, epochs=2)
        trained[device] = lambda network=network: [*network.weights, *network.biases]
    for peer, make in peers.installed().items():
        epoch, parameters = make(start.weights, start.biases, data, batch_size)
        epochs[peer] = lambda epoch=epoch: timed(epoch, order)
        trained[peer] = parameters

    # The same work: after an epoch all have the same parameters.
    for who, epoch in epochs.items():
        if who in networks:
            train_epoch(networks[who], data, batch_size)
        else:
            epoch()
    expected = trained["NumPy by hand"]()
    for who, parameters in trained.items():
        for got, each in zip(parameters(), expected, strict=False):
            close = 1e-3 * np.abs(each).max()
            np.testing.assert_allclose(got, each, rtol=0, atol=close, err_msg=who)

    seconds: dict[str, list[float]] = {who: [] for who in epochs}

    def take(who: str) -> None:
        sleep(REST)
        seconds[who].append(epochs[who]())

    ours, *others = epochs
    benchmark.pedantic(
        take, args=(ours,), setup=lambda: [take(who) for who in others] and None, rounds=ROUNDS
    )
    medians = {who: float(np.median(each)) for who, each in seconds.items()}
    best = min((who for who in epochs if who not in DEVICES), key=medians.__getitem__)
    benchmark.extra_info |= {
        "network": "-".join(map(str, sizes)),
        "batch_size": batch_size,
        "details": {device: network.backend.detail for device, network in networks.items()},
        "samples_per_second": {who: len(data) / median for who, median in medians.items()},
        "best_peer": best,
        "ratio_to_best_peer": {
            device: float(np.median(np.divide(seconds[best], seconds[device])))
            for device in DEVICES
        },
        "flops_per_sample": flops_per_sample(sizes),
        "sgemm_flops_per_second": sgemm_rate(),
    }


def train_epoch(
    network: fastnn.Network, data: fastnn.Dataset, batch_size: int, epochs: int = 1
) -> float:
    """Train and return the last epoch's seconds: without the measuring of cost and accuracy."""
    history = fastnn.train(
        network, data, epochs=epochs, batch_size=batch_size, learning_rate=peers.RATE
    )
    return history.epochs[-1].seconds


def timed(epoch: Callable[[np.ndarray], None], order: np.ndarray) -> float:
    began = perf_counter()
    epoch(order)
    return perf_counter() - began


def flops_per_sample(sizes: list[int]) -> int:
    """Two for each weight: forward, to update, and BP2 but for the first layer."""
    weights = [n_in * n_out for n_in, n_out in pairwise(sizes)]
    return 2 * (3 * sum(weights) - weights[0])


def sgemm_rate() -> float:
    """The best of some large products by SciPy's BLAS, with all its threads."""
    from scipy.linalg.blas import sgemm

    n = 1024
    a = np.asfortranarray(np.random.default_rng(0).standard_normal((n, n), np.float32))
    out = np.zeros_like(a)
    best = min(timed(lambda _: sgemm(1.0, a, a, 0.0, out, 0, 0, 1), a) for _ in range(20))
    return 2 * n**3 / best
