import pytest

from fastnn.activations import HIDDEN, OUTPUT, layer_activations
from fastnn.errors import ArgumentError


def test_the_names():
    assert set(HIDDEN) == {"sigmoid", "tanh", "relu", "leaky-relu", "identity"}
    assert set(OUTPUT) == {*HIDDEN, "softmax"}


@pytest.mark.parametrize(
    ("activation", "n_hidden", "expected"),
    [
        ("tanh", 0, ("softmax",)),
        ("tanh", 1, ("tanh", "softmax")),
        ("tanh", 3, ("tanh", "tanh", "tanh", "softmax")),
        (["relu", "tanh"], 2, ("relu", "tanh", "softmax")),
        (("relu",), 1, ("relu", "softmax")),
        ([], 0, ("softmax",)),
    ],
)
def test_one_name_a_layer_the_output_last(activation, n_hidden, expected):
    assert layer_activations(activation, "softmax", n_hidden) == expected


@pytest.mark.parametrize(
    ("activation", "output", "n_hidden", "says"),
    [
        ("sigmiod", "sigmoid", 1, r"unknown activation 'sigmiod'\. Did you mean 'sigmoid'\?"),
        ("sigmiod", "sigmoid", 0, r"unknown activation 'sigmiod'"),
        (["tanh", "leaky_relu"], "sigmoid", 2, r"Did you mean 'leaky-relu'\?"),
        ("swish", "sigmoid", 1, r"unknown activation 'swish'\.  known: identity, leaky-relu, relu"),
        ("tanh", "sofmax", 1, r"unknown output activation 'sofmax'\. Did you mean 'softmax'\?"),
        ("tanh", None, 1, "unknown output activation"),
        ([None], "sigmoid", 1, "unknown activation"),
        (None, "sigmoid", 1, "activation"),
        (3, "sigmoid", 1, "activation"),
        ("softmax", "softmax", 1, "softmax is for the output layer"),
        (["tanh", "softmax"], "softmax", 2, "softmax is for the output layer"),
        (["tanh"], "sigmoid", 2, r"\b1\b.*\b2\b.*one name for all, or one each"),
        (["tanh", "tanh"], "sigmoid", 1, r"\b2\b.*\b1\b"),
        ([], "sigmoid", 1, r"\b0\b.*\b1\b"),
    ],
)
def test_refusals(activation, output, n_hidden, says):
    with pytest.raises(ArgumentError, match=says):
        layer_activations(activation, output, n_hidden)
