"""Whole epochs of MNIST through ``train()``, and the same by others.

In each round every device and every peer that is installed takes an epoch, one after the other:
what the machine does meanwhile, it does to all. Who takes longer than some seconds for it takes a
part of one. Ratios are medians over the rounds. Compilation is in the warm-up. Before, all train on
some mini-batches from the same start, and are held against NumPy in float64.

    pytest benchmarks/bench_epoch.py                all of it
    pytest benchmarks/bench_epoch.py -k 784-30-10   one network; or by its name, -k video
    pytest benchmarks --benchmark-disable           untimed: everything runs once and is checked

The images are those in the folder that FASTNN_MNIST names, else synthetic ones.
"""

from __future__ import annotations

import os
from time import sleep

import numpy as np
import peers
import pytest
from networks import NETWORKS, for_device
from roofs import setting, sgemm_rate, timed

import fastnn
from fastnn.comparing import apart
from fastnn.training import epoch_order

DEVICES = ["numba", "numpy"]
NAMES = for_device("numpy")
ROUNDS = 7
# Seconds before each epoch: so long the threads of some libraries look out for more work, and would
# take a processor from whoever comes next.
REST = 0.4
# Seconds that a turn may take, about, of those who could take many.
LIMIT = 4.0


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
    benchmark.group = f"epoch {shape.title}"
    start = fastnn.Network(shape.sizes, device="numpy")
    task = peers.Task(start.weights, start.biases, data, shape.batch_size)
    check = peers.Check(task)
    here = {who: each for who, each in peers.PEERS.items() if "cpu" in each.platforms}
    contenders: dict[str, Device | Other] = {device: Device(device, task) for device in DEVICES}
    contenders |= {who: Other(each, task) for who, each in here.items() if each.installed}
    after = {}
    for who, contender in contenders.items():
        contender.train(check.data)
        check(who, contender.parameters())
        seconds_a_sample = contender.train(check.data) / len(check.order)  # compiled by now
        if isinstance(contender, Other):
            contender.limit(int(LIMIT / seconds_a_sample))
        contender.train(data)
        if contender.samples == len(data):
            after[who] = contender.parameters()
    for who, parameters in after.items():
        off = apart(parameters, after["numpy"])
        assert off < 1e-3, f"after an epoch {who} is {off:.1e} of the largest off"

    seconds: dict[str, list[float]] = {who: [] for who in contenders}

    def take(who: str) -> None:
        sleep(REST if benchmark.enabled else 0)
        contender = contenders[who]
        seconds[who].append(contender.seconds() * len(data) / contender.samples)

    ours, *others = contenders
    benchmark.pedantic(
        take, args=(ours,), setup=lambda: [take(who) for who in others] and None, rounds=ROUNDS
    )
    medians = {who: float(np.median(each)) for who, each in seconds.items()}
    best = min((who for who in medians if who not in DEVICES), key=medians.__getitem__)
    rates = {who: len(data) / median for who, median in medians.items()}
    steps = -(-len(data) // shape.batch_size)
    benchmark.extra_info |= {
        "network": shape.shape,
        "name": network,
        "batch_size": shape.batch_size,
        "forms": {who: each.form for who, each in contenders.items() if each.form},
        "not_installed": [who for who, each in here.items() if not each.installed],
        "steps": {device: contenders[device].step for device in DEVICES},
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


class Device:
    """A network of ours, trained through train()."""

    def __init__(self, device: str, task: peers.Task) -> None:
        self._network = fastnn.Network(task.sizes, device=device)
        self._task, self.step = task, ""
        self.samples, self.form = len(task.data), self._network.backend.detail

    def train(self, data: fastnn.Dataset, epochs: int = 1) -> float:
        """Return the seconds of the last epoch, without the measuring of cost and accuracy."""
        history = fastnn.train(
            self._network,
            data,
            epochs=epochs,
            batch_size=self._task.batch_size,
            learning_rate=peers.RATE,
        )
        self.step = history.step
        return history.epochs[-1].seconds

    def seconds(self) -> float:
        # The second of two epochs: in the first the loop still finds out how far to go in one call.
        return self.train(self._task.data, epochs=2)

    def parameters(self) -> peers.Arrays:
        return [*self._network.weights, *self._network.biases]


class Other:
    """A peer, which takes the first samples of an epoch only if all would take too long."""

    def __init__(self, entry: peers.Entry, task: peers.Task) -> None:
        self._peer, self._task = entry.make(task), task
        self.samples, self.form = len(task.data), self._peer.form
        self.parameters = self._peer.parameters

    def limit(self, samples: int) -> None:
        """Take about so many at the most, in whole mini-batches."""
        m = self._task.batch_size
        if samples < len(self._task.data):
            self.samples = m * max(samples // m, 1)

    def train(self, data: fastnn.Dataset) -> float:
        order = epoch_order(len(data), seed=0, epoch=1)[: self.samples]
        return timed(lambda: self._peer.epoch(order))

    def seconds(self) -> float:
        return self.train(self._task.data)
