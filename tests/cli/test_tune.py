"""``fastnn tune``: what it prints, that its command trains what it found, and what it refuses."""

import os
import re
import shlex
import signal
import sqlite3
import sys
import time

import numpy as np
import pytest

import fastnn

pytest.importorskip("optuna", reason="the extra 'tune' is not installed")

QUICK = ["--trials", 5, "--epochs", 4, "--device", "numpy"]


@pytest.fixture
def tune(run, data):
    return lambda *args: run("tune", "--data", data, *QUICK, *args)


def commands(result):
    return [line for line in result.out.splitlines() if line.startswith("fastnn train ")]


def percents(text):
    return [float(number) for number in re.findall(r"([\d.]+) %", text)]


def test_it_tells_of_each_trial_and_shows_the_best_and_leaves_nothing(tune):
    result = tune()
    assert result.code == 0
    lines = result.err.splitlines()
    assert lines[0] == (
        "data     small.npz: 50 training and 13 validation samples of 16 numbers, 3 classes"
    )
    assert lines[2] == "rate     a network is trained at growing rates, to see where to search"
    (search,) = [line for line in lines if line.startswith("search ")]
    bounds = r"hidden 30, 60, 100; batch 10, 20, 50; η [\d.]+ to [\d.]+; λ none or \S+ to [\d.]+"
    assert re.fullmatch(rf"search   {bounds}", search)
    trials = [line for line in lines if line.startswith("trial ")]
    assert [line[:9] for line in trials] == [f"trial {number}/5" for number in range(1, 6)]
    assert all(len(line) <= 100 for line in [*lines, *trials])
    head, *rows = result.out.splitlines()
    finished = [line for line in trials if "pruned" not in line]
    pruned = f", {5 - len(finished)} pruned" if len(finished) < 5 else ""
    assert head == f"5 trials: {len(finished)} finished{pruned}; the best:"
    accuracies = [percents(row)[0] for row in rows[: len(finished)]]
    assert accuracies == sorted((percents(line)[0] for line in finished), reverse=True)
    assert rows[len(finished)].startswith("fastnn train --data small.npz --validation 0.2 ")
    assert re.fullmatch(r"test accuracy [\d.]+ % of trial \d, so trained", rows[-1])
    assert os.listdir() == ["small.npz"]


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--seed 3 --validation 20 --patience 1",
        "--batch-size full --hidden none --epochs 30",
        "--hidden 6,5 --activation tanh,relu --init glorot --eta 0.1 --no-fused --threads 1",
        "--output softmax --cost log-likelihood --momentum 0.5 --nesterov --l1 0.1 --clip-norm 2",
        "--optimiser adamw --l2 0.5 --batch-size 7 --device numba",
        "--dropout 0.3 --class-weights 1,1,2.5",
        "--dropout 0.1,0.3 --hidden 9",
    ],
)
def test_the_command_trains_what_it_found(tune, run, tmp_path, flags):
    tuned = tune(*flags.split(), "--save", "tuned", "--json", "-q").json
    command = tuned["train"]
    assert commands(tune(*flags.split())) == [shlex.join(command)]
    best = tuned["trials"][tuned["best"] - 1]
    trained = run(*command[1:], "--save", "trained", "--json").json
    epoch = trained["epochs"][trained["best_epoch"] - 1]
    assert trained["best_epoch"] == best["best_epoch"]
    assert len(trained["epochs"]) == best["epochs"]
    assert epoch["validation_accuracy"] == best["validation_accuracy"]
    assert (epoch["test_accuracy"], epoch["test_cost"]) == (
        tuned["test"]["accuracy"], pytest.approx(tuned["test"]["cost"], rel=1e-12),
    )  # fmt: skip
    assert (tmp_path / "tuned").read_bytes() == (tmp_path / "trained").read_bytes()
    assert run("evaluate", "tuned", "--json").json["accuracy"] == tuned["test"]["accuracy"]


def test_its_json_is_what_the_library_finds(tune, data):
    result = tune("--seed", 2, "--l2", 0.1, "--json")
    report = result.json
    learned, judged = fastnn.load_dataset(data).train.split(0.2)
    tuning = fastnn.tune(learned, judged, trials=5, epochs=4, device="numpy", seed=2, l2=0.1)
    assert report["space"] == tuning.space
    assert report["best"] == tuning.best.number
    for ours, theirs in zip(report["trials"], tuning.trials, strict=True):
        assert tuple(ours.pop("hidden")) == theirs.hidden
        assert ours == {name: getattr(theirs, name) for name in ours}
    assert (report["command"], report["device"]["name"]) == ("tune", "numpy")
    assert report["study"] is report["model"] is None
    assert report["suggestion"] == tuning.suggestion
    assert tune("--seed", 2, "--l2", 0.1, "--json", "-q").err == ""


def test_of_very_few_samples(tune):
    result = tune("--validation", 48)  # of 63
    assert result.code == 0
    assert "hidden 30, 60, 100; batch 10; η " in result.err


def test_the_test_set_decides_nothing(tune, run, arrays, tmp_path):
    before = tune("--json").json
    np.savez(tmp_path / "small.npz", **{**arrays, "y_test": (arrays["y_test"] + 1) % 3})
    after = tune("--json").json
    assert after["test"] != before["test"]
    assert (after["trials"], after["train"]) == (before["trials"], before["train"])


def test_a_study_goes_on(tune, run, tmp_path):
    assert tune("--study", "study.db", "--trials", 2).code == 0
    result = tune("--study", "study.db")
    assert "study    2 of 5 trials are done" in result.err
    shown = [line[:9] for line in result.err.splitlines() if line.startswith("trial ")]
    assert shown == ["trial 3/5", "trial 4/5", "trial 5/5"]
    assert result.out == tune().out
    again = tune("--study", "study.db")
    assert "trial " not in again.err
    assert again.out == result.out
    assert sorted(os.listdir()) == ["small.npz", "study.db"]


def test_where_the_best_comes_to_something_else_it_is_said(tune, tmp_path):
    """As it may where a study goes on elsewhere."""
    assert "trained again" not in tune("--study", "study.db").err
    connection = sqlite3.connect(tmp_path / "study.db")
    connection.execute("UPDATE trial_intermediate_values SET intermediate_value = 1.5")
    connection.commit()
    connection.close()
    last = tune("--study", "study.db").err.splitlines()[-1]
    assert re.fullmatch(r"note     trained again, on numpy, it came to [\d.]+ %", last)


@pytest.mark.parametrize("flags", ["--eta 0.5 --epochs 40", "--hidden 3,3,3,3 --eta 1e-9"])
def test_where_nothing_is_learned_it_is_said(tune, flags):
    result = tune(*flags.split())
    said = re.findall(r"nothing is learned: the commonest class alone is (.*) %;", result.err)
    best = percents(result.out)[0]
    assert said == (["46.15"] if best <= 46.15 else [])
    assert bool(said) == ("1e-9" in flags)


def test_where_all_trials_diverge(tune):
    flags = "--activation relu --output identity --cost squared-error --eta 1e30 --save model"
    result = tune(*flags.split())
    assert result.code == 5
    assert result.err.count("diverged in epoch 1") == 5
    assert result.err.splitlines()[-1].startswith("fastnn: all 5 trials diverged")
    assert (result.out, os.listdir()) == ("", ["small.npz"])


WATCHED = ["--trials", "100000", "--epochs", "4", "--device", "numpy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_process(start, tune, data, number):
    process = start("tune", "--data", data, *WATCHED, "--study", "study.db")
    for line in process.stderr:
        if line.startswith(b"trial      3/"):
            break
    process.send_signal(number)
    out, err = (each.decode() for each in process.communicate(timeout=60))
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert "Traceback" not in err
        last = err.splitlines()[-1]
        said = r"interrupted after (\d+) of 100000 trials; the same command goes on with study\.db"
        assert int(re.fullmatch(said, last)[1]) >= 3
        assert "the best:" in out
        assert out.splitlines()[-1].startswith("fastnn train ")  # and no test accuracy
    study = tune("--study", "study.db", "--json").json["trials"]
    assert study[:5] == tune("--json").json["trials"]
    assert sorted(os.listdir()) == ["small.npz", "study.db"]


def test_ctrl_c_in_the_first_trial(start, data, tmp_path):
    prepare = """
import signal, fastnn
real = fastnn.tune
def tune(*args, on_start, **how):
    return real(*args, on_start=lambda _: signal.raise_signal(signal.SIGINT), **how)
fastnn.tune = tune
"""
    process = start("tune", "--data", data, *WATCHED, prepare=prepare)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert err.decode().splitlines()[-1] == "interrupted after 0 of 100000 trials"


SLOW = """
import time, fastnn.tuning as tuning
real = tuning.range_test
def range_test(*args, on_rate=None, **how):
    def slowly(*seen):
        ends = on_rate and on_rate(*seen)
        time.sleep(1)
        return ends
    return real(*args, on_rate=slowly, **how)
tuning.range_test = range_test
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_rates_are_tried(start, data, tmp_path, number):
    process = start("tune", "--data", data, *WATCHED, "--study", "study.db", prepare=SLOW)
    for line in process.stderr:
        if line.startswith(b"rate "):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert err.decode().splitlines() == ["interrupted after 0 of 100000 trials"]
    assert os.listdir(tmp_path) == ["small.npz"]


def test_it_says_where_no_rate_is_suggested(tune):
    flags = ["--clip-norm", 1e-9, "--trials", 1]
    result = tune(*flags, "--study", "study.db")
    said = "rate     no rate lowers the cost by a tenth: the optimiser's default stands in"
    shown = [line for line in result.err.splitlines() if line.startswith(("rate ", "search "))]
    assert shown[1] == said
    assert "η 0.05 to 2.5" in shown[2]
    assert said in tune(*flags, "--study", "study.db").err
    assert said not in tune(*flags, "--eta", 1).err


def test_on_a_terminal_there_is_a_bar(on_terminal_of, data):
    slow = SLOW.replace("sleep(1)", "sleep(0.01)")
    out, shown = on_terminal_of("tune", "--data", data, *map(str, QUICK), prepare=slow)
    assert "━" in shown
    assert re.search(r"rate [^ ]*━[^ ]* η \S+  cost [\d.]+", shown)
    assert re.search(r"trial (1/5|\d, trained again) +(\x1b\[[\d;]*m)*━", shown)
    assert len(re.findall(r"trial \d/5  hidden", re.sub(r"\x1b\[[\d;]*m", "", shown))) == 5
    assert "\x1b" not in out


def test_its_help_says_what_is_searched(run):
    text = " ".join(run("tune", "--help").out.split())
    for option in ("--hidden", "--batch-size", "--learning-rate", "--l2"):
        assert re.search(rf"{option}\b[^\[]*\[default: \(searched\)\]", text), option
    assert "(searched)" not in run("train", "--help").out


REFUSED = [
    (2, "--trials", "--trials 0"),
    (2, "--trials", "--trials many"),
    (2, "--epochs", "--epochs 0"),
    (2, "--patience", "--patience 0"),
    (2, "neither a part, like 0.1", "--validation 0"),
    (2, "a number of samples from 1 to 62", "--validation 63"),
    (2, "--batch-size full", "--batch-size 51"),
    (2, "neither a size", "--hidden x"),
    (2, "2 activations", "--activation tanh,relu"),
    (2, "must be a number above 0", "--eta 0"),
    (2, "--l2 must be a number, 0 or more", "--l2 -1"),
    (2, "shrinks the weights to nothing", "--l2 1e9"),
    (2, "Did you mean 'adam'?", "--optimiser adma"),
    (2, "are of sgd; adam has its own", "--optimiser adam --momentum 0.9"),
    (2, "softmax goes with 'log-likelihood'", "--output softmax"),
    (2, "nothing is left to search for", "--hidden 3 --eta 1 --l2 0 --batch-size 5"),
    (2, "--save and --study name the same place", "--save x.db --study ./x.db"),
    (2, "No such option", "--schedule cosine"),
    (3, "known: auto", "--device warp"),
    (4, "No such file", "--data nowhere.npz"),
    (1, "holds something other than a study of ours", "--study thesis"),
    (1, "holds something other than a study of ours", "--study small.npz"),
    (1, "it is a folder", "--study folder"),
    (1, "No such file or directory", "--study no/where.db"),
    (1, "cannot write", "--study /proc/study.db"),
    (1, "it is a folder", "--save folder"),
    (1, "cannot write small.npz", "--save small.npz"),
]


@pytest.mark.parametrize(("code", "says", "flags"), REFUSED)
def test_what_makes_no_sense_is_refused(refused, data, tmp_path, code, says, flags):
    (tmp_path / "folder").mkdir()
    (tmp_path / "thesis").write_text("It was a dark and stormy night.")
    before = sorted(os.listdir())
    refused(code, says, "tune", "--data", data, *flags.split())
    assert sorted(os.listdir()) == before
    assert (tmp_path / "thesis").read_text() == "It was a dark and stormy night."


def test_a_study_of_something_else(refused, tune, data, tmp_path):
    tune("--study", "study.db", "--trials", 1)
    before = (tmp_path / "study.db").read_bytes()
    args = ["tune", "--data", data, *QUICK, "--study", "study.db"]
    refused(2, "began with l2 searched, and cannot go on with 1.0", *args, "--l2", 1)
    refused(2, "began with epochs 4, and cannot go on with 5", *args, "--epochs", 5)
    refused(4, "the training set is not the one", *args, "--validation", 5)
    refused(4, "the training set is not the one", *args, "--data", "digits")
    assert (tmp_path / "study.db").read_bytes() == before


def test_without_optuna(refused, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    says = ["needs Optuna", "pip install -e '.[tune]'"]
    refused(2, says, "tune", "--data", data)
    assert os.listdir() == ["small.npz"]


def test_a_study_that_is_in_use(start, refused, data, tmp_path):
    process = start("tune", "--data", data, *WATCHED, "--study", "study.db", "-q")
    deadline = time.monotonic() + 30
    while not (tmp_path / "study.db").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    refused(1, "another process is at work on", "tune", "--data", data, "--study", "study.db")
