"""Weights of samples and of classes: what is descended by them, and what stays without."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

import fastnn
from fastnn import SGD, ArgumentError, DataError, Dataset, Network, choosing, range_test, train
from fastnn.inspecting import sensitivity
from fastnn.testing import StrictBackend
from fastnn.testing.plans import plan_for

SHAPES = [
    {"cost": "quadratic"},
    {"cost": "cross-entropy"},
    {"cost": "log-likelihood", "output": "softmax", "activation": "tanh"},
]


def make_set(n=11, features=5, classes=3):
    rng = np.random.default_rng(7)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    return rng.normal(size=(n, features)), labels


def network(device="numpy", **how):
    device = device(dtype="float64") if isinstance(device, type) else device
    return Network([5, 4, 3], device=device, **{"dtype": "float64", **how})


def parameters(of):
    return np.concatenate([each.ravel() for each in (*of.weights, *of.biases)])


def by_sample(of, x, labels):
    return np.array([fastnn.evaluate(of, (x[[i]], labels[[i]])).cost for i in range(len(x))])


# What is descended
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradient_is_that_of_the_weighted_mean(shape):
    """The first update, by all samples, against central differences of 1/m Σ w_x C_x."""
    (x, labels), rate, h = make_set(), 1e-3, 1e-6
    weights = np.random.default_rng(8).random(len(x)) * 4
    weights[3] = 0
    trained = network(**shape)
    start = [*trained.weights, *trained.biases]
    train(trained, (x, labels, weights), epochs=1, batch_size=None, learning_rate=rate)
    ends = [*trained.weights, *trained.biases]
    for i, (old, new) in enumerate(zip(start, ends, strict=True)):
        slope = np.empty_like(old)
        for at in np.ndindex(old.shape):
            costs = []
            for sign in (1, -1):
                moved = [array.copy() for array in start]
                moved[i][at] += sign * h
                there = Network.from_parameters(
                    moved[:2], moved[2:], device="numpy", dtype="float64", **shape
                )
                costs.append(np.mean(weights * by_sample(there, x, labels)))
            slope[at] = (costs[0] - costs[1]) / (2 * h)
        np.testing.assert_allclose(old - new, rate * slope, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize("device", ["numpy", "numba", StrictBackend], ids=str)
def test_a_sample_that_counts_twice_is_as_good_as_two(device):
    """The gradient of either is a sum; they are divided by n and by Σ w."""
    (x, labels), times = make_set(), np.array([1, 2, 3, 0, 1, 1, 5, 0, 2, 1, 1])
    weighted, repeated = network(device), network(device)
    how = {"epochs": 4, "batch_size": None}
    train(weighted, (x, labels, times), learning_rate=0.5, **how)
    several = np.repeat(x, times, axis=0), np.repeat(labels, times)
    train(repeated, several, learning_rate=0.5 * times.sum() / len(x), **how)
    np.testing.assert_allclose(parameters(weighted), parameters(repeated), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("optimiser", [SGD(), SGD(0.9), "adam"], ids=str)
def test_weights_of_one_change_no_bit_and_others_do(optimiser):
    x, labels = make_set()
    ends = []
    for weights in (None, np.ones(len(x), int), np.arange(len(x))):
        ends.append(network())
        how = {"epochs": 2, "batch_size": 3, "optimiser": optimiser, "fused": False}
        train(ends[-1], Dataset(x, labels, weights), **how)
    alike, ones, others = map(parameters, ends)
    np.testing.assert_array_equal(alike, ones)
    assert np.abs(alike - others).max() > 1e-4


@pytest.mark.parametrize("optimiser", [SGD(), "adam"], ids=str)
def test_a_mini_batch_in_portions_gives_the_same(optimiser, monkeypatch):
    x, labels = make_set(n=50)
    data = x, labels, np.random.default_rng(9).random(50)
    ends = []
    for portion in (1 << 23, 5 * 7):  # the whole, seven samples
        monkeypatch.setattr("fastnn.backprop.PORTION", portion)
        ends.append(network())
        train(ends[-1], data, epochs=3, batch_size=20, optimiser=optimiser, clip_norm=0.1)
    np.testing.assert_allclose(*map(parameters, ends), rtol=1e-10, atol=1e-13)


def test_with_dropout_each_sample_still_counts_its_weight():
    """A mini-batch of two: with one that counts nothing, half the gradient of the other alone."""
    x, labels = make_set(n=4)
    how = {"epochs": 1, "dropout": [0.3, 0.5], "shuffle": False, "fused": False}
    ends = [network(), network()]
    train(ends[0], (x, labels, [0, 1, 0, 1]), batch_size=2, learning_rate=0.2, **how)
    # On-line, where those of no weight take no step, and units rest by a sample's place.
    train(ends[1], (x, labels, [0, 1, 0, 1]), batch_size=1, learning_rate=0.1, **how)
    np.testing.assert_allclose(*map(parameters, ends), rtol=1e-12, atol=1e-14)


def test_what_is_measured_is_not_weighted():
    x, labels = make_set()
    trained, seen = network(), []

    def measure(epoch):
        seen.append((epoch, fastnn.evaluate(trained, (x, labels))))

    data = Dataset(x, labels, np.arange(len(x)))
    train(trained, data, test=data, epochs=2, class_weights="balanced", on_epoch=measure)
    for epoch, score in seen:
        assert (epoch.train_cost, epoch.train_accuracy) == pytest.approx(score)
        assert (epoch.test_cost, epoch.test_accuracy) == pytest.approx(score)


@pytest.mark.parametrize("cost", ["cross-entropy", "quadratic"])
def test_numba_weighs_within_its_epoch(cost):
    x, labels = make_set()
    parts = []
    for fused in (False, True):
        trained = network("numba", cost=cost)
        history = train(trained, (x, labels, x[:, 0] ** 2), epochs=3, batch_size=4, fused=fused)
        assert history.step == ("epoch" if fused else "plain")
        parts.append(parameters(trained))
    np.testing.assert_allclose(*parts, rtol=0, atol=1e-12)


def test_one_sample_may_have_a_weight():
    x, labels = make_set()
    for device in ("numpy", "numba"):
        one, alike = (network(device), network(device))
        train(one, (x[:1], labels[:1], [0.5]), epochs=1, batch_size=1, learning_rate=0.2)
        train(alike, (x[:1], labels[:1]), epochs=1, batch_size=1, learning_rate=0.1)
        np.testing.assert_allclose(parameters(one), parameters(alike), rtol=0, atol=1e-12)


# Weights of classes
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [[3, 4], [1, 50, 7], [5, 0, 2, 9]])
def test_balanced_is_scikit_learns(counts):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    data = Dataset(np.ones((len(labels), 2)), labels).weighted("balanced")
    present = np.flatnonzero(counts)
    expected = compute_class_weight("balanced", classes=present, y=labels)
    np.testing.assert_allclose(data.weights, expected[np.searchsorted(present, labels)])
    # Each class counts as much as every other, and all together as much as before.
    sums = np.bincount(labels, data.weights)[present]
    np.testing.assert_allclose(sums, len(labels) / len(present))


def test_classes_may_be_numbered_as_sparsely_as_they_like():
    some = Dataset(np.zeros((4, 2)), [3, 10**15, 3, 3])
    assert some.weighted("balanced").weights.tolist() == [2 / 3, 2, 2 / 3, 2 / 3]
    with pytest.raises(ArgumentError, match="there is a class 1000000000000000"):
        some.weighted([1.0, 2.0])


def test_they_are_multiplied_by_the_samples_own():
    x, labels = np.ones((4, 2)), [0, 1, 1, 2]
    data = Dataset(x, labels, [1, 2, 3, 4])
    np.testing.assert_array_equal(data.weighted([1, 10, 0.5]).weights, [1, 20, 30, 2])
    np.testing.assert_allclose(data.weighted("balanced").weights, [4 / 3, 4 / 3, 2, 16 / 3])
    np.testing.assert_array_equal(Dataset(x, labels).weighted((5, 0, 1)).weights, [5, 0, 0, 1])
    np.testing.assert_array_equal(data.weights, [1, 2, 3, 4])


@pytest.mark.parametrize("class_weights", ["balanced", [1, 0, 2.5], np.float32([3, 1, 0.5])])
@pytest.mark.parametrize("weights", [None, np.arange(11)])
def test_a_training_by_them_is_one_of_a_weighted_set(class_weights, weights):
    data, ends = Dataset(*make_set(), weights), [network(), network()]
    train(ends[0], data, epochs=2, class_weights=class_weights)
    train(ends[1], data.weighted(class_weights), epochs=2)
    np.testing.assert_array_equal(*map(parameters, ends))


def test_of_imbalanced_digits_balanced_weights_find_more_of_the_rare_one():
    """Of the eights one in twenty is left. Over seeds, so that chance has no part in it."""
    learned, test = fastnn.load_dataset("digits")
    rare = np.flatnonzero(learned.labels == 8)
    kept = np.delete(np.arange(len(learned)), np.delete(rare, slice(None, None, 20)))
    few, eights = Dataset(learned.x[kept], learned.labels[kept]), test.x[test.labels == 8]

    def recall(class_weights, seed):
        trained = Network([64, 30, 10], seed=seed, device="numpy")
        train(trained, few, epochs=10, seed=seed, class_weights=class_weights)
        return np.mean(trained.predict(eights) == 8)

    plain, balanced = (
        np.mean([recall(how, seed) for seed in range(3)]) for how in (None, "balanced")
    )
    assert balanced > plain + 0.3


# Where sets are cut, tried and looked at
# ----------------------------------------------------------------------------------------------


def test_a_split_carries_them_along():
    data = Dataset(np.ones((6, 2)), [0, 1] * 3, [1, 2, 3, 4, 0, 0])
    first, last = data.split(2)
    np.testing.assert_array_equal(first.weights, [1, 2, 3, 4])
    np.testing.assert_array_equal(last.weights, [0, 0])  # it is not to be trained on


def test_the_hash_is_of_them_too():
    x, labels = make_set()
    plain, ones, others = (
        Dataset(x, labels, weights) for weights in (None, np.ones(11), np.arange(11))
    )
    assert len({each.sha256 for each in (plain, ones, others)}) == 3
    both = [fastnn.Datasets("", plain, plain), fastnn.Datasets("", ones, plain)]
    assert both[0].sha256 != both[1].sha256 != fastnn.Datasets("", plain, ones).sha256


def test_the_range_tests_cost_is_the_one_that_is_descended():
    x, labels = make_set(n=40)
    weights, tried = np.random.default_rng(3).random(40), network()
    start = np.mean(weights * by_sample(tried, x, labels))
    assert range_test(tried, (x, labels, weights)).start == pytest.approx(start)
    factors = Dataset(x, labels).weighted("balanced").weights
    start = np.mean(weights * factors * by_sample(tried, x, labels))
    test = range_test(tried, (x, labels, weights), class_weights="balanced")
    assert test.start == pytest.approx(start)


def test_the_range_test_measures_samples_that_count():
    """The thousand that are drawn of all may be such that count nothing."""
    digits = fastnn.load_dataset("digits").train
    last = fastnn.training.epoch_order(len(digits), 0, 0)[-40:]
    weights = np.zeros(len(digits))
    weights[last] = np.random.default_rng(4).random(40) * 50
    tried = Network([64, 30, 10], device="numpy", dtype="float64")
    test = range_test(tried, Dataset(digits.x, digits.labels, weights))
    counted = weights[last] * by_sample(tried, digits.x[last], digits.labels[last])
    assert test.start == pytest.approx(counted.sum() / len(digits))
    assert 1e-3 < test.suggestion < 10


@pytest.mark.parametrize("how", ["weights", "class_weights"])
def test_auto_tries_the_step_that_there_is_for_them(how, monkeypatch, tmp_path):
    monkeypatch.setattr(choosing, "cache_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(choosing, "reasons", lambda: {"numba": None})
    monkeypatch.delenv("FASTNN_AUTO", raising=False)
    tried = []

    class Watched(choosing.Trial):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            tried.append(self.plan)

    monkeypatch.setattr(choosing, "Trial", Watched)
    x, labels = make_set(n=70)
    # The first samples, which are what is tried, count nothing.
    monkeypatch.setattr(choosing, "SAMPLES", 64)
    weights = np.arange(70) == 69 if how == "weights" else None
    descent = {"class_weights": [0, 0, 1]} if how == "class_weights" else {}
    chosen = fastnn.choose([5, 4, 3], Dataset(x, labels, weights), 1, descent=descent)
    assert chosen.device == "numba"
    # By its own step, and by the plain one.
    assert [len(plan.weights) for plan in tried] == [64, 64]


def test_inspecting_takes_all_samples_alike():
    x, labels = make_set()
    trained = network()
    alike, counted = (
        sensitivity(trained, Dataset(x, labels, weights)) for weights in (None, np.zeros(11))
    )
    for one, other in zip(alike, counted, strict=True):
        np.testing.assert_array_equal(one, other)


# What is refused
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (1.0, r"one a sample, shape \(n,\), but have shape \(\)$"),
        (np.ones((11, 1)), r"shape \(11, 1\); give weights\.ravel\(\)"),
        (np.ones((11, 3)), r"shape \(11, 3\)$"),
        (np.ones(10), "11 samples in x but 10 weights"),
        (["a"] * 11, "weights hold str.*, not numbers"),
        (np.ones(11, complex), "weights hold complex128, not numbers"),
        ([1] * 7 + [-0.5] + [1] * 3, r"0 or more, but sample 7's is -0\.5"),
        ([1] * 10 + [np.nan], "finite and 0 or more, but sample 10's is nan"),
        ([np.inf] * 11, "but sample 0's is inf"),
        ([[1], [1, 2]], "weights cannot be made an array"),
    ],
)
def test_weights_that_are_none(weights, says):
    with pytest.raises(DataError, match=says):
        Dataset(*make_set(), weights)


@pytest.mark.parametrize(
    "given", ["balance", "", [], (0, 0, 0.0), 3, {0: 1}, {1, 2, 3}, np.array(2.0), True]
)
def test_class_weights_that_are_none(given):
    says = "class_weights must be 'balanced' or a number for each class, 0 or more and not all 0"
    x, labels = make_set()
    for use in (
        lambda: train(network(), (x, labels), class_weights=given),
        lambda: range_test(network(), (x, labels), class_weights=given),
        lambda: Dataset(x, labels).weighted(given),
    ):
        with pytest.raises(ArgumentError, match=says):
            use()


@pytest.mark.parametrize("wrong", [-1, np.nan, np.inf, "1", None, True, [1, 2]])
def test_a_class_weight_out_of_its_range(wrong):
    with pytest.raises(ArgumentError, match="a class's weight must be a number, 0 or more, not"):
        train(network(), make_set(), class_weights=[1, wrong, 1])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_there_is_one_for_each_output(count):
    with pytest.raises(ArgumentError, match=f"class_weights has {count} numbers; the network's 3 "):
        train(network(), make_set(), class_weights=[1] * count)


def test_there_is_one_for_each_class():
    with pytest.raises(ArgumentError, match="for 2 classes, and there is a class 2"):
        Dataset(*make_set()).weighted([1, 2])


@pytest.mark.parametrize("run", [train, range_test])
@pytest.mark.parametrize(
    ("weights", "dtype", "says"),
    [
        (np.zeros(11), "float64", "weights are all 0"),
        (np.full(11, 1e-300), "float32", "weights are all 0"),
        (np.full(11, 1e39), "float32", "weight is too large for float32"),
    ],
)
def test_what_cannot_be_trained_on(run, weights, dtype, says):
    tried = network(dtype=dtype)
    before = parameters(tried)
    with pytest.raises(DataError, match=says):
        run(tried, (*make_set(), weights))
    np.testing.assert_array_equal(parameters(tried), before)


def test_a_plan_has_them_only_where_there_are_any():
    data = Dataset(*make_set())
    of = network()
    assert plan_for(of, data, 5).weights is None
    weighted = plan_for(of, data, 5, class_weights="balanced")
    assert weighted.weights.shape == (11, 1)
    assert weighted.update is None
