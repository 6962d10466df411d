"""The benchmarks' peers: each that is installed does the same work; who does not is found out."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fastnn

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import peers

# Twenty mini-batches are 160 samples; what is left over of 203 is a tail of 3.
DATA = fastnn.synthetic(203, 1, features=12, classes=4).train
START = fastnn.Network([12, 7, 5, 4], device="numpy")
TASK = peers.Task(START.weights, START.biases, DATA, 8)


def trained(train, check):
    peer = train(TASK)
    peer.epoch(check.order)
    return peer.parameters()


@pytest.mark.filterwarnings("ignore")  # their own
@pytest.mark.parametrize(
    "who", [who for who, each in peers.PEERS.items() if "cpu" in each.platforms]
)
def test_a_peer_learns_what_numpy_learns_in_float64(who):
    if not peers.PEERS[who].installed:
        pytest.skip(f"{who} is not installed (pip install -e '.[bench]')")
    check = peers.Check(TASK)
    assert len(check.order) == 163
    assert check(who, trained(peers.PEERS[who].make, check)) <= check.allowed < 2e-3


@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_so_do_our_devices(device):
    check = peers.Check(TASK)
    network = fastnn.Network(TASK.sizes, device=device)
    fastnn.train(network, check.data, epochs=1, batch_size=8, learning_rate=peers.RATE)
    check(device, [*network.weights, *network.biases])


def halved_rate(peer, order):
    before = peer.parameters()
    peer.epoch(order)
    return [(old + new) / 2 for old, new in zip(before, peer.parameters(), strict=True)]


def no_tail(peer, order):
    peer.epoch(order[:160])
    return peer.parameters()


def another_order(peer, order):
    peer.epoch(order[::-1])
    return peer.parameters()


def no_bias(peer, order):
    peer.epoch(order)
    return [*peer.parameters()[:3], *TASK.biases]


def not_a_number(peer, order):
    peer.epoch(order)
    return [np.full_like(each, np.nan) for each in peer.parameters()]


@pytest.mark.parametrize("wrong", [halved_rate, no_tail, another_order, no_bias, not_a_number])
def test_who_does_something_else_is_refused(wrong):
    check = peers.Check(TASK)
    with pytest.raises(ValueError, match="nobody does not do the same"):
        check("nobody", wrong(peers.PEERS["NumPy by hand"].make(TASK), check.order))


def test_the_reference_is_the_gradient_of_cross_entropy():
    """A step of all samples, against central differences of the cost in float64."""
    n = len(DATA)
    peer = peers.PEERS["NumPy by hand"].make(replace(TASK, batch_size=n))
    peer.epoch(np.arange(n))
    x, y = TASK.x.astype(float), TASK.y.astype(float)
    start = [array.astype(float) for array in (*TASK.weights, *TASK.biases)]

    def cost(parameters):
        a = x
        for w, b in zip(parameters[:3], parameters[3:], strict=True):
            a = 1 / (1 + np.exp(-(a @ w.T + b)))
        return -(y * np.log(a) + (1 - y) * np.log(1 - a)).sum() / n

    h = 1e-5
    for i, (old, new) in enumerate(zip(start, peer.parameters(), strict=True)):
        slope = np.empty_like(old)
        for at in np.ndindex(old.shape):
            moved = [array.copy() for array in start]
            moved[i][at] += h
            above = cost(moved)
            moved[i][at] -= 2 * h
            slope[at] = (above - cost(moved)) / (2 * h)
        np.testing.assert_allclose(new - old, -peers.RATE * slope, atol=1e-6)
