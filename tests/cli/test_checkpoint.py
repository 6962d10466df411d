"""``train --checkpoint`` and ``--resume``: what stays of a training, and how it goes on."""

import json
import os
import signal
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

import fastnn
from fastnn.model_file import read

TIMES = {"seconds", "samples_per_second"}


@pytest.fixture
def checkpointed(run, data):
    """The folder of a training of three epochs."""
    assert run("train", "--data", data, "--epochs", 3, "--checkpoint", "run").code == 0
    return "run"


def timeless(report):
    return [{k: v for k, v in epoch.items() if k not in TIMES} for epoch in report["epochs"]]


WAYS = [
    "",
    "--optimiser sgd --momentum 0.9 --nesterov --l2 0.1 --eta 0.1",
    "--optimiser adam --l1 0.01 --clip-norm 2 --no-shuffle --batch-size 63 --seed 7",
    "--hidden 6,5 --activation tanh,relu --output softmax --cost log-likelihood --init he",
    "--hidden none --output tanh --cost squared-error --no-fused --threads 1",
    "--schedule step:2,0.7 --warm-up 2 --validation 20 --patience 4",
    "--schedule plateau:1,0.3,0.01 --validation 0.3",
    "--schedule cosine",
    "--dropout 0.1,0.5 --momentum 0.5 --eta 0.1",
    "--dropout 0.3 --hidden none",
    "--class-weights balanced --validation 20",
    "--class-weights 1,0.25,3 --momentum 0.9",
]


@pytest.mark.parametrize("args", WAYS)
@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_it_goes_on_by_all_that_it_was_told(run, start, data, tmp_path, device, args):
    args = ["train", "--data", data, "--device", device, *args.split(), "--json"]
    whole = run(*args, "--epochs", 6, "--save", "whole", "--checkpoint", "other").json
    # It ends in the midst, and --epochs stays 6, by which the cosine goes.
    state = {"left": 3}

    def stop(self, epoch):
        state["left"] -= 1
        if not state["left"]:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastnn.cli.progress.Reporter.epoch", stop)
        first = run(*args, "--epochs", 6, "--checkpoint", "run")
    assert (first.code, len(first.json["epochs"])) == (130, 3)
    report = run("train", "--resume", "run", "--json", "--save", "resumed").json
    assert timeless(report) == timeless(whole)
    for key in ("settings", "network", "data", "best_epoch", "device", "step"):
        assert report[key] == whole[key]
    for one, other in (("resumed", "whole"), ("run/best.safetensors", "other/best.safetensors")):
        assert (tmp_path / one).read_bytes() == (tmp_path / other).read_bytes()


def test_what_it_says(run, data, checkpointed):
    args = ["train", "--resume", checkpointed]
    more = run(*args, "--epochs", 5, "--checkpoint-every", 2)
    assert more.code == 0
    assert "resumed  run: 3 epochs are done" in more.err
    shown = [line[:9] for line in more.err.splitlines() if line.startswith("epoch")]
    assert shown == ["epoch 4/5", "epoch 5/5"]
    assert "after epoch 5" in more.out
    done = run(*args)
    assert done.code == 0
    assert done.err.splitlines()[-1] == "nothing was left to train: that of run is finished"
    assert done.out.splitlines()[-1] == "model saved in fastnn-small.safetensors"
    quiet = run(*args, "-q")
    assert (quiet.code, quiet.err) == (0, "")


def test_its_log_goes_on(run, data, checkpointed, tmp_path):
    args = ["train", "--resume", checkpointed, "--log", "run.csv"]
    first = run(*args, "--epochs", 6, "--json").json["epochs"]
    assert [epoch.epoch for epoch in fastnn.read_log(tmp_path / "run.csv")] == [4, 5, 6]
    assert run(*args, "--epochs", 8).code == 0
    epochs = fastnn.read_log(tmp_path / "run.csv")
    assert [epoch.epoch for epoch in epochs] == [4, 5, 6, 7, 8]
    assert epochs[0].train_cost == first[3]["train_cost"]


@pytest.mark.parametrize(
    ("code", "says", "args"),
    [
        (2, "sizes 16-30-3, and cannot go on with 16-31-3", "--hidden 31"),
        (2, "activations sigmoid-sigmoid", "--activation tanh"),
        (2, "cost cross-entropy, and cannot go on with quadratic", "--cost quadratic"),
        (2, "init scaled, and cannot go on with normal", "--init normal"),
        (2, "batch size 10, and cannot go on with 11", "--batch-size 11"),
        (2, "learning rate 0.5, and cannot go on with 0.4", "--eta 0.4"),
        (2, "sgd (momentum 0.0, nesterov False), and", "--momentum 0.5"),
        (2, "and cannot go on with adam", "--optimiser adam"),
        (2, "l2 0.0, and cannot go on with 1.0", "--l2 1"),
        (2, "class weights none, and cannot go on with balanced", "--class-weights balanced"),
        (2, "class weights none, and cannot go on with 1.0,1.0,2.0", "--class-weights 1,1,2"),
        (2, "constant (warm_up 0), and cannot", "--schedule cosine"),
        (2, "constant (warm_up 0), and cannot", "--warm-up 1"),
        (2, "seed 0, and cannot go on with 1", "--seed 1"),
        (2, "shuffle True, and cannot", "--no-shuffle"),
        (4, "the training set is not the one", "--patience 3 --validation 5"),
        (4, "the training set is not the one", "--validation 5"),
        (4, "No such file", "--data nowhere.npz"),
        (2, "leave --checkpoint out", "--checkpoint other"),
        (2, "name the same place", "--save run/last.safetensors"),
        (2, "name the same place", "--save ./run/best.safetensors"),
        (2, "--checkpoint-every", "--checkpoint-every 0"),
        (3, "known: auto", "--device warp"),
    ],
)
def test_what_contradicts_is_refused(refused, checkpointed, tmp_path, code, says, args):
    folder = tmp_path / checkpointed
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused(code, says, "train", "--resume", checkpointed, "--epochs", 9, *args.split())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_changed_data_are_refused(refused, checkpointed, data, arrays, tmp_path):
    for name in arrays:
        if name.startswith("x"):
            x = arrays[name].copy()
            x[3, 3] ^= 1
            np.savez(tmp_path / data, **{**arrays, name: x})
            what = {"x_train": "training", "x_test": "test"}[name]
            says = f"the {what} set is not the one that the training in run began with"
            refused(4, says, "train", "--resume", checkpointed, "--epochs", 9)
    (tmp_path / data).rename(tmp_path / "moved.npz")
    refused(4, "No such file", "train", "--resume", checkpointed, "--epochs", 9)


def test_data_that_were_moved_are_named(run, refused, checkpointed, data, tmp_path):
    (tmp_path / data).rename(tmp_path / "moved.npz")
    refused(4, ["No such file", "name that by --data"], "train", "--resume", checkpointed)
    assert run("train", "--resume", checkpointed, "--data", "moved.npz").code == 0


@pytest.mark.parametrize(
    ("code", "says", "args"),
    [
        (1, "holds the checkpoint of another training", "--checkpoint run"),
        (1, "--resume run", "--checkpoint run --data digits"),
        (1, "No such file or directory", "--checkpoint no/where"),
        (1, "Not a directory", "--checkpoint small.npz"),
        (1, "cannot write", "--checkpoint /proc/run"),
        (1, "holds the checkpoint of another", "--checkpoint thesis"),
        (2, "name the same place", "--checkpoint new --log new"),
        (2, "name the same place", "--checkpoint new --save new/last.safetensors"),
        (2, "--checkpoint-every needs a folder", "--checkpoint-every 2"),
        (4, "there is no checkpoint in nowhere: it is no folder", "--resume nowhere"),
        (4, "there is no checkpoint in .: it has no last.safetensors", "--resume ."),
        (4, "is damaged, or no model file", "--resume thesis"),
        (4, "is a model, and no checkpoint", "--resume model"),
    ],
)
def test_folders_that_will_not_do(refused, checkpointed, tmp_path, code, says, args):
    for folder in ("thesis", "model"):
        (tmp_path / folder).mkdir()
    (tmp_path / "thesis" / "last.safetensors").write_text("It was a dark and stormy night.")
    best = (tmp_path / checkpointed / "best.safetensors").read_bytes()
    (tmp_path / "model" / "last.safetensors").write_bytes(best)
    before = sorted(path for path in tmp_path.rglob("*"))
    refused(code, says, "train", *args.split())
    assert sorted(path for path in tmp_path.rglob("*")) == before


KEYS = (
    "sets epochs batch_size learning_rate optimiser l1 l2 clip_norm dropout class_weights schedule "
    "patience seed shuffle device precision fused threads"
)


@pytest.mark.parametrize("key", KEYS.split())
def test_settings_that_make_no_sense(run, checkpointed, tmp_path, key):
    path = tmp_path / checkpointed / "last.safetensors"
    description, tensors = read(path)
    settings = description["checkpoint"]["settings"]
    assert KEYS.split() == list(settings)
    for wrong in (None, "x", "\x1b[0m", -1, 1e308, True, [], [1], {}, {"name": 3}, {"name": "sgd"}):
        settings[key] = wrong
        save_file(tensors, path, {"fastnn": json.dumps(description)})
        result = run("train", "--resume", checkpointed)
        assert result.code in (0, 2, 3, 4)
        assert "\x1b" not in result.err
    del settings[key]
    save_file(tensors, path, {"fastnn": json.dumps(description)})
    # A checkpoint from before there were these has none.
    is_new = key in ("dropout", "class_weights")
    assert run("train", "--resume", checkpointed).code == (0 if is_new else 4)


def test_one_that_was_begun_in_a_program(run, refused, data, arrays, tmp_path):
    network = fastnn.Network([16, 5, 3], device="numpy")
    learned, test = ((arrays[f"x_{name}"], arrays[f"y_{name}"]) for name in ("train", "test"))
    schedule = fastnn.ExponentialDecay(np.float64(0.9), warm_up=np.int64(2))
    options = {"schedule": schedule, "optimiser": "adamw", "batch_size": None}
    checkpoint = fastnn.Checkpoint(tmp_path / "run")
    fastnn.train(network, learned, test, epochs=2, checkpoint=checkpoint, **options)
    args = ["train", "--resume", "run", "--epochs", 4, "--json"]
    refused(2, "name them by --data", *args)
    assert len(run(*args, "--data", data).json["epochs"]) == 4


def test_both_files_are_models(run, checkpointed):
    for name in ("last", "best"):
        assert run("evaluate", f"{checkpointed}/{name}.safetensors").code == 0


@pytest.mark.parametrize("option", ["--checkpoint", "--resume"])
def test_an_empty_name(refused, option):
    refused(2, "must have a name", "train", option, "")


SPENT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); "


@pytest.mark.parametrize("more", [[], ["-q"], ["--json"]])
def test_on_a_full_disk_the_training_goes_on(run_process, run, data, tmp_path, more):
    args = ["train", "--data", data, "--device", "numpy", "--epochs", "40", *more]
    # There is room for the model, and for a checkpoint with a short history.
    spent = SPENT.format(7500)
    result = run_process(*args, "--checkpoint", "run", prepare=spent)
    assert result.code == 1, result
    said = [line for line in result.err.splitlines() if line.startswith("fastnn: ")]
    assert len(said) == 1
    assert said[0].endswith(
        "last.safetensors: File too large; the training goes on, and tries again"
    )
    assert "Traceback" not in result.err
    assert run("evaluate", "fastnn-small.safetensors").code == 0
    assert sorted(os.listdir(tmp_path / "run")) == ["best.safetensors", "last.safetensors"]
    resumed = run("train", "--resume", "run", "--save", "resumed")
    assert resumed.code == 0
    assert 1 < int(resumed.err.partition("resumed  run: ")[2].split()[0]) < 40
    ours, theirs = (tmp_path / name for name in ("resumed", "fastnn-small.safetensors"))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_process(start, run, data, tmp_path, number):
    process = start(
        "train", "--data", data, "--device", "numpy", "--epochs", "1000000",
        "--checkpoint", "run", "--checkpoint-every", "1000000",
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith(b"epoch   "):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.splitlines()[-1] == b"model saved in fastnn-small.safetensors"
    last = err.splitlines()[-1].decode()
    done = int(last.removeprefix("it goes on after epoch ").removesuffix(": --resume run"))
    assert fastnn.Checkpoint(tmp_path / "run", resume=True).done == done


def test_a_process_that_is_killed(start, run, data, tmp_path):
    process = start(
        "train",
        "--data",
        data,
        "--device",
        "numpy",
        "--epochs",
        "1000000",
        "--checkpoint",
        "run",
        "-q",
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "run" / "best.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    done = fastnn.Checkpoint(tmp_path / "run", resume=True).done
    args = ["--epochs", done + 3, "--json", "-q"]
    resumed = run("train", "--resume", "run", *args).json
    whole = run("train", "--data", data, "--device", "numpy", *args).json
    assert timeless(resumed) == timeless(whole)


def test_the_bar_of_one_that_goes_on(on_terminal, run, data):
    run("train", "--data", data, "--epochs", 1, "--checkpoint", "run")
    out, shown = on_terminal("--resume", "run", NO_COLOR="1")
    assert "epoch 2/3   cost" in shown
    assert "epoch 1/3   cost" not in shown
    assert "after epoch 3" in out
