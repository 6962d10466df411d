"""Whole epochs of MNIST through ``train()``, against the loop one would write by hand in NumPy.

In each round the hand-written loop and the device take an epoch each, one after the other: what the
machine does meanwhile, it does to both. The ratio is the median over the rounds.

    pytest benchmarks                        all of it
    pytest benchmarks -k 784-30-10           one network
    pytest benchmarks --benchmark-disable    untimed: everything runs once and is checked

The images are those in the folder that FASTNN_MNIST names, else synthetic ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter

import numpy as np
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
RATE = 0.5
ROUNDS = 7


def by_hand(
    network: fastnn.Network, data: fastnn.Dataset, batch_size: int
) -> tuple[Callable[[int], None], list[np.ndarray]]:
    """Return an epoch of SGD as a good NumPy programmer writes it, and the parameters it trains.

    Quadratic cost and sigmoids; float32; the images are scaled once, beforehand.
    """
    x = data.x.astype(np.float32) / 255
    y = np.eye(network.sizes[-1], dtype=np.float32)[data.labels]
    w = [array.copy() for array in network.weights]
    b = [array.copy() for array in network.biases]

    def epoch(number: int) -> None:
        order = epoch_order(len(x), seed=0, epoch=number)
        for start in range(0, len(x), batch_size):
            batch = order[start : start + batch_size]
            a = [x[batch]]
            for w_l, b_l in zip(w, b, strict=True):
                a.append(1 / (1 + np.exp(-(a[-1] @ w_l.T + b_l))))
            delta = (a[-1] - y[batch]) * a[-1] * (1 - a[-1])
            rate = np.float32(RATE / len(batch))
            for i in reversed(range(len(w))):
                below = (delta @ w[i]) * a[i] * (1 - a[i]) if i else delta
                w[i] -= rate * (delta.T @ a[i])
                b[i] -= rate * delta.sum(axis=0)
                delta = below

    return epoch, [*w, *b]


@pytest.fixture(scope="module")
def data(request: pytest.FixtureRequest) -> fastnn.Dataset:
    if request.config.getoption("benchmark_disable"):
        return fastnn.synthetic(train=1_003, test=10).train
    folder = os.environ.get("FASTNN_MNIST")
    return (fastnn.load_dataset(folder) if folder else fastnn.synthetic()).train


@pytest.mark.parametrize("device", ["numpy"])
@pytest.mark.parametrize(
    ("sizes", "batch_size"), NETWORKS, ids=["-".join(map(str, s)) + f" b{b}" for s, b in NETWORKS]
)
def test_epoch(benchmark, data, sizes: list[int], batch_size: int, device: str) -> None:
    benchmark.group = f"epoch {'-'.join(map(str, sizes))} b{batch_size}"
    network = fastnn.Network(sizes, cost="quadratic", device=device)
    hand_epoch, parameters = by_hand(network, data, batch_size)

    # The same work: after an epoch both have the same parameters.
    train_epoch(network, data, batch_size)
    hand_epoch(1)
    for got, expected in zip((*network.weights, *network.biases), parameters, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())

    hand_seconds: list[float] = []
    seconds: list[float] = []

    def hand() -> None:
        began = perf_counter()
        hand_epoch(1)
        hand_seconds.append(perf_counter() - began)

    def ours() -> None:
        seconds.append(train_epoch(network, data, batch_size))

    benchmark.pedantic(ours, setup=hand, rounds=ROUNDS, warmup_rounds=1)
    # The first of each was the warm-up. Seconds as the history has them, which leaves out the
    # measuring of cost and accuracy; pytest-benchmark's own clock includes it.
    ratios = [h / s for h, s in zip(hand_seconds[-ROUNDS:], seconds[-ROUNDS:], strict=True)]
    benchmark.extra_info |= {
        "network": "-".join(map(str, sizes)),
        "batch_size": batch_size,
        "device": device,
        "detail": network.backend.detail,
        "samples_per_second": len(data) / float(np.median(seconds[-ROUNDS:])),
        "by_hand_samples_per_second": len(data) / float(np.median(hand_seconds[-ROUNDS:])),
        "ratio_to_by_hand": float(np.median(ratios)),
    }


def train_epoch(network: fastnn.Network, data: fastnn.Dataset, batch_size: int) -> float:
    """Train for one epoch and return its seconds."""
    history = fastnn.train(network, data, epochs=1, batch_size=batch_size, learning_rate=RATE)
    return history.epochs[0].seconds
