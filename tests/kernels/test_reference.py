"""The specification against the texts: numbers worked by hand, columns, and derivatives."""

import itertools

import numpy as np
import pytest

from fastnn.costs import mean_cost
from fastnn.kernels import reference
from fastnn.kernels.reference import SIGMA, SIGMA_PRIME


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# σ and σ′
# ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "z", "a"),
    [
        # σ(ln k) = 1/(1 + 1/k) = k/(k + 1);  tanh(ln k) = (k² - 1)/(k² + 1)
        ("sigmoid", [-np.log(3), 0, np.log(3), np.log(9)], [0.25, 0.5, 0.75, 0.9]),
        ("tanh", [-np.log(2), 0, np.log(2), np.log(3)], [-0.6, 0, 0.6, 0.8]),
        ("relu", [-2, -0.5, 0, 0.5, 2], [0, 0, 0, 0.5, 2]),
        ("leaky-relu", [-2, -0.5, 0, 0.5, 2], [-0.02, -0.005, 0, 0.5, 2]),
        ("identity", [-2, 0, 3], [-2, 0, 3]),
        # e^z in the proportion 1 : 2 : 5
        ("softmax", [0, np.log(2), np.log(5)], [1 / 8, 2 / 8, 5 / 8]),
        ("softmax", [4, 4, 4, 4], [1 / 4] * 4),
    ],
)
def test_sigma_of_numbers_that_are_known(activation, z, a):
    np.testing.assert_allclose(SIGMA[activation](np.array([z], float)), [a], rtol=1e-15)


def test_the_sigmoid_is_the_one_of_the_texts():
    z = np.linspace(-30, 30, 1201)
    np.testing.assert_allclose(SIGMA["sigmoid"](z), 1 / (1 + np.exp(-z)), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("activation", SIGMA_PRIME)
def test_sigma_prime_is_the_derivative_of_sigma(activation):
    z, h = np.linspace(-4, 4, 400), 1e-5  # an even number of points keeps clear of the kink at 0
    slope = (SIGMA[activation](z + h) - SIGMA[activation](z - h)) / (2 * h)
    a = SIGMA[activation](z)
    np.testing.assert_allclose(SIGMA_PRIME[activation](a), slope, rtol=1e-7, atol=1e-9)


def test_every_activation_but_softmax_has_a_sigma_prime():
    assert set(SIGMA) - set(SIGMA_PRIME) == {"softmax"}


def test_softmax_is_a_distribution_and_ignores_a_common_shift(rng):
    z = rng.normal(0, 5, (6, 10))
    a = reference.softmax(z)
    np.testing.assert_allclose(a.sum(axis=1), 1, rtol=1e-14)
    assert (a > 0).all()
    np.testing.assert_allclose(reference.softmax(z + 300), a, rtol=1e-11)
    np.testing.assert_allclose(a, np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), rtol=1e-13)


def test_softmax_of_a_row_does_not_depend_on_other_rows():
    z = np.array([[1e4, 1e4], [-1e4, -1e4], [0, np.log(3)]])
    np.testing.assert_allclose(reference.softmax(z), [[0.5, 0.5], [0.5, 0.5], [0.25, 0.75]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", SIGMA)
def test_sigma_keeps_the_precision_and_cannot_overflow(activation, dtype):
    z = np.array([[-1e4, -1, 0, 1, 1e4]], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        a = SIGMA[activation](z)
    assert a.dtype == dtype
    assert np.isfinite(a).all()
    if activation in SIGMA_PRIME:
        assert SIGMA_PRIME[activation](a).dtype == dtype


# The costs
# ----------------------------------------------------------------------------------------

OUTPUTS = ("sigmoid", "tanh", "relu", "leaky-relu", "identity")
PAIRS = [
    *itertools.product(("quadratic", "squared-error"), OUTPUTS),
    ("cross-entropy", "sigmoid"),
    ("log-likelihood", "softmax"),
]


@pytest.mark.parametrize(("cost", "output"), PAIRS)
def test_output_delta_is_the_derivative_of_each_samples_cost_by_z(cost, output, rng):
    m, n, h = 4, 3, 1e-5
    z = rng.standard_normal((m, n))
    y = np.eye(n)[rng.integers(0, n, m)]
    slope = np.empty((m, n))
    for i, j in np.ndindex(m, n):
        nudge = np.zeros((m, n))
        nudge[i, j] = h
        above, below = (mean_cost(cost, SIGMA[output](z + s * nudge), y) for s in (1, -1))
        slope[i, j] = m * (above - below) / (2 * h)  # mean_cost divides by m, δ does not
    delta = reference.output_delta(SIGMA[output](z), y, output, cost)
    np.testing.assert_allclose(delta, slope, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("cost", "output", "delta"),
    [
        ("quadratic", "sigmoid", [(0.75 - 1) * 0.75 * 0.25, 0.5 * 0.5 * 0.5]),
        ("squared-error", "sigmoid", [2 * (0.75 - 1) * 0.75 * 0.25, 2 * 0.5 * 0.5 * 0.5]),
        ("quadratic", "identity", [-0.25, 0.5]),
        ("quadratic", "tanh", [-0.25 * (1 - 0.75**2), 0.5 * (1 - 0.5**2)]),
        ("cross-entropy", "sigmoid", [-0.25, 0.5]),
        ("log-likelihood", "softmax", [-0.25, 0.5]),
    ],
)
def test_output_delta_by_hand(cost, output, delta):
    a, y = np.array([[0.75, 0.5]]), np.array([[1, 0]])
    np.testing.assert_allclose(reference.output_delta(a, y, output, cost), [delta], rtol=1e-15)


# Rows here, columns in the texts
# -----------------------------------------------------------------------------------------


def columns(array):
    """The text's column vectors: sample i is the (n, 1) array number i."""
    return [row[:, np.newaxis] for row in array]


def rows(vectors):
    return np.hstack(vectors).T


@pytest.fixture
def layer(rng):
    """Five samples in a layer of 4 to 3 units: a_prev, w, b, delta of it."""
    return (
        rng.standard_normal((5, 4)),
        rng.standard_normal((3, 4)),
        rng.standard_normal(3),
        rng.standard_normal((5, 3)),
    )


def test_a_matrix_of_rows_has_the_bytes_of_the_texts_matrix_of_columns(layer):
    a = layer[0]
    text = np.asfortranarray(np.hstack(columns(a)))
    assert np.shares_memory(a, a.T)
    assert a.tobytes() == text.tobytes("A")
    np.testing.assert_array_equal(a.T, text)


@pytest.mark.parametrize("activation", SIGMA)
def test_forward(layer, activation):
    a_prev, w, b, _ = layer
    z = [w @ x + b[:, np.newaxis] for x in columns(a_prev)]
    expected = rows([SIGMA[activation](v.T).T for v in z])
    np.testing.assert_allclose(reference.forward(a_prev, w, b, activation), expected, rtol=1e-13)


def test_activate_adds_the_bias_to_every_row(rng):
    z, b = rng.standard_normal((5, 3)), rng.standard_normal(3)
    expected = rows([v + b[:, np.newaxis] for v in columns(z)])
    np.testing.assert_array_equal(reference.activate(z, b, "identity"), expected)


def test_propagate_delta_is_bp2(layer):
    a, w, _, delta = layer
    a = SIGMA["sigmoid"](a)
    pairs = zip(columns(delta), columns(a), strict=True)
    expected = rows([(w.T @ d) * (s * (1 - s)) for d, s in pairs])
    got = reference.propagate_delta(delta, w, a, "sigmoid")
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_gradient_is_bp3_and_bp4_averaged(layer):
    a_prev, _, _, delta = layer
    each = [d @ x.T for d, x in zip(columns(delta), columns(a_prev), strict=True)]
    out_w, out_b = reference.gradient(delta, a_prev, 1 / 5)
    np.testing.assert_allclose(out_w, sum(each) / 5, rtol=1e-12)
    np.testing.assert_allclose(out_b, sum(columns(delta))[:, 0] / 5, rtol=1e-12)


def test_descend_goes_down_the_gradient_and_shrinks_the_weights_alone(layer):
    a_prev, w, b, delta = layer
    out_w, out_b = reference.gradient(delta, a_prev, 1 / 5)
    new_w, new_b = reference.descend(w, b, delta, a_prev, 0.3 / 5, 0.9)
    np.testing.assert_allclose(new_w, 0.9 * w - 0.3 * out_w, rtol=1e-12)
    np.testing.assert_allclose(new_b, b - 0.3 * out_b, rtol=1e-12)


def test_gather_by_hand():
    pixels = np.array([[0, 51], [255, 102], [204, 153]], np.uint8)
    order = np.array([2, 2, 0, 1], np.int32)
    got = reference.gather(pixels, order, 1, 4, 1 / 255)
    np.testing.assert_allclose(got, [[0.8, 0.6], [0, 0.2], [1, 0.4]], rtol=1e-15)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_matmul_is_a_sum_over_k(rng, transpose_a, transpose_b):
    a, b, before = rng.random((2, 4)), rng.random((4, 3)), rng.random((2, 3))
    product = [[sum(a[i, k] * b[k, j] for k in range(4)) for j in range(3)] for i in range(2)]
    got = reference.matmul(
        a.T if transpose_a else a,
        b.T if transpose_b else b,
        before,
        transpose_a=transpose_a,
        transpose_b=transpose_b,
        alpha=-2,
        beta=0.5,
    )
    np.testing.assert_allclose(got, -2 * np.array(product) + 0.5 * before, rtol=1e-12)


def test_beta_zero_overwrites_nan():
    nan = np.full((1, 1), np.nan)
    two, three = np.full((1, 1), 2.0), np.full((1, 1), 3.0)
    assert reference.matmul(two, three, nan) == 6
    assert reference.sum_rows(np.array([[2.0], [5.0]]), nan[0], alpha=2) == 14
    assert reference.sum_rows(np.array([[2.0], [5.0]]), np.array([3.0]), beta=10) == 37
