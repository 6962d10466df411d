"""What the book promises of its networks, on the real MNIST in the folder FASTNN_MNIST names."""

import os

import pytest

import fastnn

pytestmark = pytest.mark.skipif("FASTNN_MNIST" not in os.environ, reason="FASTNN_MNIST is not set")


@pytest.fixture(scope="module")
def mnist():
    return fastnn.load_dataset(os.environ["FASTNN_MNIST"])


@pytest.mark.parametrize(
    ("sizes", "network", "learning_rate", "accuracy"),
    [
        # Chapter 1: 95.42 % at the best of 30 epochs.
        ([784, 30, 10], {"cost": "quadratic", "init": "normal"}, 3.0, 0.945),
        # Chapter 3.
        ([784, 100, 10], {"cost": "cross-entropy", "init": "scaled"}, 0.5, 0.97),
    ],
)
def test_the_books_networks_learn(mnist, sizes, network, learning_rate, accuracy):
    trained = fastnn.Network(sizes, **network)
    history = fastnn.train(
        trained,
        mnist.train,
        test=mnist.test,
        learning_rate=learning_rate,
        on_epoch=lambda epoch: epoch.test_accuracy >= accuracy,
    )
    assert history.epochs[-1].test_accuracy >= accuracy
    assert len(history.epochs) <= 30
