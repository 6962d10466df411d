"""What is said of a network, against the definitions."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion

from fastnn import ArgumentError, DataError, Network, inspecting, synthetic
from fastnn.activations import HIDDEN
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.costs import mean_cost
from fastnn.inspecting import Confusion, Mistake
from fastnn.kernels import reference
from fastnn.testing import StrictBackend
from fastnn.testing.gradient_check import numerical_gradient

ENDS = [
    ("sigmoid", "cross-entropy"),
    ("softmax", "log-likelihood"),
    ("sigmoid", "quadratic"),
    ("identity", "squared-error"),
    ("tanh", "quadratic"),
]
DATA = synthetic(train=40, test=23, features=16, classes=3)


def one_hot(labels, classes):
    return np.eye(classes)[labels]


def with_floats(hidden, output, cost):
    """A small network in float64, and samples of floats that keep clear of relu's kink."""
    network = Network(
        [6, 5, 4, 3], activation=hidden, output=output, cost=cost, device="numpy", dtype="float64"
    )
    generator = np.random.default_rng(1)
    return network, generator.normal(size=(7, 6)), generator.integers(0, 3, 7)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(("output", "cost"), ENDS)
def test_saliency_is_the_slope_of_each_samples_cost(hidden, output, cost):
    network, x, labels = with_floats(hidden, output, cost)
    got = inspecting.saliency(network, (x, labels))
    y, h = one_hot(labels, 3), 1e-6

    def costs(x):
        outputs = network.forward(x)
        return np.array([mean_cost(cost, outputs[[i]], y[[i]]) for i in range(len(x))])

    steps = h * np.eye(6)
    slopes = [(costs(x + step) - costs(x - step)) / (2 * h) for step in steps]
    np.testing.assert_allclose(got, np.transpose(slopes), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(("output", "cost"), ENDS)
def test_sensitivity_is_the_slope_of_the_sets_mean_cost(hidden, output, cost):
    network, x, labels = with_floats(hidden, output, cost)
    expected = numerical_gradient(network, x, one_hot(labels, 3))[::2]
    for got, slope in zip(inspecting.sensitivity(network, (x, labels)), expected, strict=True):
        np.testing.assert_allclose(got, slope, rtol=1e-5, atol=1e-8)


def test_activations_are_those_of_the_text():
    network, x, _ = with_floats("tanh", "sigmoid", "quadratic")
    layers = inspecting.activations(network, x)
    np.testing.assert_array_equal(layers[0], x)
    pairs = zip(network.weights, network.biases, network.activations, strict=True)
    for (w, b, activation), a_prev, a in zip(pairs, layers, layers[1:], strict=False):
        np.testing.assert_allclose(a, reference.forward(a_prev, w, b, activation))


def test_bytes_are_pixels_from_0_to_1():
    network = Network([16, 5, 3], device="numpy", dtype="float64")
    as_floats = (DATA.test.x / 255, DATA.test.labels)
    np.testing.assert_allclose(inspecting.activations(network, DATA.test.x)[0], as_floats[0])
    for function in (inspecting.saliency, inspecting.sensitivity):
        for one, other in zip(
            function(network, DATA.test), function(network, as_floats), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-15)


def test_a_large_set_is_taken_in_portions(monkeypatch):
    network = Network([16, 5, 3], device="numpy", dtype="float64")

    def all_of_it():
        return [
            inspecting.saliency(network, DATA.test),
            *inspecting.sensitivity(network, DATA.test),
            *inspecting.activations(network, DATA.test.x),
        ]

    at_once = all_of_it()
    monkeypatch.setattr(inspecting, "PORTION", 16 * 10)  # 10, 10 and 3
    for one, other in zip(all_of_it(), at_once, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-15)


@pytest.mark.parametrize("device", ["numba", StrictBackend(NumpyBackend())])
def test_every_device_says_the_same(device):
    network = Network([16, 5, 4, 3], device="numpy")
    other = network.to(device)
    pairs = [
        (inspecting.saliency(network, DATA.test), inspecting.saliency(other, DATA.test)),
        *zip(
            inspecting.sensitivity(network, DATA.test),
            inspecting.sensitivity(other, DATA.test),
            strict=True,
        ),
        *zip(
            inspecting.activations(network, DATA.test.x),
            inspecting.activations(other, DATA.test.x),
            strict=True,
        ),
    ]
    for one, same in pairs:
        np.testing.assert_allclose(one, same, rtol=1e-4, atol=1e-6)


def test_nothing_is_changed_by_looking():
    network = Network([16, 5, 3], device="numpy")
    before = network.weights
    inspecting.sensitivity(network, DATA.test)
    inspecting.saliency(network, DATA.test)
    for one, other in zip(network.weights, before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_confusion_matrix_is_scikit_learns():
    network = Network([16, 5, 4], device="numpy")  # one class more than there are samples of
    expected = sklearn_confusion(
        DATA.test.labels, network.predict(DATA.test.x), labels=[0, 1, 2, 3]
    )
    np.testing.assert_array_equal(inspecting.confusion_matrix(network, DATA.test), expected)


def test_the_most_confused_come_first_and_none_that_is_not():
    matrix = np.array([[9, 2, 0], [5, 9, 0], [0, 2, 9]])
    both = [Confusion(1, 0, 5), Confusion(0, 1, 2), Confusion(2, 1, 2)]
    assert inspecting.most_confused(matrix) == both
    assert inspecting.most_confused(matrix, 1) == both[:1]
    assert inspecting.most_confused(np.diag([3, 4])) == []


def test_mistakes_are_all_of_them_the_surest_first():
    network = Network([16, 5, 3], device="numpy")
    outputs = network.forward(DATA.test.x)
    wrong = inspecting.mistakes(network, DATA.test)
    assert {each.sample for each in wrong} == set(
        np.flatnonzero(outputs.argmax(axis=1) != DATA.test.labels)
    )
    assert [each.output for each in wrong] == sorted((each.output for each in wrong), reverse=True)
    for each in wrong:
        row = outputs[each.sample]
        label = DATA.test.labels[each.sample]
        assert each == Mistake(each.sample, label, row.argmax(), row.max())


def test_noise_is_drawn_from_its_seed():
    noise = inspecting.noise_like(DATA.test.x, 500)
    assert (noise.shape, noise.dtype) == ((500, 16), np.uint8)
    assert (noise.min(), noise.max()) == (0, 255)
    np.testing.assert_array_equal(noise, inspecting.noise_like(DATA.test.x, 500, seed=0))
    assert (noise != inspecting.noise_like(DATA.test.x, 500, seed=1)).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_of_floats_lies_where_they_do(dtype):
    x = np.array([[-3, 5], [0, 1]], dtype)
    noise = inspecting.noise_like(x, 1000)
    assert noise.dtype == dtype
    assert -3 <= noise.min() < -2.9
    assert 4.9 < noise.max() <= 5
    widest = np.array([[np.finfo(dtype).min, np.finfo(dtype).max]], dtype)
    assert np.isfinite(inspecting.noise_like(widest)).all()


LOOKS = [
    inspecting.saliency,
    inspecting.sensitivity,
    inspecting.confusion_matrix,
    inspecting.mistakes,
]


@pytest.mark.parametrize("look", LOOKS)
def test_data_that_do_not_fit_are_refused(look):
    network = Network([16, 5, 3], device="numpy")
    with pytest.raises(DataError, match="the network takes 16"):
        look(network, (np.zeros((2, 9)), [0, 1]))
    with pytest.raises(DataError, match="class number 3"):
        look(network, (np.zeros((2, 16)), [0, 3]))
    with pytest.raises(DataError, match="takes 16"):
        inspecting.activations(network, np.zeros((2, 9)))
    with pytest.raises(ArgumentError, match="n must be"):
        inspecting.noise_like(np.zeros((2, 9)), 0)


@pytest.mark.parametrize(
    "look",
    [*LOOKS, lambda network, data: inspecting.activations(network, data[0])],
)
def test_what_overflows_is_refused_and_warns_of_nothing(look):
    parameters = [np.full((3, 2), 9), np.full((2, 3), 9)], [np.zeros(3), np.zeros(2)]
    network = Network.from_parameters(
        *parameters, activation="relu", output="identity", cost="quadratic", device="numpy"
    )
    with pytest.raises(DataError, match="not a finite number"):
        look(network, (np.full((2, 2), 3e38, np.float32), [0, 1]))
