"""The gradient checker: right where back-propagation is right, loud where it is not."""

import numpy as np
import pytest

from fastnn import Network
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.testing import gradient_error
from fastnn.testing.gradient_check import backprop_gradient, numerical_gradient


class WrongSign(NumpyBackend):
    def output_delta(self, a, y, activation, cost, out):
        super().output_delta(a, y, activation, cost, out)
        np.negative(out, out=out)


class NoSigmaPrime(NumpyBackend):
    def propagate_delta(self, delta, w, a, activation, out):
        self.matmul(delta, w, out)


class SumForMean(NumpyBackend):
    def gradient(self, delta, a_prev, scale, out_w, out_b):
        super().gradient(delta, a_prev, 1.0, out_w, out_b)


class NoBiases(NumpyBackend):
    def gradient(self, delta, a_prev, scale, out_w, out_b):
        super().gradient(delta, a_prev, scale, out_w, out_b)
        out_b[...] = 0


class OneWeightOff(NumpyBackend):
    """By a hundredth."""

    def gradient(self, delta, a_prev, scale, out_w, out_b):
        super().gradient(delta, a_prev, scale, out_w, out_b)
        out_w[-1, -1] += 0.01 * np.abs(out_w).max()


def check(device, dtype="float64", **options):
    rng = np.random.default_rng(1)
    network = Network([4, 5, 6, 3], device=device(dtype=dtype), **options)
    before = network.backend.to_numpy(network.buffer)
    x, y = rng.standard_normal((7, 4)), np.eye(3)[rng.integers(0, 3, 7)]
    error = gradient_error(network, x, y)
    np.testing.assert_array_equal(network.backend.to_numpy(network.buffer), before)
    return error


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_what_is_right_is_below_a_millionth(activation):
    assert check(NumpyBackend, activation=activation) < 1e-6
    assert check(NumpyBackend, "float32", activation=activation) < 1e-3


@pytest.mark.parametrize("device", [WrongSign, NoSigmaPrime, SumForMean, NoBiases, OneWeightOff])
def test_what_is_wrong_is_a_hundredth_at_least(device):
    assert check(device) > 0.99e-2


def test_both_gradients_by_hand():
    """a = wx + b = 7 for y = 10: C = 1/2 (y - a)², ∂C/∂w = (a - y) x = -6, ∂C/∂b = a - y = -3."""
    network = Network.from_parameters(
        [[[3]]], [[1]], output="identity", cost="quadratic", dtype="float64"
    )
    for gradient in (backprop_gradient, numerical_gradient):
        w, b = gradient(network, np.array([[2.0]]), np.array([[10.0]]))
        np.testing.assert_allclose(w, [[-6]], rtol=1e-9)
        np.testing.assert_allclose(b, [-3], rtol=1e-9)
