"""Logs: what is written when, what is read back, and what is never lost."""

import csv
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

import fastnn
from fastnn import ArgumentError, DataError, Epoch, Log, Network, OutputError, read_log, train

DATA = fastnn.synthetic(train=47, test=10, features=12, classes=3)
EPOCH = Epoch(1, 0.1, 470.0, 0.25, 0.9, test_cost=1e-300, test_accuracy=1.0)
FORMS = ["log.jsonl", "log.csv", "LOG.CSV"]
KEYS = [
    "epoch",
    "seconds",
    "samples_per_second",
    "train_cost",
    "train_accuracy",
    "validation_cost",
    "validation_accuracy",
    "test_cost",
    "test_accuracy",
]


def numbered(*numbers):
    return [replace(EPOCH, epoch=number, seconds=number / 7) for number in numbers]


@pytest.fixture
def trained(tmp_path):
    """Train with a log of a name; return its path and the history."""

    def trained(name, **settings):
        path = tmp_path / name
        settings = {"epochs": 3, "on_epoch": Log(path), **settings}
        return path, train(Network([12, 5, 3], device="numpy"), *DATA, **settings)

    return trained


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("validation", [None, DATA.test])
def test_what_is_read_back_is_the_history_to_the_last_bit(trained, name, validation):
    path, history = trained(name, validation=validation)
    assert read_log(path) == history.epochs
    written = path.read_bytes()
    path.unlink()
    Log(path).write(history.epochs)
    assert path.read_bytes() == written


def no_constant(name):
    raise AssertionError(f"{name} is no JSON")


def test_a_line_is_an_object_in_strict_json(trained):
    path, history = trained("log.jsonl")
    lines = [json.loads(line, parse_constant=no_constant) for line in path.read_text().splitlines()]
    assert [list(line) for line in lines] == [KEYS] * 3
    assert lines == [asdict(epoch) for epoch in history.epochs]
    assert lines[0]["validation_cost"] is None


def test_another_reader_of_csv_finds_the_very_numbers(trained):
    path, history = trained("log.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [KEYS] * 3
    for row, epoch in zip(rows, history.epochs, strict=True):
        for name, value in asdict(epoch).items():
            assert row[name] == ("" if value is None else repr(value))


@pytest.mark.parametrize("name", FORMS)
def test_each_line_is_in_the_file_when_its_epoch_ends(tmp_path, name):
    log, seen = Log(tmp_path / name), []

    def on_epoch(epoch):
        log(epoch)
        seen.append(read_log(tmp_path / name))

    assert not os.listdir(tmp_path)
    history = train(Network([12, 3], device="numpy"), *DATA, epochs=3, on_epoch=on_epoch)
    assert seen == [history.epochs[:done] for done in (1, 2, 3)]


@pytest.mark.parametrize("name", FORMS)
def test_a_log_is_only_added_to_and_the_last_training_is_read(tmp_path, name):
    path = tmp_path / name
    contents = [b""]
    for numbers, read in [
        ((1, 2, 3), (1, 2, 3)),
        ((4, 5), (1, 2, 3, 4, 5)),  # the training went on
        ((3, 4), (1, 2, 3, 4)),  # it went on from an earlier epoch
        ((1,), (1,)),  # another training
        ((), (1,)),
    ]:
        Log(path).write(numbered(*numbers))
        assert read_log(path) == numbered(*read)
        contents.append(path.read_bytes())
        assert contents[-1].startswith(contents[-2])
    assert len(contents[-1].splitlines()) == 8 + (name != "log.jsonl")


@pytest.mark.parametrize("name", FORMS)
def test_the_first_epoch_that_is_kept_may_be_a_later_one(tmp_path, name):
    Log(tmp_path / name).write(numbered(7, 8))
    assert read_log(tmp_path / name) == numbered(7, 8)


def test_a_log_of_nothing(tmp_path):
    (tmp_path / "log.jsonl").touch()
    (tmp_path / "log.csv").write_text(",".join(KEYS) + "\n")
    for name in ("log.jsonl", "log.csv"):
        assert read_log(tmp_path / name) == []
        Log(tmp_path / name)(EPOCH)
        assert read_log(tmp_path / name) == [EPOCH]


def test_lines_that_end_as_on_windows_are_read(tmp_path):
    for name in ("log.jsonl", "log.csv"):
        Log(tmp_path / name).write(numbered(1, 2))
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes().replace(b"\n", b"\r\n"))
        assert read_log(tmp_path / name) == numbered(1, 2)


def test_numbers_may_be_numpys(tmp_path):
    one = np.float64(0.1)
    for name in ("log.jsonl", "log.csv"):
        Log(tmp_path / name)(replace(EPOCH, epoch=np.int64(3), train_cost=one))
        assert read_log(tmp_path / name) == [replace(EPOCH, epoch=3, train_cost=0.1)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, True, "0.5", 10**400])
@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_what_is_no_number_is_never_written(tmp_path, name, value):
    with pytest.raises(ArgumentError, match="train_cost must be a finite number"):
        Log(tmp_path / name).write([EPOCH, replace(EPOCH, train_cost=value)])
    assert not os.listdir(tmp_path)


HEAD = ",".join(KEYS).encode()


def changed(**changes):
    return json.dumps({**asdict(EPOCH), **changes}).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("thesis.jsonl", b"It was a dark and stormy night.\n", "line 1 is no epoch: 'It was"),
        ("cut.jsonl", changed() + changed(epoch=2)[:-9], "line 2 is cut off"),
        ("list.jsonl", b"[1]\n", "it is no JSON object"),
        ("blank.jsonl", changed() + b"\n" + changed(epoch=2), "line 2 is no epoch"),
        ("other.jsonl", b'{"loss": 1}\n', "its fields are not epoch, seconds"),
        ("more.jsonl", changed(loss=1), "its fields are not epoch, seconds"),
        ("nan.jsonl", changed(train_cost=float("nan")), "NaN is no number"),
        ("large.jsonl", changed(train_cost=1).replace(b"1, ", b"1e999, "), "not inf"),
        ("text.jsonl", changed(test_cost="low"), "test_cost must be a finite number, not 'low'"),
        ("null.jsonl", changed(train_cost=None), "train_cost must be a finite number, not None"),
        ("zero.jsonl", changed(epoch=0), "epoch must be a whole number, 1 or more, not 0"),
        ("half.jsonl", changed(epoch=1.5), "epoch must be a whole number"),
        ("deep.jsonl", b"[" * 100_000 + b"\n", "cannot be read"),
        ("digits.jsonl", b"1" * 5000 + b"\n", "line 1 is no epoch"),
        ("model.jsonl", b"\x93NUMPY\xff\n", "malformed"),
        ("table.csv", b"a,b\n1,2\n", "its first line is not epoch,seconds"),
        ("cut.csv", HEAD, "line 1 is cut off"),
        ("few.csv", HEAD + b"\n1,2\n", "line 2 is no epoch: it has 2 cells, not 9"),
        ("words.csv", HEAD + b"\n1,2,3,4,5,,,x,1\n", "line 2 is no epoch: 'x' cannot be read"),
        ("nan.csv", HEAD + b"\n1,2,3,NaN,5,,,,\n", "NaN is no number"),
    ],
)
def test_what_is_no_log_is_neither_read_nor_written_to(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_log(path)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)
    with pytest.raises(OutputError, match=r"cannot write .* other than a whole log of this form"):
        Log(path)
    assert path.read_bytes() == content


def test_a_log_of_the_other_form_is_not_written_to(tmp_path):
    Log(tmp_path / "log.jsonl")(EPOCH)
    (tmp_path / "log.jsonl").rename(tmp_path / "log.csv")
    with pytest.raises(OutputError, match="other than a whole log of this form"):
        Log(tmp_path / "log.csv")


@pytest.mark.parametrize("name", ["log", "log.json", "log.txt", "", "jsonl"])
def test_the_name_says_the_form(tmp_path, name):
    for use in (Log, read_log):
        with pytest.raises(ArgumentError, match=r"\.jsonl, .* \.csv"):
            use(os.path.join(tmp_path, name))


@pytest.mark.parametrize(
    ("name", "written", "read"),
    [
        ("folder.csv", "it is a folder", "is a folder"),
        ("no/folder/log.csv", "No such file or directory", "No such file"),
        ("pipe.jsonl", "not an ordinary file", "not a regular file"),
        ("a\0b.csv", "cannot write", "null byte"),
    ],
)
def test_a_place_where_no_log_can_be(tmp_path, name, written, read):
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(OutputError, match=written):
        Log(os.path.join(tmp_path, name))
    with pytest.raises(DataError, match=read):
        read_log(os.path.join(tmp_path, name))


def test_a_link_stays_a_link_and_the_current_folder_may_change(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "log.csv").symlink_to("runs/1")
    monkeypatch.chdir(tmp_path)
    log = Log("log.csv")
    monkeypatch.chdir(tmp_path / "runs")
    log(EPOCH)
    assert (tmp_path / "log.csv").is_symlink()
    assert read_log(tmp_path / "log.csv") == [EPOCH]


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_on_a_full_disk_whole_lines_stay(tmp_path, name):
    """A limit on the size of files stands in for the disk: the write fails in the middle."""
    program = """
        import resource, sys
        from fastnn import Epoch, Log, OutputError

        log = Log(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        try:
            for number in range(1, 99):
                log(Epoch(number, 0.1, 470.0, 0.25, 0.9))
        except OutputError as error:
            print(error)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path / name],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == f"cannot write {tmp_path / name}: File too large\n"
    read = [epoch.epoch for epoch in read_log(tmp_path / name)]
    assert read == [*range(1, len(read) + 1)]
    assert len(read) > 1
    Log(tmp_path / name)(EPOCH)  # there is room again


def test_several_callbacks_are_one_function(tmp_path):
    logs = [Log(tmp_path / name) for name in ("log.jsonl", "log.csv")]

    def on_epoch(epoch):
        for log in logs:
            log(epoch)
        return epoch.epoch == 2

    history = train(Network([12, 3], device="numpy"), *DATA, epochs=5, on_epoch=on_epoch)
    assert len(history.epochs) == 2
    assert [read_log(tmp_path / name) for name in ("log.jsonl", "log.csv")] == [history.epochs] * 2


def test_the_fields_are_those_of_an_epoch():
    assert [field.name for field in fields(Epoch)] == KEYS
