"""The book's programs: their names, shapes, printout and files, and what comes out of them."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn
from fastnn import ArgumentError, DataError, DeviceError, ModelError, OutputError
from fastnn.book import mnist_loader, network, network2
from fastnn.book.samples import as_dataset, as_pairs
from fastnn.testing import StrictBackend

SIZES = [12, 7, 5, 4]


def backend(name):
    return StrictBackend(dtype="float64") if name == "strict" else fastnn.device(name, "float64")


def make_pairs(n, seed=0, one_hot=True, x=None):
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, SIZES[-1], n)
    x = rng.random((n, SIZES[0], 1)) if x is None else x
    ys = [column(int(digit)) if one_hot else int(digit) for digit in digits]
    return list(zip(x, ys, strict=True))


def column(digit, n=SIZES[-1]):
    return np.eye(n)[:, [digit]]


TRAINING, EVALUATION = make_pairs(53), make_pairs(31, 1, one_hot=False)


def first(**options):
    np.random.seed(5)
    return network.Network(SIZES, **options)


def second(cost=network2.CrossEntropyCost, **options):
    np.random.seed(5)
    return network2.Network(SIZES, cost=cost, **options)


NETWORKS = {
    "network": first,
    "network2": second,
    "network2, quadratic": lambda **options: second(network2.QuadraticCost, **options),
}
every_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def flat(net):
    return np.concatenate([np.ravel(array) for array in (*net.weights, *net.biases)])


def sigma(z):
    return 1 / (1 + np.exp(-z))


def outputs(net, x):
    for w, b in zip(net.weights, net.biases, strict=True):
        x = sigma(w.dot(x) + b)
    return x


def cost_of(net, x, y):
    a = outputs(net, x)
    if isinstance(net, network.Network) or net.cost is network2.QuadraticCost:
        return np.sum((a - y) ** 2) / 2
    return -np.sum(y * np.log(a) + (1 - y) * np.log(1 - a))


def reference_step(net, w, b, batch, eta, lmbda, n):
    """One mini-batch, a sample after the other, every derivative from its definition by layer."""
    squared = isinstance(net, network.Network) or net.cost is network2.QuadraticCost
    sums_w, sums_b = [0 * each for each in w], [0 * each for each in b]
    for x, y in batch:
        a = [x]
        for l in range(len(w)):  # noqa: E741
            a.append(sigma(w[l] @ a[l] + b[l]))
        error = a[-1] - y
        delta = error * a[-1] * (1 - a[-1]) if squared else error
        for l in range(len(w) - 1, -1, -1):  # noqa: E741
            sums_b[l] = sums_b[l] + delta
            sums_w[l] = sums_w[l] + np.outer(delta, a[l])
            delta = w[l].T @ delta * a[l] * (1 - a[l])
    m = len(batch)
    w = [(1 - eta * lmbda / n) * each - eta / m * s for each, s in zip(w, sums_w, strict=True)]
    b = [each - eta / m * s for each, s in zip(b, sums_b, strict=True)]
    return w, b


# Shapes and names
# ----------------------------------------------------------------------------------------


def test_a_network_has_the_books_shapes():
    for net in (first(), second()):
        assert (net.sizes, net.num_layers) == (SIZES, 4)
        assert [w.shape for w in net.weights] == [(7, 12), (5, 7), (4, 5)]
        assert [b.shape for b in net.biases] == [(7, 1), (5, 1), (4, 1)]
        for array in (*net.weights, *net.biases):
            assert array.dtype == np.float64
            assert array.flags.writeable
        assert net.feedforward(TRAINING[0][0]).shape == (4, 1)


def test_a_seed_draws_what_the_books_programs_draw():
    np.random.seed(5)
    biases = [np.random.randn(n, 1) for n in (7, 5, 4)]
    weights = [np.random.randn(*shape) for shape in ((7, 12), (5, 7), (4, 5))]
    expected = np.concatenate([array.ravel() for array in (*weights, *biases)])
    np.testing.assert_array_equal(flat(first()), expected)
    scaled = [w / np.sqrt(w.shape[1]) for w in weights]
    np.testing.assert_array_equal(
        flat(second()), np.concatenate([array.ravel() for array in (*scaled, *biases)])
    )
    net = second()
    np.random.seed(5)
    net.large_weight_initializer()
    np.testing.assert_array_equal(flat(net), expected)
    np.random.seed(5)
    net.default_weight_initializer()
    np.testing.assert_array_equal(flat(net), flat(second()))


def test_the_sigmoid():
    for module in (network, network2):
        assert module.sigmoid(0.0) == 0.5
        assert module.sigmoid_prime(0.0) == 0.25
        z = np.array([-1000, -2.0, 3.0, 1000])
        np.testing.assert_allclose(module.sigmoid(z)[1:3], sigma(z[1:3]), rtol=1e-14)
        np.testing.assert_array_equal(module.sigmoid(z)[[0, 3]], [0, 1])


def test_feedforward_takes_a_column_or_many():
    net = first()
    together = net.feedforward(np.hstack([x for x, _ in TRAINING]))
    assert together.shape == (4, 53)
    for number, (x, _) in enumerate(TRAINING):
        np.testing.assert_allclose(together[:, [number]], outputs(net, x), rtol=1e-12)
        np.testing.assert_allclose(net.feedforward(x), outputs(net, x), rtol=1e-12)


def test_the_costs_of_a_sample():
    a, y, z = np.array([[0.2], [0.9]]), np.array([[0.0], [1.0]]), np.array([[-1.4], [2.2]])
    assert network2.QuadraticCost.fn(a, y) == pytest.approx((0.04 + 0.01) / 2)
    assert network2.CrossEntropyCost.fn(a, y) == pytest.approx(-np.log(0.8) - np.log(0.9))
    assert network2.CrossEntropyCost.fn(y, y) == pytest.approx(0, abs=1e-12)
    np.testing.assert_array_equal(network2.CrossEntropyCost.delta(z, a, y), a - y)
    np.testing.assert_allclose(
        network2.QuadraticCost.delta(z, a, y), (a - y) * sigma(z) * (1 - sigma(z)), rtol=1e-14
    )
    np.testing.assert_array_equal(first().cost_derivative(a, y), a - y)


# The gradient, and a step
# --------------------------------------------------------------------------------


@every_network
def test_backprop_is_the_derivative(make):
    net, (x, y), h = make(), TRAINING[3], 1e-6
    nabla_b, nabla_w = net.backprop(x, y)
    assert isinstance(nabla_b, list)
    for arrays, nabla in ((net.biases, nabla_b), (net.weights, nabla_w)):
        assert [each.shape for each in nabla] == [each.shape for each in arrays]
        for array, derivative in zip(arrays, nabla, strict=True):
            for index in np.ndindex(array.shape):
                kept, costs = array[index], []
                for value in (kept + h, kept - h):
                    array[index] = value
                    costs.append(cost_of(net, x, y))
                array[index] = kept
                difference = (costs[0] - costs[1]) / (2 * h)
                assert derivative[index] == pytest.approx(difference, rel=1e-5, abs=1e-9)


@every_network
def test_update_mini_batch_is_one_step(make):
    net, batch = make(), TRAINING[:10]
    further = () if isinstance(net, network.Network) else (2.5, 53)
    w, b = reference_step(net, net.weights, net.biases, batch, 0.7, *(further or (0, 1)))
    net.update_mini_batch(batch, 0.7, *further)
    for ours, expected in zip((*net.weights, *net.biases), (*w, *b), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12)
    together = make()
    together.update_mini_batch(zip(*zip(*batch, strict=True), strict=True), 0.7, *further)
    np.testing.assert_array_equal(flat(together), flat(net))


def test_lmbda_shrinks_the_weights_and_not_the_biases():
    """Where nothing is to be learned, a = y, what is left is W ← (1 - ηλ/n) W."""
    x = np.zeros((12, 1))
    net = second()
    w, b = net.weights, net.biases
    batch = [(x, outputs(net, x))]
    net.update_mini_batch(batch, 0.5, 6.0, 10)
    for new, old in zip(net.weights, w, strict=True):
        np.testing.assert_allclose(new, 0.7 * old, rtol=1e-12)
    for new, old in zip(net.biases, b, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-12, atol=1e-14)


# Training
# ------------------------------------------------------------------------------------------------


def mini_batches_of(make, *sgd):
    """The mini-batches that SGD takes after this seed: a method of the reader's sees them."""
    net, seen = make(), []
    net.update_mini_batch = lambda mini_batch, *rest: seen.append(list(mini_batch))
    net.SGD(*sgd)
    return seen


@pytest.mark.parametrize("size", [1, 10, 53, 1000])
@pytest.mark.parametrize("device", ["numpy", "numba", "strict"])
@every_network
def test_sgd_is_the_method_of_the_book(make, device, size, capsys):
    """A sample at a time in float64, in the same order, the last mini-batch smaller than others."""
    batches = mini_batches_of(make, TRAINING, 3, size, 0.8)
    assert len(batches) == 3 * -(-53 // size)
    seen = sorted(float(x[0, 0]) for batch in batches for x, _ in batch)
    assert seen == sorted([float(x[0, 0]) for x, _ in TRAINING] * 3)

    net = make(device=backend(device))
    lmbda = () if isinstance(net, network.Network) else (4.0,)
    w, b = net.weights, net.biases
    for batch in batches:
        w, b = reference_step(net, w, b, batch, 0.8, *(lmbda or (0,)), 53)
    net.SGD(TRAINING, 3, size, 0.8, *lmbda)
    expected = np.concatenate([array.ravel() for array in (*w, *b)])
    np.testing.assert_allclose(flat(net), expected, rtol=1e-9, atol=1e-11)


@every_network
def test_the_books_methods_come_to_the_same_as_the_device(make, capsys):
    runs = []
    for own in (False, True):
        net = make(device=backend("numpy"))
        if own:
            net.feedforward = net.feedforward  # the reader's, for all that SGD knows
        result = net.SGD(TRAINING, 2, 10, 0.8, **monitors(net))
        runs.append((flat(net), result, capsys.readouterr().out))
    (on_device, measured, printed), (by_methods, measured_too, printed_too) = runs
    np.testing.assert_allclose(by_methods, on_device, rtol=1e-10, atol=1e-12)
    if measured is not None:
        for one, other in zip(measured, measured_too, strict=True):
            assert one == pytest.approx(other, rel=1e-10)
    assert re.sub(r"\.\d+", "", printed) == re.sub(r"\.\d+", "", printed_too)


def monitors(net):
    if isinstance(net, network.Network):
        return {"test_data": EVALUATION}
    return {
        "lmbda": 3.0,
        "evaluation_data": EVALUATION,
        "monitor_evaluation_cost": True,
        "monitor_evaluation_accuracy": True,
        "monitor_training_cost": True,
        "monitor_training_accuracy": True,
    }


def test_what_a_subclass_replaces_is_called(capsys):
    class Ours(network.Network):
        def cost_derivative(self, output_activations, y):
            return 0 * (output_activations - y)

        def evaluate(self, test_data):
            return 17

    np.random.seed(5)
    net = Ours(SIZES)
    net.SGD(TRAINING, 1, 10, 3.0, test_data=EVALUATION)
    np.testing.assert_array_equal(flat(net), flat(first()))
    assert capsys.readouterr().out == "Epoch 0: 17 / 31\n"


def test_a_cost_of_the_readers_own_is_called(capsys):
    class Twice:
        fn = staticmethod(lambda a, y: 2 * network2.CrossEntropyCost.fn(a, y))
        delta = staticmethod(lambda z, a, y: 2 * (a - y))

    options = {"monitor_training_cost": True}
    own = second(Twice)
    *_, own_costs, _ = own.SGD(TRAINING, 2, 10, 0.25, **options)
    ours = second(device=backend("numpy"))
    *_, our_costs, _ = ours.SGD(TRAINING, 2, 10, 0.5, **options)
    np.testing.assert_allclose(flat(own), flat(ours), rtol=1e-9)
    np.testing.assert_allclose(own_costs, 2 * np.array(our_costs), rtol=1e-9)


def test_outputs_that_are_not_one_hot_are_learned_by_the_books_method(capsys):
    np.random.seed(0)
    net = network.Network([2, 2, 1])
    x = [np.array([[a], [b]], float) for a in (0, 1) for b in (0, 1)]
    pairs = [(each, np.array([[float(each.sum() == 1)]])) for each in x]
    batches = [pairs] * 20
    w, b = net.weights, net.biases
    for batch in batches:
        w, b = reference_step(net, w, b, batch, 2.0, 0, 1)
    net.SGD(pairs, 20, 4, 2.0)
    expected = np.concatenate([array.ravel() for array in (*w, *b)])
    np.testing.assert_allclose(flat(net), expected, rtol=1e-9)


@every_network
def test_numpys_seed_gives_the_same_run_and_leaves_the_list_as_it_is(make, capsys):
    runs, pairs = [], list(TRAINING)
    for seed in (1, 1, 2):
        net = make()
        np.random.seed(seed)
        net.SGD(pairs, 1, 10, 0.5)
        runs.append(flat(net))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    assert all(ours is theirs for ours, theirs in zip(pairs, TRAINING, strict=True))


def test_what_a_reader_writes_into_the_parameters_is_taken(capsys):
    net, twin = first(), first()
    net.weights[0][2, 3] = 9.0
    net.biases[1] = np.zeros((5, 1))
    net.SGD(TRAINING, 1, 53, 1e-9)
    assert net.weights[0][2, 3] == pytest.approx(9, rel=1e-6)
    np.testing.assert_allclose(net.biases[1], 0, atol=1e-7)
    kept = net.weights[0]
    before = kept.copy()
    net.SGD(TRAINING, 1, 10, 3.0)
    np.testing.assert_array_equal(kept, before)  # a reader's copy of the reference is a snapshot
    assert not np.array_equal(net.weights[0], before)
    assert not np.array_equal(net.weights[0], twin.weights[0])
    for array in (*net.weights, *net.biases):
        assert array.dtype == np.float64
        assert array.flags.writeable


def test_after_each_epoch_the_parameters_are_the_devices(monkeypatch, capsys):
    """Seen while it prints: the line of an epoch tells what `evaluate` says of them."""
    net, told = first(device=backend("numba")), []
    monkeypatch.setattr(
        network, "print", lambda line: told.append((line, net.evaluate(EVALUATION))), raising=False
    )
    net.SGD(TRAINING, 4, 10, 3.0, test_data=EVALUATION)
    assert told == [(f"Epoch {j}: {right} / 31", right) for j, (_, right) in enumerate(told)]
    assert len(told) == 4


def test_it_is_one_training_of_a_subclass_too_that_replaces_nothing(monkeypatch, capsys):
    class Named(fastnn.book.Network):
        name = "first"

        def describe(self):
            return self.name

    calls = []
    real = fastnn.book.base.train
    monkeypatch.setattr(fastnn.book.base, "train", lambda *a, **k: calls.append(k) or real(*a, **k))
    Named(SIZES).SGD(TRAINING, 5, 10, 3.0, test_data=EVALUATION)
    assert [call["epochs"] for call in calls] == [5]


# The printout, and the monitors
# --------------------------------------------------------------------------------


def test_the_printout_of_network(capsys):
    net = first()
    assert net.SGD(TRAINING, 2, 10, 3.0) is None
    assert capsys.readouterr().out == "Epoch 0 complete\nEpoch 1 complete\n"
    net.SGD(TRAINING, 1, 10, 3.0, test_data=EVALUATION)
    assert capsys.readouterr().out == f"Epoch 0: {net.evaluate(EVALUATION)} / 31\n"


def test_the_printout_of_network2(capsys):
    net = second()
    assert net.SGD(TRAINING, 1, 10, 0.5) == ([], [], [], [])
    assert capsys.readouterr().out == "Epoch 0 training complete\n\n"
    (ec,), (ea,), (tc,), (ta,) = net.SGD(TRAINING, 1, 10, 0.5, **monitors(net))
    assert capsys.readouterr().out == (
        "Epoch 0 training complete\n"
        f"Cost on training data: {tc}\n"
        f"Accuracy on training data: {ta} / 53\n"
        f"Cost on evaluation data: {ec}\n"
        f"Accuracy on evaluation data: {ea} / 31\n"
        "\n"
    )


@pytest.mark.parametrize("device", ["numpy", "numba", "strict"])
@pytest.mark.parametrize("cost", [network2.CrossEntropyCost, network2.QuadraticCost()])
def test_the_monitors_are_their_formulas(cost, device, capsys):
    net = second(cost, device=backend(device))
    measured = net.SGD(TRAINING, 3, 10, 0.5, **monitors(net))
    assert [len(each) for each in measured] == [3] * 4
    json.dumps(measured)  # the book's scripts keep them so
    squares = sum((w**2).sum() for w in net.weights)
    quadratic = isinstance(cost, network2.QuadraticCost)
    for pairs, cost_at_end, right_at_end in (
        (EVALUATION, measured[0][-1], measured[1][-1]),
        (TRAINING, measured[2][-1], measured[3][-1]),
    ):
        total, right = 0.0, 0
        for x, y in pairs:
            y = column(y) if isinstance(y, int) else y
            a = outputs(net, x)
            total += (
                ((a - y) ** 2).sum() / 2
                if quadratic
                else -(y * np.log(a) + (1 - y) * np.log(1 - a)).sum()
            )
            right += a.argmax() == y.argmax()
        expected = total / len(pairs) + 0.5 * 3.0 / len(pairs) * squares
        assert cost_at_end == pytest.approx(expected, rel=1e-10)
        assert right_at_end == right
        assert net.total_cost(pairs, 3.0) == pytest.approx(expected, rel=1e-10)
        assert net.accuracy(pairs) == net.accuracy(pairs, convert=True) == right


@pytest.mark.parametrize(
    "monitor",
    [
        f"monitor_{name}"
        for name in (
            "evaluation_cost",
            "evaluation_accuracy",
            "training_cost",
            "training_accuracy",
        )
    ],
)
def test_what_is_not_monitored_stays_empty(monitor, capsys):
    names = ["evaluation_cost", "evaluation_accuracy", "training_cost", "training_accuracy"]
    measured = second().SGD(TRAINING, 2, 10, 0.5, evaluation_data=EVALUATION, **{monitor: True})
    lengths = dict(zip(names, map(len, measured), strict=True))
    assert lengths == {name: 2 * (f"monitor_{name}" == monitor) for name in names}


@pytest.mark.parametrize("own", [False, True])
def test_early_stopping(own, capsys):
    """At a rate of almost nothing no epoch is better than the first."""
    net = second()
    if own:
        net.accuracy = net.accuracy
    options = {"evaluation_data": EVALUATION, "monitor_evaluation_accuracy": True}
    _, accuracies, _, _ = net.SGD(TRAINING, 30, 10, 1e-12, early_stopping_n=3, **options)
    assert len(accuracies) == 4
    _, accuracies, _, _ = net.SGD(TRAINING, 6, 10, 1e-12, early_stopping_n=0, **options)
    assert len(accuracies) == 6


@every_network
def test_zips_are_taken_and_gone_through_once(make, capsys):
    listed = make()
    listed.SGD(TRAINING, 2, 10, 0.5)
    zipped = make()
    pairs = zip(*zip(*TRAINING, strict=True), strict=True)
    zipped.SGD(pairs, 2, 10, 0.5)
    np.testing.assert_array_equal(flat(zipped), flat(listed))
    with pytest.raises(DataError, match=r"training_data is empty; a zip gives its pairs only once"):
        zipped.SGD(pairs, 2, 10, 0.5)


# Samples
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pixels_become_bytes_again(dtype):
    pixels = np.random.default_rng(0).integers(0, 256, (600, 12, 1), dtype=np.uint8)
    x = pixels.astype(dtype) / np.dtype(dtype).type(255)
    data = as_dataset(as_pairs("data", make_pairs(600, x=x), SIZES), 4)
    assert data.x.dtype == np.uint8
    np.testing.assert_array_equal(data.x, pixels[:, :, 0])
    # One number that is no k/255, in the last of several blocks, and they are what they are.
    for odd in (np.nextafter(x[599, 0, 0], 2, dtype=dtype), -0.5, 300 / 255):
        other = x.copy()
        other[599, 0, 0] = odd
        data = as_dataset(as_pairs("data", make_pairs(600, x=other), SIZES), 4)
        assert data.x.dtype == dtype
        np.testing.assert_array_equal(data.x, other[:, :, 0])


def test_whole_numbers_are_no_pixels():
    x = np.full((3, 12, 1), 7, np.uint8)
    data = as_dataset(as_pairs("data", make_pairs(3, x=x), SIZES), 4)
    assert data.x.dtype.kind == "f"
    assert (data.x == 7).all()


GOOD = (np.zeros((12, 1)), column(1))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (5, "training_data must be a list of pairs"),
        ([1, 2], "training_data must be a list of pairs"),
        ([GOOD, (1, 2, 3)], "training_data must be a list of pairs"),
        ((np.zeros((9, 12)), np.zeros(9, int)), "training_data must be a list of pairs"),
        ([], "training_data is empty"),
        ([GOOD, (np.zeros(12), 1)], r"x of training_data\[1\] is float64 of shape \(12,\).*12, 1"),
        ([(np.zeros((9, 1)), 1)], r"\[0\] is float64 of shape \(9, 1\)"),
        ([(np.full((12, 1), "a"), 1)], "real numbers"),
        ([(GOOD[0], 4)], r"y of training_data\[0\] is 4; .* whole number from 0 to 3"),
        ([(GOOD[0], -1)], "is -1"),
        ([(GOOD[0], 1.0)], "is 1.0"),
        ([(GOOD[0], np.eye(4)[1])], r"column of shape \(4, 1\)"),
        ([(GOOD[0], None)], "is None"),
        ([(GOOD[0], [[1], [0, 0], [0], [0]])], "column of shape"),
        ([(np.full((12, 1), np.nan), 1)], "NaN or inf in sample 0"),
    ],
)
@every_network
def test_data_that_cannot_be(make, data, says):
    with pytest.raises(DataError, match=says):
        make().SGD(data, 1, 10, 3.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0, 10, 3.0), "epochs must be a whole number, 1"),
        ((3.0, 10, 3.0), "epochs must be a whole number"),
        ((1, 0, 3.0), "mini_batch_size must be a whole number, 1 or more, not 0"),
        ((1, 10, 0), "eta must be a number above 0"),
        ((1, 10, "3"), "eta must be a number above 0"),
    ],
)
@every_network
def test_numbers_that_cannot_be(make, arguments, says):
    with pytest.raises(ArgumentError, match=says):
        make().SGD(TRAINING, *arguments)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lmbda": -1}, "lmbda must be a number, 0 or more"),
        ({"lmbda": 1e6}, "lmbda of 1e.06 shrinks the weights to nothing"),
        ({"monitor_evaluation_cost": True}, "must be given"),
        ({"monitor_evaluation_accuracy": True}, "must be given"),
        ({"early_stopping_n": 3}, "needs monitor_evaluation_accuracy"),
        ({"early_stopping_n": -3}, "early_stopping_n must be a whole number"),
    ],
)
def test_options_that_cannot_be(options, says):
    with pytest.raises(ArgumentError, match=says):
        second().SGD(TRAINING, 1, 10, 0.5, **options)


def test_other_things_that_cannot_be():
    net = first()
    with pytest.raises(DataError, match=r"a must be a column, of shape \(12, 1\), not \(12,\)"):
        net.feedforward(np.zeros(12))
    with pytest.raises(DataError, match=r"y must be a column, of shape \(4, 1\), not \(\)"):
        net.backprop(GOOD[0], 3)
    with pytest.raises(DataError, match="mini_batch is empty"):
        net.update_mini_batch([], 3.0)
    net.weights[1] = np.zeros((3, 3))
    with pytest.raises(ArgumentError, match=r"weights of a network of sizes .*\(5, 7\).*\(3, 3\)"):
        net.SGD(TRAINING, 1, 10, 3.0)
    net.weights[1] = np.full((5, 7), np.inf)
    with pytest.raises(ArgumentError, match="weights must be finite"):
        net.SGD(TRAINING, 1, 10, 3.0)
    for make in (network.Network, network2.Network):
        with pytest.raises(ArgumentError, match="input and an output layer"):
            make([784])
        with pytest.raises(ArgumentError, match="GB of memory"):
            make([10**9, 10**9])
        with pytest.raises(DeviceError, match="unknown device 'numpi'"):
            make(SIZES, device="numpi")
    with pytest.raises(ArgumentError, match="class with fn and delta"):
        network2.Network(SIZES, cost="cross-entropy")
    for module in (network2, mnist_loader):
        with pytest.raises(ArgumentError, match="j must be a whole number, 0 to 9, not 10"):
            module.vectorized_result(10)


# Files
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [network2.CrossEntropyCost, network2.QuadraticCost])
def test_a_network_comes_back_as_it_was(cost, tmp_path):
    net = second(cost)
    net.save(tmp_path / "net.json")
    back = network2.load(tmp_path / "net.json")
    np.testing.assert_array_equal(flat(back), flat(net))
    np.testing.assert_array_equal(back.feedforward(GOOD[0]), net.feedforward(GOOD[0]))
    assert (back.sizes, back.cost) == (SIZES, cost)
    content = json.loads((tmp_path / "net.json").read_text())
    assert content == {
        "sizes": SIZES,
        "weights": [w.tolist() for w in net.weights],
        "biases": [b.tolist() for b in net.biases],
        "cost": cost.__name__,
    }
    net.save(tmp_path / "net.json")  # over itself


BY_HAND = {
    "sizes": [2, 2, 1],
    "weights": [[[1, -1.5], [0.5, 2]], [[3, -4]]],
    "biases": [[[0.25], [0]], [[-1]]],
    "cost": "QuadraticCost",
}


def test_a_file_in_the_books_form_is_read(tmp_path, capsys):
    path = tmp_path / "by_hand.json"
    path.write_text(json.dumps(BY_HAND))
    net = network2.load(str(path), device="numpy")
    assert net.backend.name == "numpy"
    hidden = sigma(np.array([[1 - 3 + 0.25], [0.5 + 4]]))
    expected = sigma(3 * hidden[0] - 4 * hidden[1] - 1)
    np.testing.assert_allclose(net.feedforward([[1], [2]]), [expected], rtol=1e-13)
    net.SGD([(np.zeros((2, 1)), 0)], 1, 1, 0.5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cost": "CrossEntropy"}, r"damaged: unknown cost.*Did you mean 'CrossEntropyCost'"),
        ({"cost": None}, "damaged: unknown cost"),
        ({"sizes": [2, 3, 1]}, "damaged: the weights of a network of sizes"),
        ({"sizes": "no"}, "damaged"),
        ({"biases": [[0.25, 0], [-1]]}, "damaged: the biases"),
        ({"weights": None}, "damaged: weights must be"),
        ({"weights": [[[1, float("nan")], [0.5, 2]], [[3, -4]]]}, "damaged: .* finite"),
        (None, "it lacks 'cost'"),
        ("[1, 2]", "no JSON object"),
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        (b"\xff\xfe\x00", "it is not JSON"),
    ],
)
def test_files_that_are_no_network(tmp_path, change, says):
    path = tmp_path / "net.json"
    if isinstance(change, bytes):
        path.write_bytes(change)
    elif isinstance(change, str):
        path.write_text(change)
    elif change is None:
        path.write_text(json.dumps({"sizes": [2, 1]}))
    else:
        path.write_text(json.dumps(BY_HAND | change))
    with pytest.raises(ModelError, match=says):
        network2.load(path)


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(ModelError, match=r"missing\.json cannot be read"):
        network2.load(tmp_path / "missing.json")
    (tmp_path / "notes.json").write_text('{"mine": 1}')
    with pytest.raises(OutputError, match="holds something other than a network"):
        second().save(tmp_path / "notes.json")
    with pytest.raises(OutputError):
        second().save(tmp_path / "no" / "folder.json")
    net = second()
    net.weights[0][0, 0] = np.nan
    with pytest.raises(ArgumentError, match="finite"):
        net.save(tmp_path / "nan.json")


# The loader
# -----------------------------------------------------------------------------------------------


def test_the_loader_gives_the_books_forms():
    training, validation, test = mnist_loader.load_data_wrapper("digits")
    data = fastnn.load_dataset("digits")
    assert [len(each) for each in (training, validation, test)] == [1198, 239, 360]
    assert all(type(each) is list for each in (training, validation, test))
    x, y = training[7]
    assert (x.shape, y.shape) == ((64, 1), (10, 1))
    assert (x.dtype, x.min(), x.max()) == (np.float32, 0, 1)
    np.testing.assert_array_equal(y, network2.vectorized_result(int(data.train.labels[7])))
    np.testing.assert_array_equal(x[:, 0] * 255, data.train.x[7])
    x, y = validation[0]
    assert (x.shape, type(y), y) == ((64, 1), int, data.train.labels[1198])
    assert [y for _, y in test] == data.test.labels.tolist()
    assert as_dataset(as_pairs("training", training, [64, 10]), 10).x.dtype == np.uint8

    (images, digits), *_ = mnist_loader.load_data("digits")
    assert (images.shape, digits.shape) == ((1198, 64), (1198,))


def test_a_loader_of_other_than_digits(tmp_path):
    data = fastnn.synthetic(24, 12, features=4, classes=12)
    x, y = data.train.x, data.train.labels
    np.savez(tmp_path / "twelve.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match="has 12 classes"):
        mnist_loader.load_data(tmp_path / "twelve.npz")


@pytest.fixture(scope="module")
def mnist():
    if "FASTNN_MNIST" not in os.environ:
        pytest.skip("FASTNN_MNIST is not set")
    return mnist_loader.load_data_wrapper(os.environ["FASTNN_MNIST"])


def test_mnist_is_split_as_in_the_book(mnist):
    assert [len(each) for each in mnist] == [50_000, 10_000, 10_000]
    (x, y), (_, digit) = mnist[0][0], mnist[1][0]
    assert (x.shape, y.shape) == ((784, 1), (10, 1))
    # The first image is a five, and the first of the validation data a three.
    assert (y.argmax(), digit) == (5, 3)


def test_the_books_first_network_learns(mnist, capsys):
    training_data, _, test_data = mnist
    np.random.seed(0)
    net = network.Network([784, 30, 10])
    net.SGD(training_data, 2, 10, 3.0, test_data=test_data)
    right = int(re.search(r"^Epoch 1: (\d+) / 10000$", capsys.readouterr().out, re.M)[1])
    assert right > 9000
    assert net.evaluate(test_data) == pytest.approx(right, abs=2)  # float64, and float32


# A reader's script, of which nothing but the import lines is changed
# ----------------------------------------------------------------------------

SCRIPT = """
import json
import random
import sys

import numpy as np

IMPORTS

random.seed(12345678)
np.random.seed(12345678)


def main():
    training_data, validation_data, test_data = LOADED
    net = network.Network([64, 30, 10])
    net.SGD(training_data[:1000], 4, 10, 3.0, test_data=test_data)
    print(sum(w.size for w in net.weights), net.evaluate(test_data) / 3.6)

    net = network2.Network([64, 30, 10], cost=network2.CrossEntropyCost())
    net.large_weight_initializer()
    vc, va, tc, ta = net.SGD(
        list(training_data), 5, 10, 0.5, lmbda=0.1, evaluation_data=zip(*zip(*validation_data)),
        monitor_evaluation_accuracy=True, monitor_training_cost=True)
    json.dump([vc, va, tc, ta], open("overfitting.json", "w"))
    gradient = [net.backprop(x, y)[0] for x, y in training_data[:20]]
    print([float(np.linalg.norm(sum(layer))) for layer in zip(*gradient)])
    net.save("net.json")
    print(network2.load("net.json").accuracy(validation_data))


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("device", ["auto", "numba", "numpy"])
def test_a_readers_script_runs(device, tmp_path):
    program = SCRIPT.replace(
        "IMPORTS", "from fastnn.book import mnist_loader\nfrom fastnn.book import network, network2"
    ).replace("LOADED", 'mnist_loader.load_data_wrapper("digits")')
    if device != "auto":
        program = re.sub(r"(\[64, 30, 10\](, cost=.*\(\))?)\)", rf"\1, device='{device}')", program)
        assert program.count(f"device={device!r}") == 2
    (tmp_path / "script.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(fastnn.__file__).parents[1])}
    ran = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == [f"Epoch {j}" for j in range(4)]
    weights, percent = lines[4].split()
    assert int(weights) == 64 * 30 + 300
    assert float(percent) > 80
    assert len(ast.literal_eval(lines[-2])) == 2
    empty, accuracies, costs, empty_too = json.loads((tmp_path / "overfitting.json").read_text())
    assert empty == empty_too == []
    assert len(costs) == 5
    assert costs[-1] < costs[0]
    assert int(lines[-1]) == pytest.approx(accuracies[-1], abs=1)
    assert accuracies[-1] > 200
