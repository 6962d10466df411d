import numpy as np
import pytest

from fastnn.errors import ArgumentError
from fastnn.initialisers import INITIALISERS, initial_parameters

# The variance of the weights from n_in to n_out units, and of the biases, by the sources.
VARIANCES = {
    "scaled": (lambda n_in, n_out: 1 / n_in, 1),
    "normal": (lambda n_in, n_out: 1, 1),
    "glorot": (lambda n_in, n_out: 2 / (n_in + n_out), 0),
    "he": (lambda n_in, n_out: 2 / n_in, 0),
}


def test_the_names():
    assert set(INITIALISERS) == set(VARIANCES)


@pytest.mark.parametrize("init", VARIANCES)
def test_moments(init):
    """Of so many numbers that the estimates below are off by less than 1 % of a variance."""
    variance, bias_variance = VARIANCES[init]
    sizes = [300, 400, 20_000, 10]
    weights, biases = initial_parameters(sizes, init, 5)
    for w, n_in, n_out in zip(weights, sizes, sizes[1:], strict=False):
        expected = variance(n_in, n_out)
        assert w.shape == (n_out, n_in)
        assert abs(w.mean()) < 5 * (expected / w.size) ** 0.5
        assert w.var() == pytest.approx(expected, rel=0.03)
        # Normal, and no uniform of the same variance, whose fourth moment is 1.8.
        assert (w**4).mean() / w.var() ** 2 == pytest.approx(3, rel=0.05)
    b = biases[1]
    assert b.shape == (20_000,)
    assert b.var() == pytest.approx(bias_variance, rel=0.05)
    assert abs(b.mean()) < 0.04


@pytest.mark.parametrize("init", ["glorot", "he"])
def test_biases_that_start_at_zero_are_zero(init):
    _, biases = initial_parameters([5, 4, 3], init, 0)
    assert not np.concatenate(biases).any()


@pytest.mark.parametrize("init", VARIANCES)
def test_a_seed_says_all(init):
    def draw(seed):
        weights, biases = initial_parameters([7, 6, 5], init, seed)
        return np.concatenate([array.ravel() for array in (*weights, *biases)])

    np.testing.assert_array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))
    assert not np.array_equal(draw(2**70), draw(2**70 + 1))


def test_the_stream_is_the_documented_one():
    """PCG64; W then b, from the first layer to the last: another program can draw the same."""
    weights, biases = initial_parameters([3, 2, 4], "normal", 9)
    flat = np.concatenate([weights[0].ravel(), biases[0], weights[1].ravel(), biases[1]])
    rng = np.random.Generator(np.random.PCG64(9))
    np.testing.assert_array_equal(flat, rng.standard_normal(3 * 2 + 2 + 2 * 4 + 4))


def test_no_two_layers_have_the_same_numbers():
    weights, _ = initial_parameters([6, 6, 6], "normal", 0)
    assert not np.array_equal(*weights)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("scalde", r"unknown initialiser 'scalde'\. Did you mean 'scaled'\?"),
        ("zeros", r"known: glorot, he, normal, scaled"),
        (None, "unknown initialiser"),
        (["he"], "unknown initialiser"),
    ],
)
def test_unknown_names(name, says):
    with pytest.raises(ArgumentError, match=says):
        initial_parameters([2, 2], name, 0)
