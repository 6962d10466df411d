"""``fastnn evaluate`` and ``fastnn predict`` of arrays."""

import gzip
import json
import struct

import numpy as np
import pytest

import fastnn


def test_evaluate_finds_the_data_of_the_training(run, data):
    trained = run("train", "--data", data, "--epochs", 3, "--json").json
    result = run("evaluate", trained["model"], "--json")
    assert (result.code, result.err) == (0, "")
    last = trained["epochs"][-1]
    assert result.json == {
        "schema": 1,
        "command": "evaluate",
        "model": trained["model"],
        "device": trained["device"],
        "data": trained["data"],
        "cost": last["test_cost"],
        "accuracy": last["test_accuracy"],
    }
    words = run("evaluate", trained["model"])
    accuracy = f"{100 * last['test_accuracy']:.2f} %"
    assert words.out == (
        f"accuracy {accuracy}, cost {last['test_cost']:.4f} on 20 test samples of {data}\n"
    )


def test_evaluate_takes_other_data(run, model, tmp_path, arrays):
    swapped = {"x_test": arrays["x_train"], "y_test": arrays["y_train"]}
    np.savez(tmp_path / "swapped.npz", **{**arrays, **swapped})
    result = run("evaluate", model, "--data", "swapped.npz", "--json")
    network = fastnn.Network.load(model)
    score = fastnn.evaluate(network, (arrays["x_train"], arrays["y_train"]))
    assert (result.json["cost"], result.json["accuracy"]) == (score.cost, score.accuracy)
    assert result.json["data"]["test"] == 63
    assert result.err == ""


def test_evaluate_says_that_the_data_have_changed(run, model, tmp_path, arrays):
    np.savez(tmp_path / "small.npz", **{**arrays, "y_test": (arrays["y_test"] + 1) % 3})
    assert "is not what it was" in run("evaluate", model).err
    assert run("evaluate", model, "-q").err == ""


def test_evaluate_says_what_to_do_when_the_data_are_gone(refused, model, tmp_path):
    (tmp_path / "small.npz").unlink()
    refused(4, ["small.npz", "--data"], "evaluate", model)


def test_evaluate_of_a_model_that_was_trained_on_nothing_known(refused, run, data):
    fastnn.Network([16, 5, 3]).save("made.safetensors")
    refused(2, "--data", "evaluate", "made.safetensors")
    assert run("evaluate", "made.safetensors", "--data", data).code == 0


def test_evaluate_of_data_that_do_not_fit(refused, model, tmp_path, arrays):
    wide = {"x_train": np.ones((63, 25)), "x_test": np.ones((20, 25))}
    np.savez(tmp_path / "wide.npz", **{**arrays, **wide})
    refused(4, ["25", "16"], "evaluate", model, "--data", "wide.npz")
    more = {"y_train": arrays["y_train"] + 1, "y_test": arrays["y_test"] + 1}
    np.savez(tmp_path / "more.npz", **{**arrays, **more})
    refused(4, "class number 3", "evaluate", model, "--data", "more.npz")


@pytest.fixture
def samples(tmp_path, arrays):
    """Three samples in every kind of file."""
    x = arrays["x_test"][:3].reshape(3, 4, 4)
    idx = bytes([0, 0, 8, 3]) + struct.pack(">3I", *x.shape) + x.tobytes()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "floats.npy", x / 255)
    np.savez(tmp_path / "x.npz", x=x)
    (tmp_path / "x-idx3-ubyte").write_bytes(idx)
    (tmp_path / "x-idx3-ubyte.gz").write_bytes(gzip.compress(idx))
    return x.reshape(3, 16)


@pytest.mark.parametrize(
    "file", ["x.npy", "floats.npy", "x.npz", "x-idx3-ubyte", "x-idx3-ubyte.gz"]
)
def test_predict_agrees_with_the_library(run, model, samples, file):
    outputs = fastnn.Network.load(model).forward(samples)
    result = run("predict", model, file, "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json == {
        "schema": 1,
        "command": "predict",
        "model": model,
        "predictions": [
            {
                "file": file,
                "index": index,
                "class": int(row.argmax()),
                "output": pytest.approx(float(row.max()), rel=1e-5),
            }
            for index, row in enumerate(outputs)
        ],
    }


@pytest.mark.usefixtures("samples")
def test_predict_prints_a_line_a_sample(run, model, tmp_path):
    np.save(tmp_path / "one.npy", np.load(tmp_path / "x.npy")[0])
    result = run("predict", model, "one.npy", "x.npz", "x.npy")
    files = [line.split("\t")[0] for line in result.out.splitlines()]
    assert files == ["one.npy", *(f"{name}[{i}]" for name in ("x.npz", "x.npy") for i in range(3))]
    values = [line.split("\t")[1:] for line in result.out.splitlines()]
    assert values[0] == values[1]
    assert values[1:4] == values[4:]


@pytest.mark.usefixtures("samples")
@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("missing.npy", "No such file"),
        ("missing.png", "No such file"),
        (".", "is a folder"),
        ("/dev/zero", "not a regular file"),
        ("wide.npy", "16 features"),
        ("nan.npy", "NaN or inf"),
        ("objects.npy", "never unpickled"),
        ("small.npz.txt", "IDX"),
        ("two.npz", "which array"),
    ],
)
def test_predict_of_a_bad_file(refused, model, tmp_path, file, says):
    """Also behind a good one, of which nothing is printed then."""
    np.save(tmp_path / "wide.npy", np.zeros((3, 25), np.uint8))
    np.save(tmp_path / "nan.npy", np.full((3, 16), np.nan))
    np.save(tmp_path / "objects.npy", np.array([print] * 16, dtype=object), allow_pickle=True)
    (tmp_path / "small.npz.txt").write_text("no numbers")
    np.savez(tmp_path / "two.npz", a=np.ones(16), b=np.ones(16))
    refused(4, [file, says], "predict", model, file)
    refused(4, [file, says], "predict", model, "x.npy", file, "--json")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predict_gives_no_class_where_the_output_is_no_number(refused, run, data, dtype):
    options = "--activation relu --output identity --cost quadratic --epochs 1"
    run("train", "--data", data, *options.split())
    np.save("wild.npy", np.full((2, 16), np.finfo(dtype).max, dtype))
    for form in ([], ["--json"]):
        refused(4, "", "predict", "fastnn-small.safetensors", "wild.npy", *form)


def test_the_model_file_names_what_it_was_trained_on(run, data):
    from safetensors import safe_open

    report = run("train", "--data", data, "--epochs", 1, "--json").json
    with safe_open(report["model"], "np") as file:
        description = json.loads(file.metadata()["fastnn"])
    assert description["trained_on"] == {"name": data, "sha256": report["data"]["sha256"]}
