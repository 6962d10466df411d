"""The search for hyper-parameters: what it tries, what it leaves early, and that it goes on."""

import inspect
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

import fastnn
from fastnn import ArgumentError, DataError, ModelError, OutputError, train, tune
from fastnn.backends.numpy_cpu import NumpyBackend

pytest.importorskip("optuna", reason="the extra 'tune' is not installed")

EPOCHS = 6


@pytest.fixture(scope="module")
def sets():
    digits = fastnn.load_dataset("digits").train
    return fastnn.Dataset(digits.x[:400], digits.labels[:400]).split(0.25)


@pytest.fixture(scope="module")
def few():
    """So few samples of so few features that a hundred trials take a second or two."""
    made = fastnn.synthetic(36, 12, 4, 2, seed=3)
    return made.train, made.test


def search(sets, **how):
    return tune(*sets, **{"trials": 9, "epochs": EPOCHS, "device": "numpy", **how})


@pytest.fixture(scope="module")
def straight(sets):
    """A search that was not ended, and the accuracies of each trial by epoch."""
    courses = [[]]

    def on_trial(tried):
        courses.append([])

    def on_epoch(epoch):
        courses[-1].append(epoch.validation_accuracy)

    tuning = search(sets, on_trial=on_trial, on_epoch=on_epoch)
    assert courses.pop() == []
    return tuning, courses


def test_the_same_seed_gives_the_same_trials_also_in_a_file(sets, straight, tmp_path):
    trials = straight[0].trials
    assert [tried.number for tried in trials] == [*range(1, 10)]
    assert search(sets).trials == trials
    assert search(sets, study=tmp_path / "study.db").trials == trials
    assert os.listdir(tmp_path) == ["study.db"]
    drawn = [{**asdict(tried), "validation_accuracy": None} for tried in trials]
    assert len({str(each["learning_rate"]) for each in drawn}) == 9
    other = search(sets, seed=1, trials=3).trials
    assert [tried.learning_rate for tried in other[1:]] != [
        tried.learning_rate for tried in trials[1:3]
    ]


def test_one_that_is_ended_again_and_again_comes_to_the_same_trials(sets, straight, tmp_path):
    seen, ends = [], []
    for calls in (1, 4, 11, 3, 18):  # epochs until it is ended
        left = iter(range(calls - 1, -1, -1))
        tuning = search(
            sets,
            study=tmp_path / "study.db",
            on_start=lambda tuning: seen.append(len(tuning.trials)),
            on_epoch=lambda epoch, left=left: np.bool(next(left) == 0),
        )
        ends.append(len(tuning.trials))
    assert seen == [0, *ends[:-1]]
    assert 0 in ends
    assert 9 > ends[-1] > 1
    assert search(sets, study=tmp_path / "study.db").trials == straight[0].trials


def test_one_that_goes_on_to_more_trials(sets, straight, tmp_path):
    for trials in (1, 4, 2, 9):
        tuning = search(sets, study=tmp_path / "study.db", trials=trials)
    assert tuning.trials == straight[0].trials
    begun = search(sets, study=tmp_path / "study.db", trials=3, on_epoch=lambda _: 1 / 0)
    assert begun == tuning  # nothing was left to try


def test_one_that_is_killed_before_the_first_draw(sets, straight, tmp_path, monkeypatch):
    import optuna

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "ask", lambda _: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            search(sets, study=tmp_path / "study.db")
    assert states_in(tmp_path / "study.db") == ["WAITING"]
    assert search(sets, study=tmp_path / "study.db", trials=2).trials == straight[0].trials[:2]


KILLED = """
import os, signal, sys, fastnn
digits = fastnn.load_dataset("digits").train
sets = fastnn.Dataset(digits.x[:400], digits.labels[:400]).split(0.25)
left = iter(range(int(sys.argv[2]), -1, -1))
def on_epoch(_):
    if next(left) == 0:
        os.kill(os.getpid(), signal.SIGKILL)
fastnn.tune(*sets, trials=9, epochs=6, device="numpy", study=sys.argv[1], on_epoch=on_epoch)
"""


def states_in(path):
    connection = sqlite3.connect(path)
    states = connection.execute("SELECT state FROM trials").fetchall()
    connection.close()
    return [state for (state,) in states]


def test_one_that_is_killed_comes_to_the_same_trials(sets, straight, tmp_path):
    path = tmp_path / "study.db"
    for epochs in (0, 13):
        ran = subprocess.run([sys.executable, "-c", KILLED, path, str(epochs)], check=False)
        assert ran.returncode == -9
    assert "RUNNING" in states_in(path)  # the one that was under way
    (
        tmp_path / ".fastnn-study.db-0123456789abcdef.tmp"
    ).touch()  # as it is left in the middle of the writing
    assert search(sets, study=path).trials == straight[0].trials
    assert "RUNNING" not in states_in(path)
    assert os.listdir(tmp_path) == ["study.db"]


def test_trials_are_pruned_by_the_median_of_those_that_were_finished(straight):
    tuning, courses = straight
    finished = []
    for tried, course in zip(tuning.trials, courses, strict=True):
        assert (tried.epochs, tried.validation_accuracy) == (len(course), max(course))
        assert tried.best_epoch == 1 + course.index(max(course))
        below = [
            epoch
            for epoch in range(3, len(course) + 1)
            if len(finished) >= 4
            and max(course[:epoch]) < np.median([each[epoch - 1] for each in finished])
        ]
        if tried.state == "pruned":
            assert below == [tried.epochs]
            assert tried.epochs < EPOCHS
        else:
            assert tried.state == "finished"
            assert tried.epochs == EPOCHS
            assert below in ([], [EPOCHS])
            finished.append(course)
    assert 2 <= len(courses) - len(finished) <= 5  # else this shows nothing


def test_none_is_pruned_that_is_done(sets):
    tuning = search(sets, trials=12, epochs=3)
    assert {(tried.state, tried.epochs) for tried in tuning.trials} == {("finished", 3)}


def test_the_best_epoch_is_the_first_of_equals(few):
    courses = [[]]
    tuning = search(
        few,
        trials=6,
        epochs=8,
        on_epoch=lambda epoch: courses[-1].append(epoch.validation_accuracy),
        on_trial=lambda _: courses.append([]),
    )
    for tried, course in zip(tuning.trials, courses, strict=False):
        assert tried.best_epoch == 1 + course.index(max(course))
    assert any(course.count(max(course)) > 1 for course in courses[:-1])


def test_a_trial_ends_where_nothing_improves(sets):
    tuning = search(sets, trials=3, epochs=300, patience=2)
    for tried in tuning.trials:
        assert tried.epochs == tried.best_epoch + 2 < 300


def test_what_is_drawn_lies_in_the_space(few):
    tuning = search(few, trials=60, epochs=1, patience=1)
    assert tuning.space.keys() == {"hidden", "batch_size", "learning_rate", "l2"}
    assert tuning.space["hidden"] == [30, 60, 100]
    assert tuning.space["batch_size"] == [10, 20]  # of 36 samples
    suggestion = fastnn.range_test(fastnn.Network([4, 30, 2], device="numpy"), few[0]).suggestion
    low, high = tuning.space["learning_rate"]
    assert (low, high) == (
        pytest.approx(suggestion / 10, rel=1e-2), pytest.approx(5 * suggestion, rel=1e-2),
    )  # fmt: skip
    weakest, strongest = tuning.space["l2"]
    assert (weakest, strongest) == (pytest.approx(36e-6), pytest.approx(36e-3))
    first, *others = tuning.trials
    assert (first.hidden, first.batch_size, first.l2) == ((30,), 10, 0)
    assert first.learning_rate == pytest.approx(suggestion, rel=1e-2)
    for tried in others:
        assert low <= tried.learning_rate <= high
        assert tried.l2 == 0 or weakest <= tried.l2 <= strongest
        assert tried.batch_size in (10, 20)
        assert tried.hidden in ((30,), (60,), (100,))
        for number in (tried.learning_rate, tried.l2):
            assert float(f"{number:.3g}") == number
    penalties = [tried.l2 for tried in others]
    assert 3 < penalties.count(0) < 50
    assert min(filter(None, penalties)) < 1e-3 < 1e-2 < max(penalties)
    assert len({tried.hidden for tried in others}) == 3


@pytest.mark.parametrize(("n", "sizes"), [(5, [5]), (15, [10])])
def test_of_few_samples_there_is_but_one_size_of_mini_batches(n, sizes):
    made = fastnn.synthetic(n, 6, 4, 2, seed=3)
    tuning = search((made.train, made.test), trials=4, epochs=2)
    assert tuning.space["batch_size"] == sizes
    assert [tried.batch_size for tried in tuning.trials] == sizes * 4


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"batch_size": 7}, {"batch_size": 7}),
        ({"batch_size": None}, {"batch_size": None}),
        ({"hidden": [5, 4]}, {"hidden": (5, 4)}),
        ({"hidden": []}, {"hidden": ()}),
        ({"learning_rate": 0.123456}, {"learning_rate": 0.123456}),
        ({"l2": 0}, {"l2": 0}),
        ({"hidden": [3], "l2": 0.5, "batch_size": 36}, {"hidden": (3,), "l2": 0.5}),
    ],
)
def test_what_is_given_is_not_searched_for(few, given, shown):
    tuning = search(few, trials=4, epochs=2, **given)
    assert not given.keys() & tuning.space.keys()
    assert len(tuning.space) == 4 - len(given)
    for tried in tuning.trials:
        assert {name: getattr(tried, name) for name in shown} == shown


def test_where_no_rate_is_suggested_the_default_stands_in(few, tmp_path):
    how = {"epochs": 1, "clip_norm": 1e-9}  # which learns nothing
    for trials in (1, 2):
        tuning = search(few, study=tmp_path / "study.db", trials=trials, **how)
        assert tuning.suggestion is None
        assert tuning.space["learning_rate"] == [0.05, 2.5]
        assert tuning.trials[0].learning_rate == 0.5
    tuning = search(few, trials=1, epochs=1)
    assert tuning.suggestion == tuning.trials[0].learning_rate
    assert search(few, trials=1, epochs=1, learning_rate=0.5).suggestion is None


@pytest.mark.parametrize("begun", [False, True])
def test_it_may_end_while_rates_are_tried(few, tmp_path, begun):
    seen, study = [], tmp_path / "study.db"
    if begun:
        search(few, study=study, trials=1, epochs=1)

    def on_rate(rate, cost):
        seen.append(rate)
        return len(seen) == 3

    tuning = search(few, study=study, trials=2, epochs=1, on_rate=on_rate)
    if begun:  # and the rate is known
        assert (seen, len(tuning.trials)) == ([], 2)
    else:
        assert len(seen) == 3
        assert (tuning.space, tuning.suggestion, tuning.trials) == ({}, None, [])
        assert (tuning.best, os.listdir(tmp_path)) == (None, [])
        search(few, trials=1, epochs=1, learning_rate=1.0, on_rate=lambda *_: 1 / 0)


def test_a_penalty_that_is_given_bounds_the_rate(few):
    tuning = search(few, trials=20, epochs=1, l2=360.0)  # of 36 samples: a rate of 0.1 is too much
    assert tuning.space["learning_rate"][1] == pytest.approx(0.09)
    assert all(tried.learning_rate < 0.1 for tried in tuning.trials)


HOW = {
    "activation": "tanh",
    "output": "softmax",
    "cost": "log-likelihood",
    "init": "glorot",
    "dtype": "float64",
    "optimiser": fastnn.SGD(0.5, nesterov=True),
    "l1": 0.01,
    "dropout": 0.1,
    "class_weights": "balanced",
    "clip_norm": 2.0,
    "schedule": "exponential:0.9",
    "shuffle": False,
    "fused": False,
    "threads": 1,
}


def test_the_best_is_what_a_training_by_its_settings_comes_to(sets):
    tuning = search(sets, trials=4, seed=5, **HOW)
    accuracies = [tried.validation_accuracy for tried in tuning.trials]
    best = tuning.best
    assert best.validation_accuracy == max(accuracies)
    network, history = tuning.train_best()
    shape = {name: HOW[name] for name in ("activation", "output", "cost", "init", "dtype")}
    how = {name: HOW[name] for name in HOW if name not in shape}
    same = fastnn.Network([64, *best.hidden, 10], device="numpy", seed=5, **shape)
    told = {"epochs": EPOCHS, "patience": 10, "seed": 5, **how, **best.settings}
    again = train(same, sets[0], None, sets[1], **told)
    assert history.best_epoch == again.best_epoch == best.best_epoch
    assert history.epochs[best.best_epoch - 1].validation_accuracy == best.validation_accuracy
    assert fastnn.evaluate(network, sets[1]).accuracy == best.validation_accuracy
    for ours, theirs in zip(network.weights, same.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


WILD = {"activation": "relu", "output": "identity", "cost": "squared-error", "init": "he"}


def test_a_trial_that_diverges_is_noted_and_the_others_go_on(sets, monkeypatch):
    monkeypatch.setattr("fastnn.tuning.HIGHEST_RATE", 1e4)
    tuning = search(sets, trials=12, epochs=3, **WILD)
    states = [tried.state for tried in tuning.trials]
    assert {"diverged", "finished"} <= set(states)
    assert len(states) == 12
    assert tuning.best.state == "finished"


def test_where_all_diverge_there_is_no_best(few):
    tuning = search(few, trials=3, learning_rate=1e30, **WILD)
    assert [tried.state for tried in tuning.trials] == ["diverged"] * 3
    assert {tried.validation_accuracy for tried in tuning.trials} == {None}
    assert tuning.best is None
    with pytest.raises(ArgumentError, match="no trial has finished"):
        tuning.train_best()


def test_it_says_nothing_and_leaves_the_log_as_it_was(few, tmp_path, capfd):
    import optuna

    level = logging.getLogger("optuna").level
    search(few, trials=2, epochs=1, study=tmp_path / "study.db")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("optuna").level == level
    # What it leaves is Optuna's own, for its other programs.
    study = optuna.load_study(study_name="fastnn", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert study.best_value == max(trial.value for trial in study.trials)
    assert study.trials[0].params["hidden"] == 30


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"epoch": 3}, ArgumentError, "unknown setting 'epoch'"),
        ({"dropuot": 0.5}, ArgumentError, "unknown setting"),
        ({"checkpoint": None}, ArgumentError, "unknown setting"),
        ({"trials": 0}, ArgumentError, "trials must be a whole number"),
        ({"epochs": 0}, ArgumentError, "epochs must be a whole number"),
        ({"patience": 0}, ArgumentError, "patience must be a whole number"),
        ({"seed": -1}, ArgumentError, "seed must be a whole number"),
        ({"study": 3}, ArgumentError, "a study's file must have a name, not 3"),
        ({"study": ""}, ArgumentError, "a study's file must have a name, not ''"),
        ({"shuffle": "no"}, ArgumentError, "shuffle must be True or False"),
        *(
            ({f"on_{what}": 3}, ArgumentError, f"on_{what} must be a function")
            for what in ("rate", "start", "trial", "epoch", "call")
        ),
        ({"batch_size": 37}, ArgumentError, "more than the 36 training samples"),
        ({"learning_rate": "fast"}, ArgumentError, "learning_rate must be a number above 0"),
        ({"learning_rate": -1}, ArgumentError, "learning_rate must be a number above 0"),
        ({"l2": -1}, ArgumentError, "l2 must be a number"),
        ({"l2": 1e9}, ArgumentError, "shrinks the weights to nothing"),
        ({"hidden": 30}, ArgumentError, "hidden must be a list of sizes, not 30"),
        ({"hidden": [0]}, ArgumentError, "a layer's size must be a whole number"),
        ({"activation": "sigmod"}, ArgumentError, "Did you mean 'sigmoid'"),
        ({"optimiser": "adma"}, ArgumentError, "Did you mean 'adam'"),
        ({"schedule": "cosin"}, ArgumentError, "Did you mean 'cosine'"),
        ({"device": "warp"}, fastnn.DeviceError, "known: auto"),
        ({"threads": 0}, ArgumentError, "threads must be a whole number"),
        (
            {"hidden": [3], "batch_size": 9, "learning_rate": 1.0, "l2": 0.0},
            ArgumentError,
            "nothing is left to search for",
        ),
        ({"validation": (np.zeros((2, 3)), [0, 1])}, DataError, "have 3 numbers each"),
        ({"validation": None}, ArgumentError, "a set of samples is a Dataset or a pair"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(few, tmp_path, how, error, says):
    given = {"train_set": few[0], "validation": few[1], "study": tmp_path / "study.db"}
    with pytest.raises(error, match=says):
        tune(**{**given, "device": "numpy", "epochs": 1, **how})
    assert os.listdir(tmp_path) == []


def test_without_optuna_the_sentence_says_how_to_have_it(few, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ArgumentError, match=r"needs Optuna.*pip install -e '\.\[tune\]'"):
        tune(*few)


@pytest.fixture
def study(few, tmp_path):
    """The path of a study of two trials."""
    search(few, trials=2, epochs=2, study=tmp_path / "study.db")
    return tmp_path / "study.db"


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"epochs": 3}, ArgumentError, "began with epochs 2, and cannot go on with 3"),
        ({"patience": 3}, ArgumentError, "patience 10, and cannot go on with 3"),
        ({"seed": 3}, ArgumentError, "seed 0, and cannot go on with 3"),
        ({"l2": 0.0}, ArgumentError, "l2 searched, and cannot go on with 0.0"),
        ({"hidden": [30]}, ArgumentError, "hidden searched, and cannot go on with 30"),
        ({"activation": "tanh"}, ArgumentError, "activations sigmoid-sigmoid"),
        ({"cost": "quadratic"}, ArgumentError, "cost cross-entropy, and"),
        ({"init": "normal"}, ArgumentError, "init scaled, and"),
        ({"dtype": "float64"}, ArgumentError, "dtype float32, and cannot go on with float64"),
        ({"optimiser": fastnn.SGD(0.9)}, ArgumentError, r"sgd \(momentum 0.0, nesterov False\)"),
        ({"dropout": 0.5}, ArgumentError, "dropout none, and cannot go on with 0.0,0.5"),
        ({"class_weights": [1, 2]}, ArgumentError, "class weights none, .* go on with 1.0,2.0"),
        ({"l1": 0.1}, ArgumentError, "l1 0.0, and cannot go on with 0.1"),
        ({"clip_norm": 1.0}, ArgumentError, "clip norm none, and cannot go on with 1.0"),
        ({"schedule": "cosine"}, ArgumentError, r"constant \(warm_up 0\), and"),
        ({"shuffle": False}, ArgumentError, "shuffle True, and"),
    ],
    ids=str,
)
def test_a_study_goes_on_by_what_it_began_with(few, study, how, error, says):
    before = study.read_bytes()
    with pytest.raises(error, match=says):
        search(few, **{"study": study, "trials": 3, "epochs": 2, **how})
    assert study.read_bytes() == before


def test_a_study_of_another_space(few, study, monkeypatch):
    """As of another version."""
    monkeypatch.setattr("fastnn.tuning.HIGHEST_RATE", 6.0)
    with pytest.raises(ArgumentError, match="began with space "):
        search(few, study=study, trials=3, epochs=2)


def test_a_study_of_a_setting_that_is_not_known_here(few, study):
    """As of a later version."""
    foreign(
        study,
        """UPDATE study_user_attributes
        SET value_json = json_set(value_json, '$.told.colour', 'blue')""",
    )
    with pytest.raises(ArgumentError, match="began with colour blue, and cannot go on with none"):
        search(few, study=study, trials=3, epochs=2)


def test_a_study_goes_on_with_its_data(few, study):
    learned, judged = few
    other = fastnn.Dataset(judged.x, 1 - judged.labels)
    with pytest.raises(DataError, match="the validation set is not the one that the study in"):
        search((learned, other), study=study, trials=3, epochs=2)
    with pytest.raises(DataError, match="the training set is not the one that the study in"):
        search((other, judged), study=study, trials=3, epochs=2)


def test_a_study_goes_on_with_its_precision(few, study):
    class Rounding(NumpyBackend):
        precision = "tf32"

    with pytest.raises(ArgumentError, match="precision full, and cannot go on with tf32"):
        search(few, study=study, trials=3, epochs=2, device=Rounding())


@pytest.mark.parametrize(
    "given",
    [
        {"batch_size": 20, "learning_rate": 0.5, "l1": 0.5},
        {"hidden": [5], "class_weights": [1.0, 2.0], "clip_norm": 3.0, "seed": 4},
    ],
    ids=str,
)
def test_a_number_of_numpys_is_the_same_one(few, tmp_path, given):
    search(few, study=tmp_path / "study.db", trials=1, epochs=2, **given)
    same = {name: np.array(value)[()] for name, value in given.items()}
    search(few, study=tmp_path / "study.db", trials=1, epochs=np.int64(2), **same)


def test_a_study_knows_all_that_a_training_is_told(few, study):
    """A new argument of train is either a setting, which a study compares, or a search's own."""
    own = {"network", "train_set", "test", "validation", "epochs", "patience", "seed"}
    own |= {"checkpoint", "profile", "on_epoch", "on_call"}
    arguments = inspect.signature(train).parameters.keys()
    assert {*own, *fastnn.tuning.TRAINING} == arguments
    assert not own & fastnn.tuning.TRAINING
    connection = sqlite3.connect(study)
    ((about,),) = connection.execute("SELECT value_json FROM study_user_attributes").fetchall()
    connection.close()
    assert fastnn.tuning.TRAINING - json.loads(about)["told"].keys() == {"fused", "threads"}


def test_a_study_goes_on_elsewhere(few, study):
    free = {
        "device": "numba",
        "fused": False,
        "threads": 1,
        "optimiser": "sgd",
        "l1": 0,
        "dropout": [0, 0],
        "schedule": "constant",
        "shuffle": True,
    }
    tuning = search(few, study=study, trials=3, epochs=2, **free)
    assert [tried.number for tried in tuning.trials] == [1, 2, 3]


def test_no_two_at_once(few, study):
    def on_start(_):
        with pytest.raises(OutputError, match="another process is at work on that study"):
            search(few, study=study, trials=4, epochs=2)

    assert len(search(few, study=study, trials=3, epochs=2, on_start=on_start).trials) == 3


def test_a_file_that_is_named_like_a_lock_is_left_alone(few, tmp_path):
    (tmp_path / "Cargo.lock").write_text("of another program")
    search(few, study=tmp_path / "Cargo", trials=1, epochs=1)
    assert (tmp_path / "Cargo.lock").read_text() == "of another program"
    assert sorted(os.listdir(tmp_path)) == ["Cargo", "Cargo.lock"]


def test_two_studies_with_long_names_are_two(few, tmp_path):
    first, second = ("η" * 120 + each for each in "12")  # 241 bytes, of 255 that a name may have

    def on_start(_):
        search(few, study=tmp_path / second, trials=1, epochs=1)

    search(few, study=tmp_path / first, trials=1, epochs=1, on_start=on_start)
    assert sorted(os.listdir(tmp_path)) == [first, second]


def test_where_there_can_be_no_lock(few, tmp_path):
    (tmp_path / ".fastnn-study.db-lock").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*/\.fastnn-study\.db-lock: Is a"):
        search(few, study=tmp_path / "study.db")
    assert os.listdir(tmp_path) == [".fastnn-study.db-lock"]


def foreign(path, script):
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()


def anothers_study(path):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    optuna.create_study(storage=storage, study_name="thesis")
    storage.engine.dispose()


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda path: path.write_text("It was a dark night."), OutputError, "something other than"),
        (lambda path: foreign(path, "CREATE TABLE a (b)"), OutputError, "something other than a"),
        (anothers_study, OutputError, "something other than a study of ours"),
        (lambda path: path.mkdir(), OutputError, "it is a folder"),
        (lambda path: os.mkfifo(path), OutputError, "not an ordinary file"),
        (
            lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 20),
            ModelError,
            "is damaged",
        ),
    ],
)
def test_files_that_will_not_do(few, tmp_path, make, error, says):
    path = tmp_path / "study.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(error, match=says):
        search(few, study=path)
    assert os.listdir(tmp_path) == ["study.db"]
    assert before is None or path.read_bytes() == before


def test_places_that_will_not_do(few, tmp_path):
    for path in (tmp_path / "no" / "where.db", "/proc/study.db", "\0"):
        with pytest.raises(OutputError, match="cannot write"):
            search(few, study=path)
    # SQLite would fill a new file from the journal of one that was deleted.
    (tmp_path / "study.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))
    with pytest.raises(OutputError, match="is left of a file that is gone"):
        search(few, study=tmp_path / "study.db")


@pytest.mark.parametrize("name", ["a b?c=d#%20{x}.db", "η.sqlite", "link.db", "empty.db"])
def test_a_file_of_any_name(few, tmp_path, name):
    if name == "link.db":
        (tmp_path / name).symlink_to(tmp_path / "real.db")
    if name == "empty.db":
        (tmp_path / name).touch()
    for trials in (1, 2):
        tuning = search(few, study=tmp_path / name, trials=trials, epochs=1)
    assert len(tuning.trials) == 2
    expected = [name, "real.db"] if name == "link.db" else [name]
    assert sorted(os.listdir(tmp_path)) == expected


def test_a_file_that_is_damaged_is_never_a_traceback(few, study):
    whole, generator, ends = study.read_bytes(), np.random.default_rng(0), []
    for _ in range(60):
        content = bytearray(whole)
        if generator.random() < 0.2:
            del content[generator.integers(1, len(content)) :]
        for at in generator.integers(16, len(content), 40) if len(content) > 16 else []:
            content[at] = generator.integers(256)
        study.write_bytes(content)
        try:
            search(few, study=study, trials=3, epochs=2)
        except (ArgumentError, DataError, ModelError, OutputError) as error:
            ends.append(str(error))
        study.unlink(missing_ok=True)
        for remains in study.parent.iterdir():
            remains.unlink()
    assert len(ends) > 30
    assert sum("damaged" in end for end in ends) > 20


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("UPDATE study_user_attributes SET value_json = '3'", "is damaged"),
        ("UPDATE study_user_attributes SET value_json = '{'", "is damaged"),
        ("DELETE FROM study_user_attributes", "is damaged"),
        ("UPDATE alembic_version SET version_num = 'v9.9.9'", "of another version of Optuna"),
        ("DELETE FROM trial_params", "is damaged"),
        (
            """UPDATE study_user_attributes
            SET value_json = json_set(value_json, '$.suggestion', 'fast')""",
            "is damaged",
        ),
        ("UPDATE trial_params SET distribution_json = '{}'", "is damaged"),
        ("DROP TABLE trials", "is damaged"),
    ],
)
def test_contents_that_make_no_sense(few, study, wrong, says):
    foreign(study, wrong)
    with pytest.raises(ModelError, match=says):
        search(few, study=study, trials=3, epochs=2)


def test_a_disk_that_is_full_keeps_the_trials_before(few, study):
    def fill(_):
        connection = sqlite3.connect(study)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.close()
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 * pages, resource.RLIM_INFINITY))

    import resource

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(OutputError, match=r"cannot write .*study\.db"):
            search(few, study=study, trials=500, epochs=2, on_start=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        signal.signal(signal.SIGXFSZ, before)
    seen = []
    tuning = search(
        few, study=study, trials=1, epochs=2, on_start=lambda now: seen.append(len(now.trials))
    )
    assert seen == [len(tuning.trials)]
    assert seen[0] >= 2
