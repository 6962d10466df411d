"""The fused step over several calls, between which the weights of unused pixels wait."""

from itertools import pairwise

import numpy as np
import pytest

import fastnn
from fastnn.testing.plans import plan_for
from fastnn.threads import using
from fastnn.training import epoch_order

OPTIMISERS = {"momentum": (0.9,), "Nesterov and L2": (0.8, True)}


@pytest.mark.parametrize("kind", ["L2", "momentum", "Nesterov and L2", "L1 and L2"])
@pytest.mark.parametrize("threads", [1, 2])
def test_how_an_epoch_is_cut_into_calls_changes_no_bit(kind, threads):
    """The weights of unused pixels wait, from call to call, as they do within one."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (203, 40), dtype=np.uint8)
    x[rng.random(x.shape) < 0.9] = 0
    x[:, 7] = 0  # never used
    data = fastnn.Dataset(x, rng.integers(0, 3, 203))
    optimiser = fastnn.SGD(*OPTIMISERS.get(kind, ()))
    l1, l2 = (20.0 if "L1" in kind else 0.0), (30.0 if "L2" in kind else 0.0)
    shrink = 1 - 0.3 * l2 / 203 if optimiser.decoupled else 1.0
    ends = []
    for cuts in ([], [50], [10, 20, 30, 110], range(5, 203, 5)):
        network = fastnn.Network([40, 17, 3], device="numba")
        with using(threads):
            plan = plan_for(network, data, 5, optimiser=optimiser, l1=l1, l2=l2)
            step = network.backend.fused_step(plan)
            for epoch in (1, 2):
                order = epoch_order(203, 0, epoch)
                for start, stop in pairwise([0, *cuts, 203]):
                    step(order, start, stop, 0.3, shrink)
        kept = plan.update.kept if plan.update else ()
        ends.append([network.buffer.copy(), *(each.copy() for each in kept)])
    for end in ends[1:]:
        for one, other in zip(ends[0], end, strict=True):
            np.testing.assert_array_equal(one, other)


def test_parameters_that_were_changed_between_calls_are_taken():
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (20, 6), dtype=np.uint8)
    data = fastnn.Dataset(x, rng.integers(0, 3, 20))
    networks = [fastnn.Network([6, 4, 3], device="numba") for _ in range(2)]
    order = epoch_order(20, 0, 1)
    plans = [plan_for(network, data, 5, optimiser=fastnn.SGD(0.9)) for network in networks]
    steps = [
        network.backend.fused_step(plan) for network, plan in zip(networks, plans, strict=True)
    ]
    steps[0](order, 0, 10, 0.3, 1.0)
    networks[0].buffer[:] = 0.25
    plans[0].update.kept[0][:] = 0.125
    steps[0](order, 10, 20, 0.3, 1.0)
    networks[1].buffer[:] = 0.25
    plans[1].update.kept[0][:] = 0.125
    steps[1](order, 10, 20, 0.3, 1.0)
    np.testing.assert_array_equal(networks[0].buffer, networks[1].buffer)


@pytest.mark.parametrize(
    "optimiser", [fastnn.SGD(), fastnn.SGD(0.9), fastnn.SGD(0.7, True)], ids=str
)
@pytest.mark.parametrize("batch_size", [1, 5, 29])  # of 29 samples a tile takes ten at a time
@pytest.mark.parametrize("threads", [1, 2])
def test_the_penalty_on_the_size_is_the_plain_steps(optimiser, batch_size, threads):
    rng = np.random.default_rng(4)
    x = rng.integers(0, 256, (61, 40), dtype=np.uint8)
    x[rng.random(x.shape) < 0.9] = 0
    data = x, rng.integers(0, 3, 61)
    ends, steps = [], []
    for fused in (True, False):
        network = fastnn.Network([40, 17, 3], device="numba", dtype="float64")
        how = {"optimiser": optimiser, "l1": 3.0, "l2": 2.0, "batch_size": batch_size}
        how |= {"epochs": 2, "learning_rate": 0.1, "fused": fused, "threads": threads}
        steps.append(fastnn.train(network, data, **how).step)
        ends.append(network.buffer)
    assert steps == ["epoch", "plain"]
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-12)
