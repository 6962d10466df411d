"""``fastnn train``: what it prints where, its JSON, and the effect of every flag."""

import dataclasses
import json
import os
import re
import socket
import statistics
import string
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import fastnn

HINT = "fastnn train --data mnist"


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.mark.usefixtures("offline")
def test_without_arguments_it_learns_the_digits_off_line(run, tmp_path):
    result = run("train")
    assert result.code == 0
    accuracy, rate, saved = result.out.splitlines()
    assert float(re.match(r"test accuracy (\S+) % after epoch 30", accuracy)[1]) >= 96
    assert re.fullmatch(r"[\d,]+ samples/s \(median\), \S+ step on \S+", rate)
    assert saved == "model saved in fastnn-digits.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == ["fastnn-digits.safetensors"]
    assert HINT in result.err.splitlines()[-1]
    assert not set(result.err) & {"\x1b", "\r"}
    lines = [line for line in result.err.splitlines() if line.startswith("epoch")]
    assert [int(re.match(r"epoch +(\d+)/30 ", line)[1]) for line in lines] == [*range(1, 31)]
    for said in ("1,437", "360", "64-30-10", "2,260 parameters"):
        assert said in result.err


def test_the_defaults_are_those_of_the_text(run):
    result = run("train", "--json", "-q")
    assert (result.code, result.err) == (0, "")
    report = result.json
    assert report["data"] | {"sha256": None} == {
        "name": "digits",
        "train": 1437,
        "test": 360,
        "features": 64,
        "classes": 10,
        "sha256": None,
    }
    assert report["network"] == {
        "sizes": [64, 30, 10],
        "parameters": 2260,
        "activation": "sigmoid",
        "output": "sigmoid",
        "cost": "cross-entropy",
        "init": "scaled",
    }
    assert report["settings"] == {
        "epochs": 30,
        "batch_size": 10,
        "learning_rate": 0.5,
        "optimiser": {"name": "sgd", "momentum": 0.0, "nesterov": False},
        "l1": 0.0,
        "l2": 0.0,
        "clip_norm": None,
        "dropout": 0.0,
        "class_weights": None,
        "schedule": {"name": "constant", "warm_up": 0},
        "patience": None,
        "seed": 0,
        "shuffle": True,
        "fused": True,
        "threads": None,
        "validation": 0,
    }
    assert report["epochs"][-1]["test_accuracy"] >= 0.96


def test_its_json_has_exactly_this_shape(run, data):
    report = run("train", "--data", data, "--epochs", 2, "--json").json
    assert list(report) == [
        "schema",
        "command",
        "device",
        "step",
        "data",
        "network",
        "settings",
        "epochs",
        "best_epoch",
        "samples_per_second",
        "model",
        "versions",
    ]
    assert (report["schema"], report["command"]) == (1, "train")
    assert list(report["device"]) == ["name", "precision", "detail"]
    assert list(report["data"]) == ["name", "train", "test", "features", "classes", "sha256"]
    assert list(report["network"]) == [
        "sizes",
        "parameters",
        "activation",
        "output",
        "cost",
        "init",
    ]
    for epoch in report["epochs"]:
        assert list(epoch) == [
            "epoch",
            "learning_rate",
            "seconds",
            "samples_per_second",
            "train_cost",
            "validation_cost",
            "validation_accuracy",
            "test_cost",
            "test_accuracy",
        ]
    assert report["model"] == "fastnn-small.safetensors"
    assert report["versions"]["fastnn"] == fastnn.__version__
    assert report["versions"]["numpy"] == np.__version__


def test_its_json_tells_the_truth(run, tmp_path):
    """Against the forward pass in NumPy, on a network of MNIST's shape with 13,002 parameters."""
    train, test = fastnn.synthetic(100, 40, 784, 10)
    arrays = {"x_train": train.x, "y_train": train.labels, "x_test": test.x, "y_test": test.labels}
    np.savez(tmp_path / "images.npz", **arrays)
    result = run("train", "--data", "images.npz", "--hidden", "16,16", "--epochs", 3, "--json")
    report = result.json
    assert report["network"]["sizes"] == [784, 16, 16, 10]
    assert report["network"]["parameters"] == 13_002
    assert "13,002 parameters" in result.err
    tensors = load_file(tmp_path / report["model"])
    assert sum(tensor.size for tensor in tensors.values()) == 13_002

    def measure(x, labels):
        a = x / 255
        for layer in range(3):
            a = sigmoid(a @ tensors[f"layers.{layer}.weight"].T + tensors[f"layers.{layer}.bias"])
        y = np.eye(10)[labels]
        cost = -(y * np.log(a) + (1 - y) * np.log(1 - a)).sum() / len(x)
        return cost, np.mean(a.argmax(axis=1) == labels)

    last = report["epochs"][-1]
    cost, accuracy = measure(test.x, test.labels)
    assert last["test_cost"] == pytest.approx(cost, rel=1e-4)
    assert last["test_accuracy"] == pytest.approx(accuracy)
    assert last["train_cost"] == pytest.approx(measure(train.x, train.labels)[0], rel=1e-4)
    assert [epoch["epoch"] for epoch in report["epochs"]] == [1, 2, 3]
    rates = [epoch["samples_per_second"] for epoch in report["epochs"]]
    assert report["samples_per_second"] == statistics.median(rates)
    assert rates == pytest.approx([100 / epoch["seconds"] for epoch in report["epochs"]])


def test_the_hash_is_of_the_contents(run, tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    changed = arrays["x_train"].copy()
    changed[5, 5] ^= 1
    np.savez(tmp_path / "c.npz", **{**arrays, "x_train": changed})
    a, again, b, c = (
        run("train", "--data", f"{name}.npz", "--epochs", 1, "--json").json["data"]["sha256"]
        for name in "aabc"
    )
    assert a == again == b != c
    assert len(a) == 64
    assert set(a) <= set(string.hexdigits)


# A flag, and what it stands for in the library: of the network, and of the training.
FLAGS = {
    "--hidden 5": ({"hidden": [5]}, {}),
    "--hidden 4,3": ({"hidden": [4, 3]}, {}),
    "--hidden none": ({"hidden": []}, {}),
    "--activation tanh": ({"activation": "tanh"}, {}),
    "--activation relu": ({"activation": "relu"}, {}),
    "--activation leaky-relu": ({"activation": "leaky-relu"}, {}),
    "--activation identity": ({"activation": "identity"}, {}),
    "--hidden 4,3 --activation tanh,relu": (
        {"hidden": [4, 3], "activation": ["tanh", "relu"]},
        {},
    ),
    "--output softmax --cost log-likelihood": (
        {"output": "softmax", "cost": "log-likelihood"},
        {},
    ),
    "--output tanh --cost quadratic": ({"output": "tanh", "cost": "quadratic"}, {}),
    "--output identity --cost quadratic": ({"output": "identity", "cost": "quadratic"}, {}),
    "--cost quadratic": ({"cost": "quadratic"}, {}),
    "--cost squared-error": ({"cost": "squared-error"}, {}),
    "--init normal": ({"init": "normal"}, {}),
    "--init glorot": ({"init": "glorot"}, {}),
    "--init he": ({"init": "he"}, {}),
    "--epochs 3": ({}, {"epochs": 3}),
    "--batch-size 1": ({}, {"batch_size": 1}),
    "--batch-size 7": ({}, {"batch_size": 7}),
    "--batch-size full": ({}, {"batch_size": None}),
    "--learning-rate 0.1": ({}, {"learning_rate": 0.1}),
    "--eta 0.1": ({}, {"learning_rate": 0.1}),
    "--seed 7": ({"seed": 7}, {"seed": 7}),
    "--no-shuffle": ({}, {"shuffle": False}),
    "--optimiser adam": ({}, {"optimiser": fastnn.Adam(), "learning_rate": 0.001}),
    "--optimiser adamw --eta 0.01 --l2 20": (
        {},
        {"optimiser": fastnn.AdamW(), "learning_rate": 0.01, "l2": 20.0},
    ),
    "--momentum 0.9": ({}, {"optimiser": fastnn.SGD(0.9)}),
    "--momentum 0.5 --nesterov": ({}, {"optimiser": fastnn.SGD(0.5, nesterov=True)}),
    "--l1 0.1": ({}, {"l1": 0.1}),
    "--l2 5": ({}, {"l2": 5.0}),
    "--clip-norm 0.1": ({}, {"clip_norm": 0.1}),
    "--dropout 0.5": ({}, {"dropout": [0.0, 0.5]}),
    "--dropout 0.2 --hidden none": ({"hidden": []}, {"dropout": [0.2]}),
    "--dropout 0.2,0.5,0.1 --hidden 7,5": ({"hidden": [7, 5]}, {"dropout": [0.2, 0.5, 0.1]}),
    # Of all samples each class has as many, of those that are left not.
    "--validation 13 --class-weights balanced": (
        {},
        {"validation": 13, "class_weights": "balanced"},
    ),
    "--class-weights 1,0,2.5": ({}, {"class_weights": [1.0, 0.0, 2.5]}),
    "--schedule step:1,0.1": ({}, {"schedule": fastnn.StepDecay(1, 0.1)}),
    "--schedule exponential": ({}, {"schedule": fastnn.ExponentialDecay()}),
    "--schedule cosine:0.01": ({}, {"schedule": fastnn.CosineDecay(0.01)}),
    "--schedule inverse --l2 5": ({}, {"schedule": fastnn.InverseScaling(), "l2": 5.0}),
    "--warm-up 1": ({}, {"schedule": fastnn.Constant(warm_up=1)}),
    "--schedule cosine --warm-up 1 --momentum 0.5": (
        {},
        {"schedule": fastnn.CosineDecay(warm_up=1), "optimiser": fastnn.SGD(0.5)},
    ),
    "--validation 13": ({}, {"validation": 13}),
    "--validation 0.2 --epochs 9 --schedule plateau:1,0.1": (
        {},
        {"validation": 13, "epochs": 9, "schedule": fastnn.ReduceOnPlateau(1, 0.1)},
    ),
    "--validation 0.2 --epochs 9 --patience 2": (
        {},
        {"validation": 13, "epochs": 9, "patience": 2},
    ),
}


@pytest.mark.parametrize("flags", FLAGS)
def test_a_flag_does_what_it_does_in_the_library(run, data, flags):
    network, settings = FLAGS[flags]
    report = run("train", "--data", data, "--epochs", 2, *flags.split(), "--json").json
    train_set, test_set = fastnn.load_dataset(data)
    network = {
        "hidden": [30],
        "activation": "sigmoid",
        "output": "sigmoid",
        "cost": "cross-entropy",
        "init": "scaled",
        **network,
    }
    sizes = [16, *network["hidden"], 3]
    named = {key: value for key, value in network.items() if key not in ("hidden", "seed")}
    if sizes == [16, 3]:
        named["activation"] = []
    assert report["network"] == {
        "sizes": sizes,
        "parameters": sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes)),
        **named,
    }
    settings = {
        "epochs": 2,
        "batch_size": 10,
        "learning_rate": 0.5,
        "optimiser": fastnn.SGD(),
        "l1": 0.0,
        "l2": 0.0,
        "clip_norm": None,
        "dropout": 0.0,
        "class_weights": None,
        "schedule": fastnn.Constant(),
        "patience": None,
        "seed": 0,
        "shuffle": True,
        "fused": True,
        "threads": None,
        "validation": 0,
        **settings,
    }
    said = {
        key: {"name": settings[key].name, **dataclasses.asdict(settings[key])}
        for key in ("optimiser", "schedule")
    }
    assert report["settings"] == settings | said

    del network["hidden"]
    made = fastnn.Network(sizes, **network)
    if size := settings.pop("validation"):
        train_set, settings["validation"] = train_set.split(size)
    history = fastnn.train(made, train_set, test=test_set, **settings)
    costs = [(epoch.train_cost, epoch.test_cost) for epoch in history.epochs]
    assert [(epoch["train_cost"], epoch["test_cost"]) for epoch in report["epochs"]] == costs
    assert [epoch["learning_rate"] for epoch in report["epochs"]] == history.learning_rates
    assert [epoch["validation_accuracy"] for epoch in report["epochs"]] == [
        epoch.validation_accuracy for epoch in history.epochs
    ]
    assert report["best_epoch"] == history.best_epoch
    saved = fastnn.Network.load(report["model"])
    for ours, theirs in zip(saved.weights, made.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    without = run("train", "--data", data, "--epochs", 2, "--json").json
    assert [epoch["train_cost"] for epoch in without["epochs"]] != [cost for cost, _ in costs]


def test_what_samples_count_and_by_which_step_it_says(run, tmp_path, arrays):
    weights = np.linspace(0, 2, 63)
    np.savez(tmp_path / "counted.npz", **arrays, weights_train=weights)
    args = ["train", "--data", "counted.npz", "--epochs", 2, "--device", "numba"]
    result = run(*args, "--validation", 13, "--class-weights", "1,0.5,1", "--json")
    learned, _ = fastnn.Dataset(arrays["x_train"], arrays["y_train"], weights).split(13)
    counted = learned.weighted([1, 0.5, 1]).weights
    assert f"\nweights  0 to {counted.max():.3g} a training sample\n" in result.err
    assert result.json["step"] == "epoch"
    made = fastnn.Network([16, 30, 3], device="numba")
    history = fastnn.train(made, learned, epochs=2, class_weights=[1, 0.5, 1])
    assert [epoch["train_cost"] for epoch in result.json["epochs"]] == [
        epoch.train_cost for epoch in history.epochs
    ]


def test_the_best_weights_are_saved_and_it_says_which_they_are(run):
    args = "train --validation 0.1 --patience 2 --epochs 40 --save best.safetensors"
    result = run(*args.split())
    said = re.match(
        r"test accuracy (\S+) % by the weights of epoch (\d+) of (\d+), the best in validation, "
        r"(\S+) %",
        result.out,
    )
    assert int(said[3]) == int(said[2]) + 2 < 40
    for told in ("1,293 training, 144 validation and 360 test", f"validation {said[4]} %"):
        assert told in result.err
    evaluated = run("evaluate", "best.safetensors", "--json").json
    assert 100 * evaluated["accuracy"] == pytest.approx(float(said[1]), abs=0.006)


def test_the_number_of_threads_changes_no_weight(run, data):
    models = []
    for threads in (1, 3):
        report = run("train", "--data", data, "--epochs", 2, "--threads", threads, "--json").json
        assert report["settings"]["threads"] == threads
        models.append(fastnn.Network.load(report["model"]).weights)
    for one, three in zip(*models, strict=True):
        np.testing.assert_array_equal(one, three)


def test_without_the_fused_step_the_plain_one_runs(run, data):
    report = run("train", "--data", data, "--epochs", 1, "--no-fused", "--json").json
    assert report["settings"]["fused"] is False
    assert report["step"] == "plain"


@pytest.mark.parametrize("name", ["auto", "cpu", "numpy", "numpy:0"])
def test_the_device_is_chosen(run, data, name):
    result = run("train", "--data", data, "--epochs", 1, "--device", name, "--json")
    assert name in ("auto", "cpu", result.json["device"]["name"])
    assert ("auto     " in result.err) == (name == "auto")


def test_a_device_of_another_package_gives_the_same_to_rounding(run, data):
    pytest.importorskip("fastnn_pocket", reason="the package tests/pocket is not installed")
    numpy, pocket = (
        run("train", "--data", data, "--epochs", 3, "--device", name, "--json").json
        for name in ("numpy", "pocket")
    )
    assert pocket["device"]["name"] == "pocket"
    assert pocket["step"] == "plain"
    for key in ("train_cost", "test_cost", "test_accuracy"):
        expected = [epoch[key] for epoch in numpy["epochs"]]
        assert [epoch[key] for epoch in pocket["epochs"]] == pytest.approx(expected, rel=1e-4)


def test_the_model_goes_where_it_is_told(run, data, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/model")
    for path in ("folder/model", "link"):
        result = run("train", "--data", data, "--epochs", 1, "--save", path)
        assert result.out.splitlines()[-1] == f"model saved in {path}"
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "folder") == ["model"]
    assert run("evaluate", "folder/model").code == 0


def test_a_model_that_is_replaced_is_mentioned(run, data):
    first, second, quiet = (
        run("train", "--data", data, "--epochs", 1, *more) for more in ([], [], ["-q"])
    )
    assert "replaced" not in first.err
    assert "fastnn-small.safetensors before is replaced" in second.err
    assert quiet.err == ""
    assert quiet.out


def test_the_hint_is_for_those_who_named_no_data(run, data):
    assert HINT not in run("train", "--data", data, "--epochs", 1).err
    assert HINT not in run("train", "--epochs", 1, "-q").err


@pytest.mark.skipif("FASTNN_MNIST" not in os.environ, reason="FASTNN_MNIST names no folder")
def test_it_learns_mnist(run):
    folder = Path(os.environ["FASTNN_MNIST"]).absolute()
    report = run("train", "--data", folder, "--epochs", 1, "--json").json
    assert (report["data"]["train"], report["data"]["test"]) == (60_000, 10_000)
    assert report["network"]["parameters"] == 23_860
    assert report["epochs"][0]["test_accuracy"] >= 0.9


def test_help_names_every_option_and_loads_little(run_process):
    listing = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
    result = run_process("train", "--help", prepare=listing)
    assert result.code == 0
    options = (
        "data validation device hidden activation output cost init epochs batch-size learning-rate "
        "eta schedule warm-up patience seed "
        "no-shuffle no-fused checkpoint checkpoint-every resume "
        "profile log tensorboard save json quiet"
    )
    for option in options.split():
        assert f"--{option}" in result.out
    loaded = set(result.err.split())
    assert "fastnn" in loaded
    assert not loaded & {"scipy", "sklearn", "numba", "cupy", "rich", "requests", "pooch", "PIL"}


def test_a_profile_is_shown_and_written(run, data, tmp_path):
    trace = tmp_path / "trace.json"
    args = ["train", "--data", data, "--epochs", 2, "--device", "numpy", "--profile", trace]
    for _ in range(2):  # the second time over the first one's
        result = run(*args)
        assert result.code == 0
        shown = [line.split()[0] for line in result.err.splitlines() if line.endswith(" %")]
        assert {"gather", "forward", "backward", "update", "evaluate", "host"} <= set(shown)
        assert json.loads(trace.read_text())["traceEvents"]
    trace.write_text("something else")
    assert run(*args).code == 1
    assert trace.read_text() == "something else"
