import itertools
import math

import numpy as np
import pytest

from fastnn.costs import COSTS, check_pair, mean_cost
from fastnn.errors import ArgumentError

OUTPUTS = ["sigmoid", "tanh", "relu", "leaky-relu", "identity", "softmax"]
ALLOWED = {
    *itertools.product(["quadratic", "squared-error"], OUTPUTS[:-1]),
    ("cross-entropy", "sigmoid"),
    ("log-likelihood", "softmax"),
}


@pytest.mark.parametrize("target_type", [np.uint8, np.float64])
@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        # Two samples: a = (1/2, 1/4) for y = (1, 0), and a = (1/4, 3/4) for y = (0, 1).
        ("quadratic", ((1 / 4 + 1 / 16) / 2 + (1 / 16 + 1 / 16) / 2) / 2),
        ("squared-error", ((1 / 4 + 1 / 16) + (1 / 16 + 1 / 16)) / 2),
        ("cross-entropy", -(math.log(1 / 2 * 3 / 4) + math.log(3 / 4 * 3 / 4)) / 2),
        ("log-likelihood", -(math.log(1 / 2) + math.log(3 / 4)) / 2),
    ],
)
def test_by_hand(cost, expected, target_type):
    a, y = np.array([[1 / 2, 1 / 4], [1 / 4, 3 / 4]]), np.array([[1, 0], [0, 1]], target_type)
    assert mean_cost(cost, a, y) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("cost", COSTS)
def test_what_is_right_costs_nothing(cost):
    y = np.eye(4, dtype=np.uint8)
    assert mean_cost(cost, y.astype(np.float32), y) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("cost", ["cross-entropy", "log-likelihood"])
def test_one_saturated_output_does_not_make_the_cost_infinite(cost):
    y = np.array([[1, 0]], np.uint8)
    wrong = np.array([[0, 1]], np.float32)
    each = -math.log(2**-24)  # half the distance from 1 to the next float32
    expected = 2 * each if cost == "cross-entropy" else each
    assert mean_cost(cost, wrong, y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("cost", COSTS)
def test_nan_is_not_hidden(cost):
    assert math.isnan(mean_cost(cost, np.full((1, 2), np.nan), np.array([[1, 0]])))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("shape", [(9_001, 7), (70_000, 1)])
def test_of_many_samples_each_counts_once(cost, shape, weighted):
    rng = np.random.default_rng(3)
    a, y = rng.uniform(0.1, 0.9, shape), rng.integers(0, 2, shape, np.uint8)
    weights = rng.random((shape[0], 1)) if weighted else None
    total = 0.0
    for start in range(0, shape[0], 1000):
        few = slice(start, start + 1000)
        counts = None if weights is None else weights[few]
        total += mean_cost(cost, a[few], y[few], counts) * len(a[few])
    assert mean_cost(cost, a, y, weights) == pytest.approx(total / shape[0], rel=1e-12)


def test_the_sum_over_many_samples_does_not_lose_float32s_digits():
    a, y = np.full((200_000, 10), 0.1, np.float32), np.zeros((200_000, 10), np.uint8)
    each = 10 * float(np.float32(0.1) ** 2)
    assert mean_cost("squared-error", a, y) == pytest.approx(each, rel=1e-10)


@pytest.mark.parametrize(("cost", "output"), sorted(ALLOWED))
def test_pairs_that_make_sense(cost, output):
    check_pair(cost, output)


@pytest.mark.parametrize(("cost", "output"), sorted({*itertools.product(COSTS, OUTPUTS)} - ALLOWED))
def test_pairs_that_make_none_are_refused_with_advice(cost, output):
    with pytest.raises(ArgumentError) as refusal:
        check_pair(cost, output)
    said, advice = str(refusal.value).split(": ")
    assert said == f"cost {cost!r} makes no sense with output {output!r}"
    # Whoever follows the advice gets a pair that makes sense.
    keeps_the_cost = advice.startswith("it goes with")
    advised = advice.split("'")[1]
    check_pair(*((cost, advised) if keeps_the_cost else (advised, output)))


@pytest.mark.parametrize("name", ["quadratics", "Cross-Entropy", "cross_entropy", "mse", "", None])
def test_unknown_costs(name):
    with pytest.raises(
        ArgumentError, match=r"unknown cost .*known: cross-entropy, log-"
    ) as refusal:
        check_pair(name, "sigmoid")
    close = name in ("quadratics", "Cross-Entropy", "cross_entropy")
    assert ("Did you mean" in str(refusal.value)) == close
