"""``fastnn inspect``: what it finds, what it draws, and what it refuses."""

import os
import sys

import numpy as np
import pytest

import fastnn
from fastnn import inspecting

ALWAYS = [
    f"{name}.png"
    for name in ("activations", "confusion", "mistakes", "saliency", "sensitivity", "weights")
]


@pytest.fixture(autouse=True)
def some_matplotlib(request):
    if "without_matplotlib" not in request.fixturenames:
        pytest.importorskip("matplotlib", reason="matplotlib, the extra 'plot', is not installed")


@pytest.fixture
def model(run, data):
    """The path of a model that was trained for one epoch, small enough to be drawn at once."""
    run("train", "--data", data, "--epochs", 1, "--hidden", 4, "--save", "old.safetensors")
    return "old.safetensors"


@pytest.fixture
def without_matplotlib(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_it_says_what_the_library_finds(run, model, arrays):
    result = run("inspect", model, "--json", "--noise", "--digit", 2)
    network, test = fastnn.Network.load(model), (arrays["x_test"], arrays["y_test"])
    report = result.json
    assert (result.code, list(report)) == (0, [
        "schema", "command", "model", "device", "data", "cost", "accuracy", "confusion",
        "most_confused", "mistakes", "sample", "sensitivity", "noise", "pictures",
    ])  # fmt: skip
    assert (report["cost"], report["accuracy"]) == fastnn.evaluate(network, test)
    matrix = inspecting.confusion_matrix(network, test)
    assert report["confusion"] == matrix.tolist()
    confused = [each._asdict() for each in inspecting.most_confused(matrix, 5)]
    assert report["most_confused"] == confused
    wrong = [each._asdict() for each in inspecting.mistakes(network, test)[:5]]
    assert report["mistakes"] == wrong
    chosen = int(np.flatnonzero(arrays["y_test"] == 2)[0])
    assert (report["sample"]["sample"], report["sample"]["label"]) == (chosen, 2)
    assert report["sample"]["output"] == pytest.approx(network.forward(test[0])[chosen].max())
    norms = [np.sqrt(np.mean(slope**2)) for slope in inspecting.sensitivity(network, test)]
    assert report["sensitivity"] == pytest.approx(norms, rel=1e-5)
    tops = network.forward(inspecting.noise_like(test[0])).max(axis=1)
    assert report["noise"] == {
        "samples": 1000,
        "sure": float(np.mean(tops > 0.9)),
        "mean_output": pytest.approx(tops.mean(), rel=1e-5),
    }


def test_in_words(run, model):
    result = run("inspect", model, "--noise")
    assert result.code == 0
    report = run("inspect", model, "--noise", "--json").json
    lines = result.out.splitlines()
    accuracy = f"accuracy {100 * report['accuracy']:.2f} %, cost {report['cost']:.4f}"
    assert lines[0] == f"{accuracy} on 20 test samples of small.npz"
    first = report["most_confused"][0]
    assert lines[1].startswith(
        f"most confused: {first['label']} for {first['predicted']} ({first['times']})"
    )
    assert sum(line.startswith("surest mistake: sample") for line in lines) == len(
        report["mistakes"]
    )
    assert any(line.startswith("looked at: sample 0 of class ") for line in lines)
    assert any(line.startswith("noise: in ") for line in lines)
    assert [line for line in lines if "picture " in line] == [
        f"picture {path}" for path in report["pictures"]
    ]
    assert "--log" in result.err


def test_the_pictures_lie_in_a_folder_beside_where_one_is(run, model, tmp_path):
    result = run("inspect", model, "-q", "--json")
    assert result.json["pictures"] == [os.path.join("old-inspect", name) for name in (
        "weights.png", "activations.png", "confusion.png", "mistakes.png", "saliency.png",
        "sensitivity.png",
    )]  # fmt: skip
    assert sorted(os.listdir(tmp_path / "old-inspect")) == ALWAYS
    assert result.err == ""


def test_the_same_model_gives_the_same_bytes_over_those_that_were_there(run, model, tmp_path):
    def contents():
        assert run("inspect", model, "--out", "here/there", "--noise").code == 0
        return {path.name: path.read_bytes() for path in (tmp_path / "here/there").iterdir()}

    first = contents()
    assert sorted(first) == sorted([*ALWAYS, "noise.png"])
    assert contents() == first


@pytest.mark.parametrize("log", ["log.jsonl", "log.csv"])
def test_the_curves_of_the_training(run, data, log):
    options = ["--epochs", 3, "--hidden", 4, "--log", log, "--json"]
    trained = run("train", "--data", data, *options)
    result = run("inspect", trained.json["model"], "--log", log)
    assert result.code == 0
    assert "curves.png" in result.out
    assert "--log" not in result.err


def test_samples_that_are_no_square_images(run, tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 12))
    y = np.arange(40) % 3
    np.savez(tmp_path / "rows.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    run("train", "--data", "rows.npz", "--epochs", 1, "--hidden", "none")
    result = run("inspect", "fastnn-rows.safetensors", "--noise")
    assert result.code == 0
    assert "12 pixels make no square image" in result.err


def test_a_network_without_mistakes(run, tmp_path):
    x, y = np.eye(3, dtype=np.float32), np.arange(3)
    np.savez(tmp_path / "easy.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    fastnn.Network.from_parameters([9 * np.eye(3)], [np.zeros(3)]).save("easy.safetensors")
    result = run("inspect", "easy.safetensors", "--data", "easy.npz")
    assert result.code == 0
    assert "no mistakes" in result.out


@pytest.mark.parametrize(
    ("code", "says", "args"),
    [
        (2, "Missing argument 'MODEL'", ""),
        (4, "does not exist", "missing.safetensors"),
        (4, "is damaged, or no model", "small.npz"),
        (4, "25", "{model} --data wide.npz"),
        (4, "class number 3", "{model} --data more.npz"),
        (4, "Did you mean 'digits'?", "{model} --data digts"),
        (2, "the test samples are 0 to 19", "{model} --sample 20"),
        (2, "--sample", "{model} --sample -1"),
        (2, "--sample", "{model} --sample first"),
        (2, "of the classes 0, 1, 2", "{model} --digit 12"),
        (2, "give one of them", "{model} --digit 1 --sample 1"),
        (4, "No such file", "{model} --log nowhere.jsonl"),
        (4, "line 1 is no epoch", "{model} --log broken.jsonl"),
        (2, "ends in .jsonl", "{model} --log model.safetensors"),
        (1, "small.npz is not a folder", "{model} --out small.npz"),
        (1, "small.npz is not a folder", "{model} --out small.npz/new"),
        (1, "loop is not a folder", "{model} --out loop"),
        (1, "weights.png: it holds something other than a picture of ours", "{model} --out mine"),
        (1, "curves.png: it holds something other", "{model} --out folders"),
        (3, "known: auto, cpu, cuda, numba, numpy", "{model} --device warp"),
    ],
)
def test_it_is_refused(refused, model, tmp_path, arrays, code, says, args):
    wide = {"x_train": np.ones((63, 25)), "x_test": np.ones((20, 25))}
    np.savez(tmp_path / "wide.npz", **{**arrays, **wide})
    more = {"y_train": arrays["y_train"] + 1, "y_test": arrays["y_test"] + 1}
    np.savez(tmp_path / "more.npz", **{**arrays, **more})
    (tmp_path / "broken.jsonl").write_text("epoch 1/3   cost 0.35\n")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "weights.png").write_bytes(b"\x89PNG a photograph")
    (tmp_path / "folders" / "curves.png").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    refused(code, says, "inspect", *args.format(model=model).split())
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_name_is_not_the_folder_at_hand(refused, model):
    refused(1, "has no name", "inspect", model, "--out", "")


def test_a_protected_folder_is_refused_before_the_work(refused, model, monkeypatch):
    # As for anyone but root, after chmod 555.
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK)
    refused(1, "is write-protected", "inspect", model)


def test_a_model_that_was_trained_on_nothing_known(refused, run, data):
    fastnn.Network([16, 5, 3]).save("made.safetensors")
    refused(2, "--data", "inspect", "made.safetensors")
    assert run("inspect", "made.safetensors", "--data", data).code == 0


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_it_says_what_to_install_and_what_it_found(run, model, tmp_path):
    result = run("inspect", model)
    assert result.code == 2
    assert result.err.endswith(
        "pictures need matplotlib, which the extra 'plot' brings: pip install -e '.[plot]'\n"
    )
    assert result.out.startswith("accuracy ")
    assert run("inspect", model, "--json").json["pictures"] == []
    assert not (tmp_path / "old-inspect").exists()
