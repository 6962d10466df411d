import copy
import pickle

import numpy as np
import pytest

import fastnn.inference
from fastnn import ArgumentError, DataError, DeviceError, Network, train
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.testing import StrictBackend


def rng():
    return np.random.default_rng(3)


# What it is
# ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    # 784·16 + 16 + 16·16 + 16 + 16·10 + 10, the network of the videos; the book's; the smallest
    [([784, 16, 16, 10], 13_002), ([784, 30, 10], 23_860), ([1, 1], 2)],
)
def test_parameter_count(sizes, parameters):
    network = Network(sizes)
    assert network.parameter_count == parameters
    assert sum(array.size for array in (*network.weights, *network.biases)) == parameters


def test_shapes_and_names():
    network = Network([7, 5, 4, 3], activation=["tanh", "relu"])
    assert [w.shape for w in network.weights] == [(5, 7), (4, 5), (3, 4)]
    assert [b.shape for b in network.biases] == [(5,), (4,), (3,)]
    assert network.sizes == (7, 5, 4, 3)
    assert network.activations == ("tanh", "relu", "sigmoid")
    assert (network.activation, network.output) == (["tanh", "relu"], "sigmoid")
    assert (network.cost, network.init) == ("cross-entropy", "scaled")
    assert Network([7, 5, 3], activation="tanh").activation == "tanh"
    assert network.weights[0].dtype == np.float32


@pytest.mark.parametrize("sizes", [(4, 3), np.array([4, 3])])
def test_sizes_are_any_whole_numbers(sizes):
    assert Network(sizes).sizes == (4, 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sizes": [784, 16, 16, 10]}, ["784-16-16-10", "13,002 parameters", "float32", "numpy"]),
        (
            {"sizes": [4, 3, 2], "activation": "tanh", "output": "softmax"}
            | {"cost": "log-likelihood", "dtype": "float64"},
            ["tanh", "softmax", "log-likelihood", "float64"],
        ),
        ({"sizes": [4, 3, 3, 2], "activation": ["tanh", "relu"]}, ["tanh, relu and sigmoid"]),
        ({"sizes": [4, 2]}, ["4-2: sigmoid, cross-entropy"]),
    ],
)
def test_repr(options, expected):
    shown = repr(Network(**options, device="numpy"))
    assert all(part in shown for part in expected), shown


def test_a_seed_says_all_whatever_the_precision():
    once, again, other = (Network([6, 5, 4], seed=seed) for seed in (2, 2, 3))
    double = Network([6, 5, 4], seed=2, dtype="float64")
    for i in range(2):
        np.testing.assert_array_equal(once.weights[i], again.weights[i])
        assert not np.array_equal(once.weights[i], other.weights[i])
        np.testing.assert_array_equal(once.biases[i], double.biases[i].astype(np.float32))


def test_the_parameters_lie_in_one_buffer_w_and_b_in_turn():
    network = Network([3, 2, 4])
    pairs = zip(network.weights, network.biases, strict=True)
    expected = np.concatenate([part.ravel() for pair in pairs for part in pair])
    np.testing.assert_array_equal(network.backend.to_numpy(network.buffer), expected)


@pytest.mark.parametrize("device", [NumpyBackend(), StrictBackend()], ids=["numpy", "strict"])
def test_weights_and_biases_are_copies_that_cannot_be_written(device):
    network = Network([3, 2], device=device)
    for array in (network.weights[0], network.biases[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    network.weights.append(None)
    assert len(network.weights) == 1


# From parameters
# -----------------------------------------------------------------------------------


def test_from_parameters_by_hand():
    """a = tanh(2·1 - 1·3 + 1) = 0 and tanh(ln 2) = 0.6; then 10·0 + 5·0.6 + 1 = 4."""
    network = Network.from_parameters(
        [[[2, -1], [np.log(2), 0]], [[10, 5]]],
        [[1, 0], [1]],
        activation="tanh",
        output="identity",
        cost="quadratic",
        dtype="float64",
    )
    np.testing.assert_allclose(network.forward(np.array([[1.0, 3.0]])), [[4]], rtol=1e-14)
    assert network.sizes == (2, 2, 1)
    assert network.init is None


def test_from_parameters_copies():
    w, b = np.ones((2, 3), np.float32), np.ones(2, np.float32)
    network = Network.from_parameters([w], [b])
    w[:], b[:] = 7, 7
    assert (network.weights[0] == 1).all()
    assert (network.biases[0] == 1).all()


def test_the_parameters_of_one_network_make_another_just_like_it():
    one = Network([5, 4, 3], activation="relu", seed=1)
    other = Network.from_parameters(one.weights, one.biases, activation="relu")
    x = rng().random((6, 5))
    np.testing.assert_array_equal(one.forward(x), other.forward(x))


EYE, ZEROS = np.eye(2), np.zeros(2)


@pytest.mark.parametrize(
    ("weights", "biases", "says"),
    [
        ([], [], "at least one"),
        ([ZEROS], [ZEROS], "matrices"),
        ([EYE], [], "do not chain: weights .* biases"),
        ([EYE], [np.zeros(3)], "do not chain"),
        ([EYE], [np.zeros((2, 1))], "do not chain"),
        ([EYE, np.ones((2, 3))], [ZEROS, ZEROS], "do not chain"),
        ([np.empty((0, 2))], [np.empty(0)], "1 or more"),
        ([EYE * np.nan], [ZEROS], "finite"),
        ([EYE], [[0, np.inf]], "finite"),
        ([EYE * 1e300], [ZEROS], "finite|float32"),
        ([EYE * 1j], [ZEROS], "numbers"),
        (["ab"], [ZEROS], "arrays of numbers"),
        ([[[1, 2], [3]]], [ZEROS], "arrays of numbers"),
        (None, None, "arrays of numbers"),
    ],
)
def test_parameters_that_make_no_network(weights, biases, says):
    with pytest.raises(ArgumentError, match=says):
        Network.from_parameters(weights, biases)


# Forward and predict
# -------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
def test_forward_is_the_formula(output):
    cost = "cross-entropy" if output == "sigmoid" else "log-likelihood"
    network = Network([5, 4, 3], output=output, cost=cost, dtype="float64", seed=4)
    x = rng().standard_normal((6, 5))
    (w1, w2), (b1, b2) = network.weights, network.biases
    z = w2 @ (1 / (1 + np.exp(-(w1 @ x.T + b1[:, np.newaxis])))) + b2[:, np.newaxis]
    expected = 1 / (1 + np.exp(-z)) if output == "sigmoid" else np.exp(z) / np.exp(z).sum(axis=0)
    np.testing.assert_allclose(network.forward(x), expected.T, rtol=1e-12)
    np.testing.assert_array_equal(network.predict(x), expected.argmax(axis=0))


def test_bytes_are_scaled_by_255_and_floats_are_taken_as_they_are():
    network = Network([12, 5, 3], dtype="float64")
    pixels = rng().integers(0, 256, (7, 12), dtype=np.uint8)
    expected = network.forward(pixels / 255)
    np.testing.assert_allclose(network.forward(pixels), expected, rtol=1e-13)
    assert not np.allclose(network.forward(pixels.astype(float)), expected)


def test_images_are_rows():
    network = Network([12, 5, 3])
    images = rng().integers(0, 256, (7, 3, 4), dtype=np.uint8)
    np.testing.assert_array_equal(network.forward(images), network.forward(images.reshape(7, 12)))
    assert network.predict(images).shape == (7,)


@pytest.mark.parametrize("change", [np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2]])
def test_the_layout_of_x_does_not_matter(change):
    network, x = Network([12, 5, 3]), rng().random((7, 12)).astype(np.float32)
    np.testing.assert_array_equal(network.forward(change(x)), network.forward(x))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_of_any_width(dtype):
    network, x = Network([4, 3]), np.array([[0.5, 0.25, -1, 2]])
    np.testing.assert_array_equal(network.forward(x.astype(dtype)), network.forward(x))


def test_x_is_not_written_and_may_be_a_list():
    network, x = Network([4, 3]), np.ones((2, 4), np.float32)
    x.flags.writeable = False
    np.testing.assert_array_equal(network.forward(x), network.forward([[1.0] * 4] * 2))


@pytest.mark.parametrize("shape", [(0, 12), (0, 3, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_no_samples_no_outputs(shape, dtype):
    network, x = Network([12, 5, 3]), np.empty(shape, dtype)
    assert network.forward(x).shape == (0, 3)
    assert network.forward(x).dtype == np.float32
    assert network.predict(x).shape == (0,)


@pytest.mark.parametrize("n", [1, 9, 10, 11, 20, 37])
@pytest.mark.parametrize("device", [NumpyBackend, StrictBackend])
def test_a_set_larger_than_a_portion_gives_what_its_rows_give(monkeypatch, device, n):
    monkeypatch.setattr(fastnn.inference, "PORTION", 10 * 12)  # ten samples of the widest layer
    network = Network([8, 12, 3], device=device(dtype="float64"))
    x = rng().integers(0, 256, (n, 8), dtype=np.uint8)
    one_by_one = np.concatenate([network.forward(row[np.newaxis]) for row in x])
    np.testing.assert_allclose(network.forward(x), one_by_one, rtol=1e-12)


def test_a_set_larger_than_the_real_portion():
    network = Network([784, 5, 3], dtype="float64")
    n = 2 * fastnn.inference.PORTION // 784 + 5
    x = rng().integers(0, 256, (n, 784), dtype=np.uint8)
    some = [0, 1336, 1337, 1338, n - 1]  # about the borders
    np.testing.assert_allclose(network.forward(x)[some], network.forward(x[some]), rtol=1e-12)


def test_a_layer_wider_than_a_portion(monkeypatch):
    monkeypatch.setattr(fastnn.inference, "PORTION", 4)
    network, x = Network([3, 9, 2], dtype="float64"), rng().random((5, 3))
    outputs = network.forward(x)
    monkeypatch.undo()
    np.testing.assert_allclose(outputs, network.forward(x), rtol=1e-12)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.ones((2, 5)), r"takes samples of 4 numbers; these have 5, .* shape \(2, 5\)"),
        (np.ones((2, 3, 3), np.uint8), r"takes samples of 4 numbers; these have 9"),
        (np.ones(4), r"a sample a row, .* has shape \(4,\)"),
        (5.0, r"has shape \(\)"),
        (None, r"has shape \(\)"),
        (np.ones((2, 0)), "nothing in it"),
        (np.ones((2, 4), int), r"int64; give .*uint8.*float32"),
        (np.ones((2, 4), bool), "holds bool"),
        (np.ones((2, 4), complex), "holds complex128"),
        ([["a", "b", "c", "d"]], "holds str"),
        ([[None] * 4], "holds object"),
        ([[1.0, 2.0], [3.0]], "cannot be made an array"),
        (np.array([[0.0, np.nan, 0.0, 0.0]]), "NaN or inf in sample 0"),
        (np.array([[0.0] * 4, [0.0, 0.0, 0.0, -np.inf]]), "NaN or inf in sample 1"),
        (np.array([[0.0, 1e300, 0.0, 0.0]]), "too large for float32"),
    ],
)
@pytest.mark.parametrize("method", ["forward", "predict"])
def test_x_that_cannot_be(method, x, says):
    with pytest.raises(DataError, match=says):
        getattr(Network([4, 3], dtype="float32"), method)(x)


@pytest.mark.parametrize(
    ("output", "cost"), [("softmax", "log-likelihood"), ("identity", "quadratic")]
)
@pytest.mark.parametrize("value", [3e38, -3e38])
@pytest.mark.parametrize("method", ["forward", "predict"])
def test_an_overflow_in_the_network_is_a_sentence_and_no_warning(output, cost, value, method):
    network = Network.from_parameters(
        [9 * np.eye(3), [[5, 5, 5], [-5, -5, -5]]],
        [[0, 0, 0], [0, 0]],
        activation="identity",
        output=output,
        cost=cost,
    )
    with pytest.raises(DataError, match="not a finite number"):
        getattr(network, method)(np.array([[1.0, value, 1.0]], np.float32))


# Devices
# -------------------------------------------------------------------------------------------


def test_to_copies_all_there_is_to_a_network():
    one = Network([6, 5, 4], activation="relu", cost="quadratic", init="he", dtype="float64")
    one.trained_on = {"name": "digits", "sha256": "0" * 64}
    other = one.to(StrictBackend(dtype="float64"))
    assert other.backend.name == "strict"
    for name in ("sizes", "activations", "cost", "init", "trained_on"):
        assert getattr(one, name) == getattr(other, name)
    for mine, its in zip((*one.weights, *one.biases), (*other.weights, *other.biases), strict=True):
        np.testing.assert_array_equal(mine, its)
    x = rng().random((3, 6))
    np.testing.assert_allclose(one.forward(x), other.forward(x), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_to_keeps_the_precision_and_shares_nothing(dtype):
    one = Network([4, 3], dtype=dtype)
    other = one.to("numpy")
    assert other.weights[0].dtype == dtype
    one.layers[0].w[:] = 0
    assert other.weights[0].all()


# Bad arguments
# -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        (5, "list of whole numbers"),
        (None, "list of whole numbers"),
        ([], "an input and an output layer at least"),
        ([784], "an input and an output layer at least"),
        ([784, 0, 10], "a layer's size must be a whole number, 1 or more, not 0"),
        ([784, -30, 10], "1 or more, not -30"),
        ([784, 30.0, 10], r"whole number, 1 or more, not 30\.0"),
        ([784, True, 10], "not True"),
        ([784, "30", 10], "not '30'"),
        ([784, None, 10], "not None"),
        ("784", "whole number"),
        ([784, 10**9, 10**9], r"would take [\d,.]+ GB of memory; this machine has"),
        ([10**40, 10**40], "would take"),
    ],
)
def test_sizes_that_cannot_be(sizes, says):
    with pytest.raises(ArgumentError, match=says):
        Network(sizes)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        *(
            ("seed", value, "seed must be a whole number, 0 or more")
            for value in (-1, 1.5, "0", None)
        ),
        ("activation", "sigmiod", r"Did you mean 'sigmoid'\?"),
        ("activation", None, "activation"),
        ("output", "softmxa", r"Did you mean 'softmax'\?"),
        ("output", "softmax", "'cross-entropy' makes no sense with output 'softmax'"),
        ("cost", "quadratik", r"Did you mean 'quadratic'\?"),
        ("cost", "log-likelihood", "makes no sense with output 'sigmoid'"),
        ("init", "glort", r"Did you mean 'glorot'\?"),
        *(
            ("dtype", value, "dtype must be 'float32' or 'float64'")
            for value in ("float16", "int32", "nonsense", int, ">f4", 5)
        ),
        ("device", None, "a device is a name or a Backend"),
    ],
)
def test_options_that_cannot_be(option, value, says):
    with pytest.raises(ArgumentError, match=says):
        Network([4, 3, 2], **{option: value})


@pytest.mark.parametrize("method", ["construct", "from_parameters", "to"])
def test_an_unknown_device(method):
    makers = {
        "construct": lambda: Network([4, 3], device="numpi"),
        "from_parameters": lambda: Network.from_parameters([EYE], [ZEROS], device="numpi"),
        "to": lambda: Network([4, 3]).to("numpi"),
    }
    with pytest.raises(DeviceError, match=r"unknown device 'numpi'\. Did you mean 'numpy'\?"):
        makers[method]()


def test_a_network_at_odds_with_its_backend():
    with pytest.raises(ArgumentError, match="computes in float32, not in float64"):
        Network([4, 3], device=NumpyBackend(), dtype="float64")


# Copies
# ----------------------------------------------------------------------------------------


def pickled(network):
    return pickle.loads(pickle.dumps(network))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_is_whole_and_its_own(copied):
    network = Network([6, 5, 3], activation="tanh", seed=4, dtype="float64")
    network.trained_on = {"name": "digits", "sha256": "00"}
    twin = copied(network)
    assert repr(twin) == repr(network)
    assert (twin.init, twin.trained_on) == (network.init, network.trained_on)
    before = network.backend.to_numpy(network.buffer)
    np.testing.assert_array_equal(twin.backend.to_numpy(twin.buffer), before)

    x = np.random.default_rng(0).random((8, 6))
    train(twin, (x, np.arange(8) % 3), epochs=1, batch_size=4)
    np.testing.assert_array_equal(network.backend.to_numpy(network.buffer), before)
    # The layers of the copy are views of its one buffer, as those of any network are.
    pairs = zip(twin.weights, twin.biases, strict=True)
    flat = np.concatenate([array.ravel() for pair in pairs for array in pair])
    np.testing.assert_array_equal(twin.backend.to_numpy(twin.buffer), flat)
    assert np.any(flat != before)
