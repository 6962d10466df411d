"""Many samples fed forward in one compiled call, against the plain way and against itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnn import Network, device
from fastnn.backends.numba_feed import PORTION, CompiledFeed
from fastnn.inference import Portions, Samples
from fastnn.threads import using


def outputs(make, network, rows):
    scale = 1 / 255 if rows.dtype == np.uint8 else 1.0
    out = np.full(len(rows) * network.sizes[-1], np.nan, network.backend.dtype)
    make(network.backend, network.sizes, rows, scale, len(rows))(network.layers, out)
    return out.reshape(len(rows), -1)


def compiled(backend, sizes, rows, scale, n):
    return CompiledFeed(sizes, rows, scale, backend._code, backend.dtype)


widths = st.integers(1, 70) | st.sampled_from([127, 128, 390])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(widths, min_size=2, max_size=4),
    st.sampled_from(["sigmoid", "tanh", "relu", "leaky-relu", "identity"]),
    st.sampled_from(["sigmoid", "softmax", "identity"]),
    st.sampled_from([1, PORTION - 1, PORTION, 3 * PORTION + 1]),
    st.sampled_from(["uint8", "float"]),
    st.sampled_from(["float32", "float64"]),
    st.floats(0, 1),
    st.integers(1, 5),
)
def test_it_is_the_plain_way(sizes, hidden, output, n, kind, dtype, density, threads):
    cost = {"sigmoid": "cross-entropy", "softmax": "log-likelihood", "identity": "quadratic"}[
        output
    ]
    network = Network(
        sizes, activation=hidden, output=output, cost=cost, device="numba", dtype=dtype
    )
    rng = np.random.default_rng(n)
    rows = rng.integers(0, 256, (n, sizes[0]), dtype=np.uint8)
    rows[rng.random(rows.shape) >= density] = 0
    if kind == "float":
        rows = (rows / 100 - 1).astype(dtype)
    with using(threads):
        got = outputs(compiled, network, rows)
    plain = outputs(Portions, network, rows)
    tolerance = 50 * np.finfo(dtype).eps * max(1, np.abs(plain).max())
    np.testing.assert_allclose(got, plain, rtol=0, atol=tolerance)
    # Not one bit depends on who works at it, and on which others are fed.
    np.testing.assert_array_equal(got, outputs(compiled, network, rows))
    half = rows[n // 2 :].copy()
    np.testing.assert_array_equal(got[n // 2 :], outputs(compiled, network, half))


def test_it_goes_by_the_weights_as_they_are():
    network = Network([20, 8, 4], device="numba")
    rows = np.random.default_rng(0).integers(0, 256, (1000, 20), dtype=np.uint8)
    samples = Samples(network.backend, network.sizes, rows)
    before = samples.outputs(network.layers)
    network.layers[0].w[:] *= 2
    after = samples.outputs(network.layers)
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_array_equal(after, outputs(compiled, network, rows))
    np.testing.assert_allclose(after, outputs(Portions, network, rows), atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "n", "worth"),
    [
        ([20, 4], 999, False),
        ([20, 4], 1000, True),
        ([20, 4096, 4000], 1000, True),
        ([20, 4096, 4096], 1000, False),
    ],
)
def test_few_samples_and_very_many_weights_are_left_to_the_plain_way(sizes, n, worth):
    rows = np.zeros((n, 20), np.uint8)
    assert (device("numba").fused_feed(sizes, rows, 1.0, n) is not None) == worth
