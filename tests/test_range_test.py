"""The range test: what it leaves alone, where it ends, and whether its suggestion trains well."""

import os
from pathlib import Path

import numpy as np
import pytest

import fastnn
from fastnn import ArgumentError, DataError, Network, range_test, train
from fastnn.testing import StrictBackend

RELU = {"activation": "relu", "output": "softmax", "cost": "log-likelihood", "init": "he"}


@pytest.fixture(scope="module")
def digits():
    return fastnn.load_dataset("digits")


def accuracy(network, datasets, rate, **descent):
    copy = network.to(network.backend)
    history = train(copy, *datasets, epochs=3, learning_rate=rate, **descent)
    return history.epochs[-1].test_accuracy


@pytest.mark.parametrize(
    ("shape", "descent", "grid", "margin"),
    [
        ({}, {}, (0.03, 0.1, 0.3, 1, 3), 0.02),
        ({}, {"optimiser": fastnn.SGD(0.9)}, (0.003, 0.01, 0.03, 0.1, 0.3), 0.02),
        (RELU, {}, (0.01, 0.03, 0.1, 0.3), 0.02),
        ({}, {"optimiser": "adam"}, (0.001, 0.003, 0.01, 0.03, 0.1), 0.04),
    ],
)
def test_on_digits_the_suggestion_trains_about_as_well_as_the_best_of_a_grid(
    digits, shape, descent, grid, margin
):
    network = Network([64, 30, 10], device="numpy", **shape)
    rate = range_test(network, digits.train, **descent).suggestion
    best = max(accuracy(network, digits, each, **descent) for each in grid)
    assert accuracy(network, digits, rate, **descent) > best - margin


@pytest.mark.skipif("FASTNN_MNIST" not in os.environ, reason="FASTNN_MNIST names no folder")
def test_on_mnist_too():
    mnist = fastnn.load_dataset(Path(os.environ["FASTNN_MNIST"]).absolute())
    network = Network([784, 30, 10], device="numba")
    rate = range_test(network, mnist.train).suggestion
    best = max(accuracy(network, mnist, each) for each in (0.03, 0.1, 0.3, 1, 3))
    assert accuracy(network, mnist, rate) > best - 0.01


@pytest.mark.parametrize("device", ["numpy", "numba", StrictBackend])
def test_the_network_is_left_alone_and_the_same_comes_out_again(device, digits):
    network = Network([64, 10], device=device() if isinstance(device, type) else device)
    before = network.backend.to_numpy(network.buffer)
    some = digits.train.x[:200], digits.train.labels[:200]
    first, second = range_test(network, some), range_test(network, some)
    assert first == second
    np.testing.assert_array_equal(network.backend.to_numpy(network.buffer), before)
    assert first.start == pytest.approx(fastnn.evaluate(network, some).cost, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_ends_where_the_cost_diverges_without_a_warning(dtype, digits):
    network = Network(
        [64, 30, 10], activation="relu", output="identity", cost="quadratic", dtype=dtype
    )
    test = range_test(network, digits.train)
    assert test.rates[-1] < 10
    assert np.isfinite(test.costs).all()
    assert max(test.costs[:-1]) <= 4 * test.start
    ratios = np.divide(test.rates[1:], test.rates[:-1])
    np.testing.assert_allclose(ratios, 10 ** (1 / 20), rtol=1e-9)
    assert (test.rates[0], len(test.rates)) == (pytest.approx(1e-5), len(test.costs))


def test_the_first_cost_is_after_ten_mini_batches_at_the_first_rate(digits):
    network = Network([64, 10], device="numpy", dtype="float64")
    some = digits.train.x[:100], digits.train.labels[:100]  # ten mini-batches are an epoch
    test = range_test(network, some, l2=3.0)
    train(network, some, epochs=1, learning_rate=1e-5, l2=3.0)
    penalty = 3.0 / 200 * sum(np.square(w).sum() for w in network.weights)
    assert test.costs[0] == pytest.approx(fastnn.evaluate(network, some).cost + penalty, rel=1e-12)


@pytest.mark.parametrize(
    "how",
    [
        {"optimiser": "adamw", "l2": 5.0},
        {"l1": 1.0, "clip_norm": 1.0},
        {"dropout": 0.3},
        {"batch_size": None, "fused": False},
        {"batch_size": 1, "optimiser": fastnn.SGD(0.5, nesterov=True)},
        {"l2": 1437.0},  # whose rates end below 1, where weights are shrunk to nothing
    ],
    ids=str,
)
def test_it_takes_what_a_training_takes(how, digits):
    test = range_test(Network([64, 10, 10], device="numpy"), digits.train, threads=1, **how)
    assert 1e-5 < test.suggestion < 34
    assert how.get("l2") != 1437.0 or test.rates[-1] < 1


def test_where_nothing_is_learned_nothing_is_suggested():
    flat = np.zeros((50, 4), np.uint8), np.arange(50) % 2
    network = Network.from_parameters([np.zeros((2, 4))], [np.zeros(2)], device="numpy")
    assert range_test(network, flat).suggestion is None


@pytest.mark.parametrize(("answer", "ends"), [(True, True), (np.True_, True), (1, False)])
def test_it_tells_of_each_rate_and_ends_where_it_is_told_to(digits, answer, ends):
    seen = []

    def on_rate(rate, cost):
        seen.append((rate, cost))
        return answer if len(seen) == 50 else None

    network = Network([64, 10], device="numpy")
    whole, test = (range_test(network, digits.train, on_rate=each) for each in (None, on_rate))
    assert list(zip(test.rates, test.costs, strict=True)) == seen
    assert {type(number) for pair in seen for number in pair} == {float}
    tried = 50 if ends else len(whole.rates)
    assert test[:3] == (whole.start, whole.rates[:tried], whole.costs[:tried])


@pytest.mark.parametrize(
    ("how", "error", "sentence"),
    [
        ({"batch_size": 51}, ArgumentError, "more than the 50 training samples"),
        ({"batch_size": 0}, ArgumentError, "batch_size must be a whole number"),
        ({"seed": -1}, ArgumentError, "seed must be a whole number"),
        ({"threads": 0}, ArgumentError, "threads must be a whole number"),
        ({"fused": "no"}, ArgumentError, "fused must be True or False"),
        ({"on_rate": 3}, ArgumentError, "on_rate must be a function"),
        ({"l2": -1}, ArgumentError, "l2 must be a number"),
        ({"optimiser": "adma"}, ArgumentError, "Did you mean 'adam'"),
        ({"train_set": (np.zeros((5, 3), np.uint8), [0] * 5)}, DataError, "have 3 numbers each"),
        ({"l2": 1e308}, DataError, "the cost is not a finite number"),
        ({"network": None}, ArgumentError, r"must be a fastnn\.Network"),
    ],
)
def test_what_makes_no_sense_is_refused(how, error, sentence):
    flat = np.zeros((50, 4), np.uint8), np.arange(50) % 2
    with pytest.raises(error, match=sentence):
        range_test(**{"network": Network([4, 2], device="numpy"), "train_set": flat, **how})
