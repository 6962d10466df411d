"""Bytes stay bytes: nothing holds the samples, or even a copy of them, as floats."""

import tracemalloc

import numpy as np
import pytest

from fastnn import Network, evaluate, train

N, FEATURES = 60_000, 784


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, FEATURES), dtype=np.uint8), rng.integers(0, 10, N)


@pytest.mark.parametrize(
    "work",
    [
        lambda network, data: train(network, data, epochs=1, batch_size=100),
        lambda network, data: train(network, data, test=data, epochs=1, batch_size=1000),
        lambda network, data: train(network, data, epochs=1, batch_size=None),
        lambda network, data: evaluate(network, data),
        lambda network, data: network.predict(data[0]),
    ],
    ids=["train", "train and test", "gradient descent", "evaluate", "predict"],
)
def test_no_copy_of_the_samples_is_made(pixels, work):
    """On NumPy, whose device memory is the host's: 47 MB of bytes are 188 MB as float32."""
    network = Network([FEATURES, 10, 10], device="numpy")
    tracemalloc.start()
    try:
        work(network, pixels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * pixels[0].nbytes / 2
