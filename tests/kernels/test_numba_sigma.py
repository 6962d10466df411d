"""The compiled σ and σ′ against longer numbers than they are computed in."""

from functools import cache

import numpy as np
import pytest
from numba import njit

from fastnn.backends.numba_code import modules
from fastnn.kernels.reference import SIGMA, SIGMA_PRIME

sigma = modules()[0].sigma

DTYPES = [np.float32, np.float64]
# As far as e^x is a normal number, and half a power of two further, where it is said to saturate.
LOWEST, HIGHEST = {np.float32: -87, np.float64: -708}, {np.float32: 88, np.float64: 709}

# An x86's longdouble has 64 bits behind the point, which judge even a float64.
long_enough = pytest.mark.parametrize(
    "dtype",
    [
        np.float32,
        pytest.param(
            np.float64,
            marks=pytest.mark.skipif(
                np.finfo(np.longdouble).nmant < 60, reason="no number here is longer than a float64"
            ),
        ),
    ],
)


def compiled(function, *constants):
    """Return a function of an array: the compiled one for each number, in a loop as in training."""

    @njit
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i], *constants)

    def apply(x):
        x = np.ascontiguousarray(x)
        out = np.full_like(x, 123)
        loop(x, out)
        return out

    return apply


exp, tanh, sigmoid = compiled(sigma.exp), compiled(sigma.tanh), compiled(sigma.sigmoid)
SIGMAS = {name: compiled(sigma.sigma, sigma.CODES[name]) for name in SIGMA_PRIME}
SIGMA_PRIMES = {name: compiled(sigma.sigma_prime, sigma.CODES[name]) for name in SIGMA_PRIME}


@cache
def arguments(dtype, lowest, highest):
    """Numbers from all of a range: evenly, of every size, and where e^x goes over to another 2^n.

    The last are the ends of r, where the series is at its worst.
    """
    rng = np.random.default_rng(7)
    finfo = np.finfo(dtype)
    smallest = int(np.log2(float(finfo.smallest_subnormal)))
    sizes = np.ldexp(1 + rng.random(200_000), rng.integers(smallest, 11, 200_000))
    ends = (np.arange(2 * lowest, 2 * highest + 1) + 0.5) * np.log(2)
    ends = (ends[:, np.newaxis] * (1 + np.arange(-4, 5) * float(finfo.eps))).ravel()
    x = np.concatenate(
        [
            np.linspace(lowest, highest, 400_000),
            np.linspace(-2, 2, 200_000),
            sizes,
            -sizes,
            ends,
            [lowest, highest, 0.0, -0.0],
        ]
    ).astype(dtype)
    return x[(x >= lowest) & (x <= highest)]


def ulps(got, true):
    """How far a result is off, in units of the last place of what would be right."""
    assert got.dtype != np.longdouble
    off = np.abs(got - true) / np.spacing(np.abs(true.astype(got.dtype)))
    return float(off.max())


@long_enough
def test_exp_is_within_two_ulp(dtype):
    x = arguments(dtype, LOWEST[dtype], HIGHEST[dtype])
    assert ulps(exp(x), np.exp(x.astype(np.longdouble))) <= 2


@long_enough
def test_tanh_is_within_two_ulp(dtype):
    x = arguments(dtype, -HIGHEST[dtype], HIGHEST[dtype])
    assert ulps(tanh(x), np.tanh(x.astype(np.longdouble))) <= 2


@long_enough
def test_sigmoid_is_within_three_ulp(dtype):
    x = arguments(dtype, LOWEST[dtype], HIGHEST[dtype])
    assert ulps(sigmoid(x), 1 / (1 + np.exp(-x.astype(np.longdouble)))) <= 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_is_odd(dtype):
    x = arguments(dtype, -HIGHEST[dtype], HIGHEST[dtype])
    np.testing.assert_array_equal(tanh(-x), -tanh(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_none_of_them_leaves_its_bounds(dtype):
    x = arguments(dtype, -HIGHEST[dtype], HIGHEST[dtype])
    assert np.abs(tanh(x)).max() == 1
    assert sigmoid(x).min() > 0
    assert sigmoid(x).max() == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("function", "below", "above"), [(exp, 0, None), (tanh, -1, 1), (sigmoid, 0, 1)]
)
def test_far_out_they_have_their_limits(dtype, function, below, above):
    """None is greater than the smallest normal number away; e^x is as large as can be."""
    finfo = np.finfo(dtype)
    far = np.array([1e4, np.finfo(dtype).max, np.inf], dtype)
    np.testing.assert_allclose(function(-far), below, rtol=0, atol=2 * finfo.smallest_normal)
    if above is None:
        assert np.isfinite(function(far)).all()
        assert (function(far) > finfo.max / 4).all()
    else:
        np.testing.assert_array_equal(function(far), above)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [exp, tanh, sigmoid, *SIGMAS.values()])
def test_nan_comes_through(dtype, function):
    """In any lane of a vector, and without an effect on the others."""
    x = np.linspace(-2, 2, 67, dtype=dtype)
    x[::5] = np.nan
    np.testing.assert_array_equal(np.isnan(function(x)), np.isnan(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SIGMAS)
def test_sigma_is_the_references(dtype, name):
    x = np.append(arguments(dtype, LOWEST[dtype], HIGHEST[dtype]), [-np.inf, np.inf]).astype(dtype)
    got, expected = SIGMAS[name](x), SIGMA[name](x)
    if name in ("relu", "leaky-relu", "identity"):
        np.testing.assert_array_equal(got, expected.astype(dtype))
    else:
        # ½ tanh(½ z) + ½ is exact but where it is near 0.
        np.testing.assert_allclose(got, expected, rtol=0, atol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SIGMA_PRIMES)
def test_sigma_prime_is_the_references(dtype, name):
    a = SIGMA[name](arguments(dtype, LOWEST[dtype], HIGHEST[dtype]).astype(dtype))
    got, expected = SIGMA_PRIMES[name](a), SIGMA_PRIME[name](a.astype(np.float64))
    if name in ("relu", "leaky-relu", "identity"):
        np.testing.assert_array_equal(got, expected.astype(dtype))
    else:
        np.testing.assert_allclose(got, expected, rtol=0, atol=np.finfo(dtype).eps)
