"""``train --log`` and ``--tensorboard``: what stays of a training, whatever happens to it."""

import json
import os
import signal
import sys
import time

import pytest

import fastnn

FORMS = ["run.jsonl", "run.csv"]


@pytest.mark.parametrize("name", FORMS)
def test_the_log_holds_what_the_json_says(run, data, tmp_path, name):
    result = run("train", "--data", data, "--epochs", 3, "--log", name, "--json")
    assert result.code == 0
    epochs = fastnn.read_log(tmp_path / name)
    for epoch, reported in zip(epochs, result.json["epochs"], strict=True):
        assert reported.pop("learning_rate") == 0.5
        assert {key: getattr(epoch, key) for key in reported} == reported
        assert epoch.train_accuracy is not None
        assert epoch.validation_cost is None


def test_a_second_training_is_added_and_said_so(run, data, tmp_path):
    first, second, quiet = (
        run("train", "--data", data, "--epochs", 2, "--log", "run.jsonl", *more)
        for more in ([], ["--seed", 1], ["-q"])
    )
    said = "run.jsonl: the epochs of this training are added to it"
    assert said not in first.err
    assert said in second.err
    assert quiet.err == ""
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2] * 3
    assert lines[0]["train_cost"] == lines[4]["train_cost"] != lines[2]["train_cost"]


@pytest.mark.parametrize("name", FORMS)
def test_a_process_that_is_killed_leaves_the_epochs_that_were_done(start, data, tmp_path, name):
    path = tmp_path / name
    process = start(
        "train", "--data", data, "--epochs", "1000000", "--device", "numpy", "--log", name, "-q"
    )
    deadline = time.monotonic() + 30
    while not path.exists() or path.read_bytes().count(b"\n") < 25:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    numbers = [epoch.epoch for epoch in fastnn.read_log(path)]
    assert numbers == [*range(1, len(numbers) + 1)]
    assert len(numbers) > 20


SPENT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "


@pytest.mark.parametrize("more", [[], ["-q"], ["--json"]])
def test_on_a_full_disk_the_training_goes_on(run_process, run, data, tmp_path, more):
    args = ["train", "--data", data, "--epochs", "40", "--log", "run.jsonl", *more]
    result = run_process(*args, prepare=SPENT, env={"FASTNN_AUTO": "static"})
    assert result.code == 1
    said = [line for line in result.err.splitlines() if line.startswith("fastnn: ")]
    assert len(said) == 1
    assert said[0].endswith("run.jsonl: File too large; the training goes on without it")
    assert "Traceback" not in result.err
    assert 1 < len(fastnn.read_log(tmp_path / "run.jsonl")) < 40
    if "--json" in more:
        assert len(result.json["epochs"]) == 40
    else:
        assert "after epoch 40" in result.out
    assert run("evaluate", "fastnn-small.safetensors").code == 0


def test_a_training_that_diverges_leaves_its_log(refused, data, tmp_path, run):
    run("train", "--data", data, "--epochs", 2, "--log", "run.csv")
    args = "--activation identity --output identity --cost quadratic --eta 1e6 --log run.csv"
    before = (tmp_path / "run.csv").read_bytes()
    refused(5, "diverged in epoch 1", "train", "--data", data, *args.split())
    assert (tmp_path / "run.csv").read_bytes() == before


@pytest.fixture
def no_training(monkeypatch):
    def train(*args, **kwargs):
        raise AssertionError("the training was begun")

    monkeypatch.setattr(fastnn, "train", train)


REFUSED = [
    (2, [".jsonl", ".csv", "'run.txt'"], "--log run.txt"),
    (2, [".jsonl", ".csv", "'run'"], "--log run"),
    (2, "ends in .jsonl", "--log"),
    (2, "--save and --log name the same place", "--log same.csv --save same.csv"),
    (2, "--save and --log name the same place", "--log ./same.csv --save folder/../same.csv"),
    (2, "--log and --profile name the same place", "--log same.csv --profile same.csv"),
    (2, "--log and --tensorboard name the same place", "--log new.csv --tensorboard new.csv"),
    (1, "it is a folder", "--log folder.csv"),
    (1, "No such file or directory", "--log no/where.csv"),
    (1, "Not a directory", "--log small.npz/run.csv"),
    (1, "cannot write", "--log /proc/run.csv"),
    (1, "other than a whole log", "--log thesis.csv"),
    (1, "other than a whole log", "--log thesis.jsonl"),
    (1, "not an ordinary file", "--log pipe.csv"),
]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(("code", "says", "args"), REFUSED)
def test_where_no_log_can_be_nothing_is_trained(refused, data, tmp_path, code, says, args):
    for folder in ("folder", "folder.csv"):
        (tmp_path / folder).mkdir()
    for thesis in ("thesis.csv", "thesis.jsonl"):
        (tmp_path / thesis).write_text("It was a dark and stormy night.\n")
    os.mkfifo(tmp_path / "pipe.csv")
    before = sorted(os.listdir(tmp_path))
    args = args.split() if args != "--log" else ["--log", ""]
    refused(code, says, "train", "--data", data, *args)
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "thesis.csv").read_text() == "It was a dark and stormy night.\n"


def test_tensorboard(run, data, tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra 'tensorboard' is not installed")
    for _ in range(2):
        assert run("train", "--data", data, "--epochs", 2, "--tensorboard", "runs/1").code == 0
    files = os.listdir(tmp_path / "runs" / "1")
    assert len(files) == 2
    assert all(name.startswith("events.out.tfevents.") for name in files)


@pytest.mark.usefixtures("no_training")
def test_tensorboard_where_there_is_no_folder(refused, data):
    pytest.importorskip("tensorboardX", reason="the extra 'tensorboard' is not installed")
    refused(1, "is not a folder", "train", "--data", data, "--tensorboard", f"{data}/runs")


@pytest.mark.usefixtures("no_training")
def test_tensorboard_without_its_library(refused, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.proto.event_pb2", None)
    says = ["need tensorboardX", "pip install -e '.[tensorboard]'"]
    refused(2, says, "train", "--data", data, "--tensorboard", "runs")
