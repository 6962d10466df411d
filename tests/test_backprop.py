"""What a training step subtracts from the weights, against the texts and against calculus.

Nothing here but the step itself is of the package: the activations, the costs and the algorithm of
the texts, with column vectors and one sample at a time, are written again below, in float64.
"""

import itertools

import numpy as np
import pytest

from fastnn import Network
from fastnn.backends.base import Plan
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.backprop import BackpropStep

SIGMOID = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731  a table of formulas
SOFTMAX = lambda z: np.exp(z) / np.exp(z).sum(axis=0)  # noqa: E731

# name: (σ(z), σ′(z)), of column vectors
ACTIVATIONS = {
    "sigmoid": (SIGMOID, lambda z: SIGMOID(z) * (1 - SIGMOID(z))),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "relu": (lambda z: z * (z > 0), lambda z: 1.0 * (z > 0)),
    "leaky-relu": (lambda z: np.where(z > 0, z, z / 100), lambda z: np.where(z > 0, 1, 0.01)),
    "identity": (lambda z: z, lambda z: 1 + 0 * z),
    "softmax": (SOFTMAX, None),
}
# name: (C_x(a, y), ∇_a C_x) of one sample
COSTS = {
    "quadratic": (lambda a, y: np.sum((y - a) ** 2) / 2, lambda a, y: a - y),
    "squared-error": (lambda a, y: np.sum((y - a) ** 2), lambda a, y: 2 * (a - y)),
    "cross-entropy": (
        lambda a, y: -np.sum(y * np.log(a) + (1 - y) * np.log(1 - a)),
        lambda a, y: (a - y) / (a * (1 - a)),
    ),
    "log-likelihood": (lambda a, y: -np.sum(y * np.log(a)), lambda a, y: -y / a),
}
HIDDEN = [name for name in ACTIVATIONS if name != "softmax"]
PAIRS = [
    *itertools.product(("quadratic", "squared-error"), HIDDEN),
    ("cross-entropy", "sigmoid"),
    ("log-likelihood", "softmax"),
]
# Depth 1, 2 and 3: the number of layers that have weights. At depth 1 nothing is hidden.
NETWORKS = [
    *(([4, 3], "sigmoid", *pair) for pair in PAIRS),
    *(
        (sizes, hidden, *pair)
        for sizes, hidden, pair in itertools.product([[4, 5, 3], [4, 5, 6, 3]], HIDDEN, PAIRS)
    ),
]


def make_network(sizes, activation="sigmoid", cost="quadratic", output="sigmoid", seed=11):
    """A float64 network whose relus are alive: the biases are positive."""
    rng = np.random.default_rng(seed)
    shapes = list(zip(sizes[1:], sizes, strict=False))
    return Network.from_parameters(
        [0.7 * rng.standard_normal(shape) for shape in shapes],
        [rng.uniform(0.1, 0.6, n_out) for n_out, _ in shapes],
        activation=activation,
        output=output,
        cost=cost,
        device="numpy",
        dtype="float64",
    )


def samples(network, n, seed=12):
    rng = np.random.default_rng(seed)
    x, n_out = rng.standard_normal((n, network.sizes[0])), network.sizes[-1]
    return x, np.eye(n_out)[rng.integers(0, n_out, n)]


def copy_of(network):
    """The parameters as the text has them: every w (n_out, n_in), then every b (n_out, 1)."""
    return [w.copy() for w in network.weights] + [b[:, np.newaxis].copy() for b in network.biases]


def start_step(network, x, y, batch_size):
    plan = Plan(network.layers, network.sizes, network.cost, x, 1.0, y, len(x), batch_size)
    return BackpropStep(network.backend, plan)


def step_gradient(network, x, y, batch_size, start, stop):
    """What a step at rate 1 subtracts from every parameter."""
    before = copy_of(network)
    step = start_step(network, x, y, batch_size)
    step(np.arange(len(x), dtype=np.int32), start, stop, 1.0, 1.0)
    return [old - new for old, new in zip(before, copy_of(network), strict=True)]


def backprop(network, parameters, x, y):
    """The algorithm of the texts for one sample, x (n_in, 1) and y (n_out, 1): ∂C_x/∂w and ∂b."""
    depth = len(network.layers)
    w, b = parameters[:depth], parameters[depth:]
    zs, activations = [], [x]
    for w_l, b_l, name in zip(w, b, network.activations, strict=True):
        zs.append(w_l @ activations[-1] + b_l)
        activations.append(ACTIVATIONS[name][0](zs[-1]))
    a, last = activations[-1], network.activations[-1]
    slope = COSTS[network.cost][1](a, y)
    if last == "softmax":  # its units are coupled: ∂a_j/∂z_k = a_j (δ_jk - a_k)
        delta = (np.diag(a[:, 0]) - a @ a.T) @ slope
    else:
        delta = slope * ACTIVATIONS[last][1](zs[-1])
    nabla_w, nabla_b = [delta @ activations[-2].T], [delta]
    for l in range(2, depth + 1):  # noqa: E741  the texts' letter
        sigma_prime = ACTIVATIONS[network.activations[-l]][1](zs[-l])
        delta = (w[-l + 1].T @ delta) * sigma_prime
        nabla_w.insert(0, delta @ activations[-l - 1].T)
        nabla_b.insert(0, delta)
    return nabla_w + nabla_b


def mean_backprop(network, parameters, x, y):
    """The mean over the samples, done one by one."""
    each = [
        backprop(network, parameters, x_i[:, np.newaxis], y_i[:, np.newaxis])
        for x_i, y_i in zip(x, y, strict=True)
    ]
    return mean(each)


def mean(gradients):
    return [sum(arrays) / len(gradients) for arrays in zip(*gradients, strict=True)]


def mean_cost(network, parameters, x, y):
    depth, a = len(network.layers), x.T
    for w, b, name in zip(parameters[:depth], parameters[depth:], network.activations, strict=True):
        a = ACTIVATIONS[name][0](w @ a + b)
    return COSTS[network.cost][0](a, y.T) / len(x)


def central_differences(network, x, y, h=1e-5):
    """∂C/∂p = (C(p + h) - C(p - h)) / 2h for every parameter p."""
    parameters = copy_of(network)
    slopes = [np.empty_like(array) for array in parameters]
    for array, slope in zip(parameters, slopes, strict=True):
        for place in np.ndindex(array.shape):
            here = array[place]
            array[place] = here + h
            above = mean_cost(network, parameters, x, y)
            array[place] = here - h
            below = mean_cost(network, parameters, x, y)
            array[place] = here
            slope[place] = (above - below) / (2 * h)
    return slopes


def assert_same(got, expected, relative):
    """Equal to so much of each array's largest value, and not because all is zero."""
    for got_array, array in zip(got, expected, strict=True):
        largest = np.abs(array).max()
        assert largest > 1e-4
        np.testing.assert_allclose(got_array, array, rtol=0, atol=relative * largest)


@pytest.mark.parametrize(("sizes", "activation", "cost", "output"), NETWORKS)
def test_rows_here_are_the_texts_columns(sizes, activation, cost, output):
    network = make_network(sizes, activation, cost, output)
    x, y = samples(network, 5)
    expected = mean_backprop(network, copy_of(network), x, y)
    assert_same(step_gradient(network, x, y, 5, 0, 5), expected, 1e-12)


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (4, 7)], ids=["full", "tail"])
@pytest.mark.parametrize(("sizes", "activation", "cost", "output"), NETWORKS)
def test_a_step_subtracts_the_gradient(sizes, activation, cost, output, start, stop):
    network = make_network(sizes, activation, cost, output)
    x, y = samples(network, 7)
    expected = central_differences(network, x[start:stop], y[start:stop])
    assert_same(step_gradient(network, x, y, 4, start, stop), expected, 1e-6)


def test_each_hidden_layer_may_have_its_own_activation():
    network = make_network([4, 5, 6, 3], ["tanh", "relu"], "log-likelihood", "softmax")
    x, y = samples(network, 7)
    expected = central_differences(network, x, y)
    assert_same(step_gradient(network, x, y, 7, 0, 7), expected, 1e-6)


def test_a_mini_batch_is_the_mean_of_its_samples_one_by_one():
    network = make_network([4, 6, 3])
    x, y = samples(network, 9)
    each = [step_gradient(network.to("numpy"), x, y, 1, i, i + 1) for i in range(9)]
    assert_same(step_gradient(network, x, y, 9, 0, 9), mean(each), 1e-12)


@pytest.mark.parametrize("portion", [1 << 23, 18, 1], ids=["whole", "by threes", "one by one"])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 10], ids=["on-line", "tail", "even", "full-batch"])
def test_an_epoch_is_the_texts_epoch(monkeypatch, batch_size, portion):
    """Stochastic gradient descent as the book has it, on a shuffled order, with a tail.

    However many numbers the buffers may hold: three samples of six units are eighteen.
    """
    monkeypatch.setattr("fastnn.backprop.PORTION", portion)
    network = make_network([4, 6, 3], cost="cross-entropy")
    x, y = samples(network, 10)
    order = np.random.default_rng(13).permutation(10).astype(np.int32)
    eta, parameters = 0.8, copy_of(network)
    for first in range(0, 10, batch_size):
        batch = order[first : first + batch_size]
        nabla = mean_backprop(network, parameters, x[batch], y[batch])
        parameters = [p - eta * slope for p, slope in zip(parameters, nabla, strict=True)]
    start_step(network, x, y, batch_size)(order, 0, 10, eta, 1.0)
    assert_same(copy_of(network), parameters, 1e-12)


@pytest.mark.parametrize("portion", [1 << 23, 8], ids=["whole", "by twos"])
def test_shrink_multiplies_the_weights_once_and_spares_the_biases(monkeypatch, portion):
    monkeypatch.setattr("fastnn.backprop.PORTION", portion)
    plain, shrunk = make_network([4, 3]), make_network([4, 3])
    x, y = samples(plain, 5)
    w = plain.weights[0]
    for network, shrink in ((plain, 1.0), (shrunk, 0.9)):
        start_step(network, x, y, 5)(np.arange(5, dtype=np.int32), 0, 5, 0.5, shrink)
    np.testing.assert_allclose(shrunk.weights[0], plain.weights[0] - 0.1 * w, rtol=1e-13)
    np.testing.assert_array_equal(shrunk.biases[0], plain.biases[0])


def test_no_step_makes_a_buffer():
    class Counting(NumpyBackend):
        made = 0

        def empty(self, shape, dtype):
            self.made += 1
            return super().empty(shape, dtype)

    network = make_network([4, 6, 3]).to(Counting(dtype="float64"))
    x, y = samples(network, 10)
    step = start_step(network, x, y, 4)
    made = network.backend.made
    step(np.arange(10, dtype=np.int32), 0, 10, 0.5, 1.0)
    assert network.backend.made == made > 0
