"""A training that goes on from a checkpoint, and what is refused."""

import copy
import dataclasses
import errno
import fcntl
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fastnn.checkpoint
from fastnn import (
    SGD,
    Adam,
    ArgumentError,
    Checkpoint,
    DataError,
    Dataset,
    Diverged,
    ModelError,
    Network,
    OutputError,
    train,
)
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.model_file import read
from fastnn.outputs import clear_remains
from fastnn.testing import StrictBackend

OPTIONS = {
    "sgd": {},
    "l2": {"l2": 0.3},
    "momentum": {"optimiser": SGD(0.9), "learning_rate": 0.1},
    "nesterov": {"optimiser": SGD(0.8, nesterov=True), "learning_rate": 0.1, "l2": 0.1},
    "adam": {"optimiser": "adam", "learning_rate": 0.01},
    "all": {
        "optimiser": Adam(beta1=0.8),
        "learning_rate": 0.03,
        "l1": 0.01,
        "l2": 0.2,
        "clip_norm": 1.5,
        "schedule": fastnn.StepDecay(2, 0.7, warm_up=2),
    },
    "weights": {"class_weights": [1, 0.3, 2]},
    "plateau": {"schedule": "plateau:1", "learning_rate": 2},
    "patience": {"patience": 2, "learning_rate": 3},
    "dropout": {"dropout": [0.1, 0.4]},
    "as they lie": {"shuffle": False, "batch_size": None},
}

SETS = [fastnn.synthetic(n, 1, 16, 3, seed=seed).train for n, seed in ((103, 0), (41, 1), (57, 2))]


def network(device="numpy", seed=4, **options):
    return Network([16, 7, 3], device=device, seed=seed, **options)


def run(folder=None, *, on=None, to=6, sets=SETS, **options):
    """Train, and return the network and its history; into the folder, if there is one."""
    on = on if on is not None else network()
    learned, validation, test = sets
    return on, train(on, learned, test, validation, epochs=to, checkpoint=folder, **options)


def timeless(history):
    """All that a history says but for the times."""
    epochs = [
        dataclasses.replace(epoch, seconds=0.0, samples_per_second=0.0) for epoch in history.epochs
    ]
    return epochs, history.learning_rates, history.best_epoch, history.step


def same(one, other):
    """Whether two networks have the same bits."""
    return all(
        a.tobytes() == b.tobytes()
        for a, b in zip((*one.weights, *one.biases), (*other.weights, *other.biases), strict=True)
    )


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("device", ["numpy", "numba", StrictBackend], ids=str)
def test_it_goes_on_to_the_same_bits(tmp_path, device, options):
    def new(seed=4):
        return network(device if isinstance(device, str) else device(dtype="float32"), seed)

    expected, whole = run(on=new(), **options)
    run(Checkpoint(tmp_path / "run"), on=new(), to=2, **options)
    run(Checkpoint(tmp_path / "run", resume=True), on=new(5), to=3, **options)
    resumed, history = run(Checkpoint(tmp_path / "run", resume=True), on=new(6), **options)
    assert same(resumed, expected)
    assert timeless(history) == timeless(whole)
    assert sorted(os.listdir(tmp_path / "run")) == ["best.safetensors", "last.safetensors"]


def test_float64(tmp_path):
    expected, _ = run(on=network(dtype="float64"))
    run(Checkpoint(tmp_path), on=network(dtype="float64"), to=3)
    resumed, _ = run(Checkpoint(tmp_path, resume=True), on=network(dtype="float64"))
    assert same(resumed, expected)


def test_the_files_are_those_of_a_training_that_was_not_ended(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _, expected = run(Checkpoint(whole), optimiser="adam", learning_rate=0.02)
    for to in (1, 2, 5, 6):
        checkpoint = Checkpoint(parts, resume=to > 1)
        _, history = run(checkpoint, to=to, optimiser="adam", learning_rate=0.02)
    assert timeless(history) == timeless(expected)
    assert (parts / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()
    one, other = (load_file(folder / "last.safetensors") for folder in (parts, whole))
    assert one.keys() == other.keys()
    for name in one.keys() - {"history.seconds", "history.samples_per_second"}:
        assert one[name].tobytes() == other[name].tobytes()


@pytest.mark.parametrize("sets", [SETS, [SETS[0], None, SETS[2]], [SETS[0], None, None]])
def test_the_best_epochs_model_is_kept_and_the_last_ones(tmp_path, sets):
    by = ("validation_accuracy", "test_accuracy", "train_cost")[sets.count(None)]
    _, whole = run(Checkpoint(tmp_path), sets=sets, learning_rate=5, to=8)
    scores = [getattr(epoch, by) for epoch in whole.epochs]
    number = scores.index(min(scores) if by == "train_cost" else max(scores)) + 1
    expected, _ = run(sets=sets, learning_rate=5, to=number)
    assert same(Network.load(tmp_path / "best.safetensors"), expected)
    last, _ = run(sets=sets, learning_rate=5, to=8)
    assert same(Network.load(tmp_path / "last.safetensors"), last)


def test_one_that_is_finished_does_nothing_but_gives_what_it_came_to(tmp_path):
    options = {"patience": 2, "learning_rate": 3, "to": 40}
    expected, whole = run(Checkpoint(tmp_path), **options)
    assert len(whole.epochs) < 40
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def never(*_):
        raise AssertionError("it was trained")

    checkpoint = Checkpoint(tmp_path, resume=True)
    again, history = run(checkpoint, on=network(seed=9), on_epoch=never, on_call=never, **options)
    assert same(again, expected)
    assert history.epochs == whole.epochs
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.fixture
def at_once(monkeypatch):
    """Let what is done beside the training be done before it goes on."""

    class AtOnce(fastnn.checkpoint._Beside):
        def __init__(self, work, *arguments):
            super().__init__(work, *arguments)
            self._thread.join()

    monkeypatch.setattr(fastnn.checkpoint, "_Beside", AtOnce)


def test_every_so_many_epochs_and_at_the_end(at_once, tmp_path):
    seen = []

    def on_epoch(epoch):
        path = tmp_path / "last.safetensors"
        seen.append(load_file(path)["history.train_cost"].size if path.exists() else 0)

    run(Checkpoint(tmp_path, every=3), to=8, on_epoch=on_epoch)
    on_epoch(None)
    assert seen == [0, 0, 0, 3, 3, 3, 6, 6, 8]
    assert Checkpoint(tmp_path, resume=True).every == 3
    assert Checkpoint(tmp_path, every=2, resume=True).every == 2


@pytest.mark.parametrize("how", ["on_epoch", "on_call", "exception", "divergence"])
def test_however_it_ends_the_last_finished_epoch_is_written(tmp_path, how):
    def on_epoch(epoch):
        return how == "on_epoch" and epoch.epoch == 4

    def on_call(progress):
        if progress.epoch == 5:
            if how == "exception":
                raise KeyboardInterrupt
            if how == "divergence":
                ended.backend.gather(
                    np.full((1, 16 * 7), np.nan, np.float32),
                    np.zeros(1, np.int32),
                    0,
                    1,
                    1.0,
                    ended.layers[0].w.reshape(1, -1),
                )
            return how == "on_call"
        return False

    ended = network()
    callbacks = {"on_epoch": on_epoch, "on_call": on_call}
    checkpoint = Checkpoint(tmp_path, every=100)
    raised = {"exception": KeyboardInterrupt, "divergence": Diverged}.get(how)
    if raised:
        with pytest.raises(raised):
            run(checkpoint, on=ended, optimiser="adam", **callbacks)
    else:
        run(checkpoint, on=ended, optimiser="adam", **callbacks)
    resumed, history = run(Checkpoint(tmp_path, resume=True), optimiser="adam")
    expected, whole = run(optimiser="adam")
    assert same(resumed, expected)
    assert timeless(history) == timeless(whole)


# What is refused
# --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """The folder of a training of two epochs."""
    run(Checkpoint(tmp_path / "run"), to=2, optimiser="adam")
    return tmp_path / "run"


def changed(number):
    x, labels = SETS[number].x.copy(), SETS[number].labels
    x[-1, -1] ^= 1
    return [*SETS[:number], Dataset(x, labels), *SETS[number + 1 :]]


WRONG = {
    "training set": (DataError, {"sets": changed(0)}),
    "the training set is not": (DataError, {"sets": [SETS[0].weighted("balanced"), *SETS[1:]]}),
    "validation set": (DataError, {"sets": changed(1)}),
    "test set": (DataError, {"sets": [*SETS[:2], None]}),
    "sizes 16-7-3, and cannot go on with 16-8-3": (
        ArgumentError,
        {"on": Network([16, 8, 3], device="numpy")},
    ),
    "activations sigmoid-sigmoid": (ArgumentError, {"on": network(activation="tanh")}),
    "cost cross-entropy": (ArgumentError, {"on": network(cost="quadratic")}),
    "init scaled": (ArgumentError, {"on": network(init="he")}),
    "dtype float32": (ArgumentError, {"on": network(dtype="float64")}),
    "optimiser adam .beta1 0.9": (ArgumentError, {"optimiser": Adam(beta1=0.8)}),
    "learning rate 0.001, and cannot go on with 0.002": (ArgumentError, {"learning_rate": 0.002}),
    "batch size 10": (ArgumentError, {"batch_size": 11}),
    "l1 0": (ArgumentError, {"l1": 0.1}),
    "l2 0": (ArgumentError, {"l2": 0.1}),
    "dropout none": (ArgumentError, {"dropout": 0.1}),
    "clip norm none": (ArgumentError, {"clip_norm": 1}),
    "class weights none, and cannot go on with balanced": (
        ArgumentError,
        {"class_weights": "balanced"},
    ),
    "class weights none, and cannot go on with 1.0,2.0,0.5": (
        ArgumentError,
        {"class_weights": np.float32([1, 2, 0.5])},
    ),
    "schedule constant .warm_up 0.*cosine": (ArgumentError, {"schedule": "cosine"}),
    "patience none": (ArgumentError, {"patience": 3}),
    "seed 0": (ArgumentError, {"seed": 1}),
    "shuffle True": (ArgumentError, {"shuffle": False}),
}


@pytest.mark.parametrize("says", WRONG)
def test_another_training_is_refused_by_its_difference(folder, says):
    error, change = WRONG[says]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(error, match=says):
        run(Checkpoint(folder, resume=True), **{"optimiser": "adam", **change})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_trainings_checkpoint_is_not_replaced(folder):
    with pytest.raises(OutputError, match=r"go on with that .--resume .*run., or choose another"):
        Checkpoint(folder)
    (folder / "last.safetensors").unlink()
    with pytest.raises(OutputError, match="holds the best model of another training"):
        Checkpoint(folder)
    shutil.copy(folder / "best.safetensors", folder / "last.safetensors")
    # Nor one that has come to be there since.
    late = Checkpoint(folder.parent / "late")
    shutil.copytree(folder, folder.parent / "late")
    with pytest.raises(OutputError, match="holds the checkpoint"):
        run(late)


def test_a_model_does_not_take_a_checkpoints_place(folder):
    with pytest.raises(OutputError, match="something other than a fastnn model"):
        network().save(folder / "last.safetensors")


def test_a_folders_name_is_no_checkpoint(tmp_path):
    data = fastnn.synthetic(train=20, test=1, features=4, classes=2).train
    with pytest.raises(ArgumentError, match=r"must be a fastnn.Checkpoint, not str"):
        fastnn.train(Network([4, 2], device="numpy"), data, checkpoint=str(tmp_path / "run"))


def test_where_there_is_no_checkpoint(tmp_path, folder):
    for path, says in (
        (tmp_path / "none", "it is no folder"),
        (folder / "last.safetensors", "it is no folder"),
        (tmp_path, "it has no last.safetensors"),
    ):
        with pytest.raises(ModelError, match=says):
            Checkpoint(path, resume=True)
    shutil.copy(folder / "best.safetensors", folder / "last.safetensors")
    with pytest.raises(ModelError, match="is a model, and no checkpoint"):
        Checkpoint(folder, resume=True)


def test_where_none_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    for path in ("no/where", "file", "file/run", "x" * 300, "a\0b"):
        with pytest.raises(OutputError, match="cannot write"):
            Checkpoint(tmp_path / path)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_every_is_a_whole_number(tmp_path, every):
    with pytest.raises(ArgumentError, match="every"):
        Checkpoint(tmp_path, every)


def test_every_truncation_is_found(folder):
    path = folder / "last.safetensors"
    whole = path.read_bytes()
    for size in {*range(0, len(whole), 97), *range(40), len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            Checkpoint(folder, resume=True)


def spoiled(*keys, to=None):
    def spoil(told, tensors):
        *before, last = keys
        for key in before:
            told = told[key]
        if to is None:
            del told[last]
        else:
            told[last] = to

    return spoil


def replaced(name, array=None):
    def replace(told, tensors):
        if array is None:
            del tensors[name]
        else:
            tensors[name] = array

    return replace


@pytest.mark.parametrize(
    "damage",
    [
        spoiled("settings"),
        spoiled("settings", to=[1]),
        spoiled("settings", "sets"),
        spoiled("settings", "sets", "validation"),
        spoiled("settings", "sets", to=["train", "validation", "test"]),
        spoiled("every", to=0),
        spoiled("taken", to="many"),
        spoiled("best_epoch", to=3),
        spoiled("best_epoch"),
        replaced("optim.0"),
        replaced("optim.1"),
        replaced("optim.0", np.zeros(5, np.float32)),
        replaced("optim.0", np.zeros(143)),
        replaced("best"),
        replaced("best", np.full(143, np.nan, np.float32)),
        replaced("layers.0.bias"),
        replaced("history.train_cost"),
        replaced("history.train_cost", np.zeros(3)),
        replaced("history.train_cost", np.zeros((2, 1))),
        replaced("history.train_accuracy"),
        replaced("history.validation_accuracy"),
        replaced("history.learning_rate"),
        replaced("history.learning_rate", np.array(1.0)),
        replaced("history.thesis", np.zeros(2)),
        replaced("optim.7", np.zeros(143, np.float32)),
    ],
)
def test_a_damaged_one_is_refused(folder, damage):
    path = folder / "last.safetensors"
    description, tensors = read(path)
    save_file(tensors, path, {"fastnn": json.dumps(description)})
    Checkpoint(folder, resume=True)
    damage(description["checkpoint"], tensors)
    save_file(tensors, path, {"fastnn": json.dumps(description)})
    with pytest.raises(ModelError, match="is damaged"):
        run(Checkpoint(folder, resume=True), optimiser="adam")


# What cannot be written
# --------------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch, at_once):
    """Let the disk be full while this holds True."""
    state = {"full": False}
    replace = fastnn.checkpoint.replace

    def failing(path, content):
        if state["full"]:
            raise OutputError(f"cannot write {path}: No space left on device")
        replace(path, content)

    monkeypatch.setattr(fastnn.checkpoint, "replace", failing)
    return state


def test_on_a_full_disk_it_ends_or_goes_on_and_the_one_before_is_there(tmp_path, full):
    def on_epoch(epoch):
        full["full"] = epoch.epoch in (3, 4)

    with pytest.raises(OutputError, match="No space left"):
        run(Checkpoint(tmp_path / "ends"), on_epoch=on_epoch)
    errors = []
    full["full"] = False
    checkpoint = Checkpoint(tmp_path / "goes", on_error=errors.append)
    run(checkpoint, on_epoch=on_epoch, to=4)
    assert len(errors) == 3  # at the third epoch and the fourth, and at the end
    full["full"] = False
    expected, _ = run()
    for name in ("ends", "goes"):
        assert load_file(tmp_path / name / "last.safetensors")["history.train_cost"].size == 2
        resumed, _ = run(Checkpoint(tmp_path / name, resume=True))
        assert same(resumed, expected)


def test_an_error_beside_the_training_is_told_before_the_next_writing(tmp_path, monkeypatch):
    told, replace, main = [], fastnn.checkpoint.replace, threading.current_thread()

    def failing(path, content):
        assert threading.current_thread() is not main
        time.sleep(0.02)  # longer than an epoch: the next one has to wait
        if not told:
            raise OutputError(f"cannot write {path}: No space left on device")
        replace(path, content)

    def on_error(error):
        assert threading.current_thread() is main
        told.append(str(error))

    monkeypatch.setattr(fastnn.checkpoint, "replace", failing)
    checkpoint = Checkpoint(tmp_path / "run", on_error=on_error)
    run(checkpoint)
    assert len(told) == 1
    assert checkpoint.done == 6
    resumed, _ = run(Checkpoint(tmp_path / "run", resume=True), to=8)
    assert same(resumed, run(to=8)[0])


def test_what_could_not_be_written_is_told_and_tried_again_after_the_next_epoch(tmp_path, full):
    told = []

    def on_epoch(epoch):
        full["full"] = epoch.epoch in (3, 4)
        told.append(len(errors))

    errors = []
    run(Checkpoint(tmp_path, every=3, on_error=errors.append), on_epoch=on_epoch)
    # After the third epoch it fails, after the fourth once more; after the fifth there is room.
    assert told == [0, 0, 0, 0, 1, 2]
    assert len(errors) == 2
    assert Checkpoint(tmp_path, resume=True).done == 6


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("itself", [False, True])
def test_only_one_training_is_at_work_in_a_folder(tmp_path, resume, itself):
    options = {"optimiser": "adam", "learning_rate": 0.01}
    if resume:
        run(Checkpoint(tmp_path), to=1, **options)
    checkpoint, opened, refused = Checkpoint(tmp_path, resume=resume), [], []

    def also(epoch):
        if epoch.epoch == 2:
            opened.append(os.open(next(tmp_path.glob(".fastnn-last*lock")), os.O_RDWR))
        if epoch.epoch == 4:
            while not (tmp_path / "last.safetensors").exists():  # another thread writes it
                time.sleep(0.001)
            other = checkpoint if itself else Checkpoint(tmp_path, resume=True)
            with pytest.raises(OutputError, match="another training is at work there"):
                run(other, to=7, **options)
            refused.append(epoch)

    ended, _ = run(checkpoint, to=5, on_epoch=also, **options)
    assert len(refused) == 1
    assert same(ended, run(to=5, **options)[0])
    assert sorted(os.listdir(tmp_path)) == ["best.safetensors", "last.safetensors"]
    fcntl.flock(opened[0], fcntl.LOCK_EX | fcntl.LOCK_NB)  # is free
    os.close(opened[0])


def test_two_new_trainings_do_not_both_begin(tmp_path):
    refused = []

    def also(_):
        with pytest.raises(OutputError, match=r"run: another training is at work there"):
            run(Checkpoint(tmp_path / "run"))
        refused.append(True)

    run(Checkpoint(tmp_path / "run", every=5), to=2, on_epoch=also)
    assert len(refused) == 2
    assert Checkpoint(tmp_path / "run", resume=True).done == 2


def test_what_another_has_added_meanwhile_is_not_done_again(folder):
    waiting = Checkpoint(folder, resume=True)
    run(Checkpoint(folder, resume=True), to=4, optimiser="adam")
    epochs = []
    ended, _ = run(waiting, optimiser="adam", on_epoch=lambda epoch: epochs.append(epoch.epoch))
    assert epochs == [5, 6]
    assert same(ended, run(optimiser="adam")[0])


def test_a_training_that_was_refused_keeps_nobody_from_the_folder(folder):
    refused = Checkpoint(folder, resume=True)
    with pytest.raises(ArgumentError, match="batch size"):
        run(refused, optimiser="adam", batch_size=3)
    ended, _ = run(Checkpoint(folder, resume=True), optimiser="adam")
    assert same(ended, run(optimiser="adam")[0])


def test_a_training_that_was_refused_writes_nothing(tmp_path, monkeypatch):
    """Not even what an earlier one, of the same object, could not write."""
    run(Checkpoint(tmp_path), to=1)
    checkpoint = Checkpoint(tmp_path, resume=True, on_error=lambda _: None)
    before = (tmp_path / "last.safetensors").read_bytes()
    with monkeypatch.context() as full:
        full.setattr(fastnn.checkpoint, "replace", no_room)
        run(checkpoint, to=3)
    with pytest.raises(ArgumentError, match="batch size"):
        run(checkpoint, batch_size=7)
    assert (tmp_path / "last.safetensors").read_bytes() == before
    assert same(run(Checkpoint(tmp_path, resume=True))[0], run()[0])


def no_room(*_):
    raise OutputError("cannot write run: No space left on device")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_where_nothing_can_be_locked_it_trains_all_the_same(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    run(Checkpoint(tmp_path), to=3)
    assert same(run(Checkpoint(tmp_path, resume=True))[0], run()[0])


def test_a_new_training_does_not_go_on_with_another_of_the_same_object(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run")
    run(checkpoint, to=2)
    with pytest.raises(OutputError, match="holds the checkpoint of another training"):
        run(checkpoint, on=network(seed=5), to=2)
    shutil.rmtree(tmp_path / "run")
    second, _ = run(checkpoint, on=network(seed=5), to=2)
    assert same(second, run(on=network(seed=5), to=2)[0])
    assert same(Network.load(tmp_path / "run" / "last.safetensors", device="numpy"), second)
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_a_folder_that_is_gone_is_not_made_again(folder):
    checkpoint = Checkpoint(folder, resume=True)
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match="there is no checkpoint in"):
        run(checkpoint, optimiser="adam")
    assert not folder.exists()


@pytest.mark.parametrize(
    "wrong", [{"resume": "no"}, {"on_error": 3}, *({"folder": f} for f in (3, None, b"run", ""))]
)
def test_arguments_that_cannot_be(tmp_path, wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        Checkpoint(**{"folder": tmp_path, **wrong})


def test_it_may_be_copied_and_sent_to_another_process(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run")
    run(checkpoint, to=2)
    copy.deepcopy(checkpoint)
    sent = pickle.loads(pickle.dumps(Checkpoint(tmp_path / "run", resume=True)))
    assert same(run(sent)[0], run()[0])


def test_a_training_in_a_thread_goes_on_when_the_main_program_has_ended(tmp_path):
    program = """
import threading, time
import fastnn

fastnn.device("numpy")  # what it imports, Python from 3.12 on does not import at the end

def work():
    time.sleep(0.3)  # till the main thread is at its end
    network = fastnn.Network([4, 3, 2], device="numpy")
    data = fastnn.synthetic(20, 1, 4, 2).train
    fastnn.train(network, data, epochs=5, checkpoint=fastnn.Checkpoint("run"))
    print("done", fastnn.Checkpoint("run", resume=True).done)

threading.Thread(target=work).start()
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert (ran.stdout, ran.stderr) == ("done 5\n", "")


def test_room_for_the_state_and_not_for_the_best_model(tmp_path, monkeypatch):
    replace, errors = fastnn.checkpoint.replace, []

    def failing(path, content):
        if path.name == "best.safetensors" and not errors:
            raise OutputError(f"cannot write {path}: No space left on device")
        replace(path, content)

    monkeypatch.setattr(fastnn.checkpoint, "replace", failing)
    run(Checkpoint(tmp_path, on_error=errors.append), to=3)
    assert len(errors) == 1
    assert sorted(os.listdir(tmp_path)) == ["best.safetensors", "last.safetensors"]
    assert Checkpoint(tmp_path, resume=True).done == 3


def test_what_a_killed_process_left_is_cleared_away(folder):
    left = folder / ".fastnn-last.safetensors-0123456789abcdef.tmp"
    shutil.copy(folder / "last.safetensors", left)
    (folder / ".fastnn-best.safetensors-fedcba9876543210.tmp").write_bytes(b"half")
    (folder / "best.safetensors").unlink()  # it was killed between the two
    run(Checkpoint(folder, resume=True), to=2, optimiser="adam")
    assert sorted(os.listdir(folder)) == ["best.safetensors", "last.safetensors"]


def test_what_is_being_written_for_a_file_of_a_longer_name_is_not(tmp_path):
    left = tmp_path / f".fastnn-a-{16 * 'f'}.tmp"
    others = tmp_path / f".fastnn-a-b-{16 * 'f'}.tmp"
    for path in (left, others):
        path.write_bytes(b"")
    clear_remains(tmp_path / "a")
    assert (left.exists(), others.exists()) == (False, True)


def test_it_is_for_any_device(folder):
    """Another one goes on from it, to rounding."""
    on = Network([16, 7, 3], device=NumpyBackend())
    _, history = run(Checkpoint(folder, resume=True), on=on, optimiser="adam", fused=False)
    assert len(history.epochs) == 6
