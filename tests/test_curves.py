"""The log of a training, whole and broken."""

import json
import math

import pytest

from fastnn import DataError
from fastnn.curves import read_log

EPOCHS = [
    {"epoch": 1, "seconds": 0.5, "train_cost": 0.7, "test_accuracy": None},
    {"epoch": 2, "seconds": 0.5, "train_cost": 0.5, "test_accuracy": 0.9, "test_cost": None},
]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(map(json.dumps, EPOCHS)),
        "\n\n".join(map(json.dumps, EPOCHS)) + "\n",
        json.dumps({"schema": 1, "epochs": EPOCHS}),
        json.dumps({"schema": 1, "epochs": EPOCHS}, indent=2),
    ],
)
def test_every_form_says_the_same(tmp_path, text):
    (tmp_path / "log").write_text(text)
    columns = read_log(tmp_path / "log")
    assert list(columns) == ["epoch", "train_cost", "test_accuracy"]
    assert (columns["epoch"], columns["train_cost"]) == ([1, 2], [0.7, 0.5])
    first, second = columns["test_accuracy"]
    assert math.isnan(first)
    assert second == 0.9


def test_a_log_of_one_epoch(tmp_path):
    (tmp_path / "log").write_text(json.dumps(EPOCHS[0]))
    assert read_log(tmp_path / "log") == {"epoch": [1], "train_cost": [0.7]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no epoch"),
        ('{"epochs": []}', "there is no epoch"),
        ('{"epochs": 3}', "there is no epoch"),
        ("epoch 1/3   cost 0.35", "entry 1 is no JSON object"),
        (json.dumps(EPOCHS[0]) + '\n{"epoch": 2, "train_c', "entry 2 is no JSON object"),
        ("[1, 2]", "entry 1"),
        ("[" * 100_000, "entry 1"),
        ('{"train_cost": 0.5}', "'epoch'"),
        ('{"epoch": 1}', "train_cost"),
        ('{"epoch": "one", "train_cost": 0.5}', "epoch of epoch 'one' is not a finite number"),
        ('{"epoch": 1, "train_cost": "small"}', "'small'"),
        ('{"epoch": 1, "train_cost": NaN}', "not a finite number: nan"),
        ('{"epoch": 1, "train_cost": 1' + "0" * 400 + "}", "not a finite number"),
        ('{"epoch": 1, "train_cost": [0.5]}', "not a finite number"),
    ],
)
def test_a_broken_log(tmp_path, text, says):
    (tmp_path / "log").write_text(text)
    with pytest.raises(DataError, match="log: ") as error:
        read_log(tmp_path / "log")
    assert says in str(error.value)


def test_no_log_at_all(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name, says in (("none", "No such file"), ("", "is a folder"), ("bytes", "malformed")):
        with pytest.raises(DataError, match=says):
            read_log(tmp_path / name)
