"""``fastnn devices``, and ``--device`` with the devices of others, good and broken."""

from itertools import takewhile

import pytest

PLUG_INS = """
import numpy as np

from fastnn.backends.base import Check
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.backprop import BackpropStep


class Good(NumpyBackend):
    name = "good"
    detail = "as good as NumPy"


class Own(BackpropStep):
    name = "own"


class WithAStep(Good):
    @classmethod
    def checks(cls, index=None):
        yield Check("board", True, "a board is plugged in", None)

    def fused_step(self, plan):
        return Own(self, plan, stride=7)

    def explain(self, plan):
        return f"{plan.batch_size} samples of {plan.sizes[0]} numbers fit on the board"


class Lacking(NumpyBackend):
    @classmethod
    def checks(cls, index=None):
        yield Check("board", True, "a board is plugged in", None)
        yield Check("power", False, "the board\\nis off", "switch it on")


class FailsOnTheWay(NumpyBackend):
    @classmethod
    def checks(cls, index=None):
        yield Check("board", True, "a board is plugged in", None)
        raise OSError("the bus is gone")


class Babbles(NumpyBackend):
    @classmethod
    def checks(cls, index=None):
        return ["all is well"]


class WrongInFloat32(NumpyBackend):
    def descend(self, w, b, delta, a_prev, rate, shrink):
        super().descend(w, b, delta, a_prev, rate, shrink)
        if self.dtype == np.float32:
            w *= np.float32(1.001)


class NotFinite(NumpyBackend):
    def descend(self, w, b, delta, a_prev, rate, shrink):
        super().descend(w, b, delta, a_prev, rate, shrink)
        if self.dtype == np.float32:
            b[0] = np.nan


class Speechless(NumpyBackend):
    def explain(self, plan):
        raise LookupError("no words")


class Absent(NumpyBackend):
    @classmethod
    def unavailable(cls, index=None):
        return "no driver was found."


class Undecided(NumpyBackend):
    @classmethod
    def unavailable(cls, index=None):
        raise ValueError("cannot tell")


class Unmade(NumpyBackend):
    def __init__(self, *args):
        raise OSError("no memory on the board")


class Wrong(NumpyBackend):
    def hadamard(self, a, activation, out):
        super().hadamard(a, activation, out)
        out *= -1


class Raises(NumpyBackend):
    def gather(self, rows, order, start, stop, scale, out):
        raise RuntimeError("the kernel failed\\nin two lines")


class Exits(NumpyBackend):
    def gather(self, rows, order, start, stop, scale, out):
        raise SystemExit(7)


def function():
    pass
"""

# The reason that `devices` gives for each.
BROKEN = {
    "Absent": "no driver was found.",
    "Undecided": "cannot tell",
    "Unmade": "no memory on the board",
    "Wrong": "trains wrongly",
    "Raises": "the kernel failed",
    "Lacking": "is off (switch it on).",
    "FailsOnTheWay": "the bus is gone",
    "Babbles": "a check is a fastnn.backends.base.Check, not str",
    "WrongInFloat32": "by the plain step the parameters are",
    "NotFinite": "nan off",
    "Speechless": "no words",
    "Exits": "SystemExit",
    "function": "no Backend class",
    "Missing": "cannot be loaded",
}


def test_it_lists_what_there_is(run, monkeypatch):
    monkeypatch.setenv("FASTNN_DISABLE_PLUGINS", "1")
    result = run("devices")
    assert (result.code, result.err) == (0, "")
    (row,) = [line for line in result.out.splitlines() if line.startswith("numpy ")]
    assert row.split()[1:4] == ["built", "in", "works"]
    assert "NumPy" in row


def test_as_json(run):
    report = run("devices", "--json").json
    assert (report["schema"], report["command"]) == (1, "devices")
    (numpy,) = [device for device in report["devices"] if device["name"] == "numpy"]
    assert numpy == {
        "name": "numpy",
        "source": "built in",
        "detail": numpy["detail"],
        "reason": None,
        "usable": True,
        "checks": [],
        "self_test": numpy["self_test"],
    }
    tried = numpy["self_test"]
    assert tried == {
        "network": "784-30-10",
        "batch_size": 10,
        "step": "plain",
        "why": "",
        "prepare_ms": tried["prepare_ms"],
        "max_relative_error": tried["max_relative_error"],
        "us_per_step": tried["us_per_step"],
    }
    assert 0 < tried["max_relative_error"] < 1e-4
    assert 0 < tried["prepare_ms"] < 60e3
    assert 0 < tried["us_per_step"] < 1e6


def of(run, name, *args):
    """The JSON of one device, and the lines of the table that stand below its own."""
    (device,) = [d for d in run("devices", *args, "--json").json["devices"] if d["name"] == name]
    lines = iter(run("devices", *args).out.splitlines())
    assert next(line for line in lines if line.startswith(f"{name} "))
    return device, [line.strip() for line in takewhile(lambda line: line[0] == " ", lines)]


def test_it_shows_what_was_looked_at_and_how_the_device_trains(run, plug_in):
    plug_in({"good": "WithAStep"}, PLUG_INS)
    good, lines = of(run, "good", "--network", "9-4-3", "--batch-size", 5)
    assert good["checks"] == [
        {"name": "board", "ok": True, "detail": "a board is plugged in", "remedy": None}
    ]
    tried = good["self_test"]
    assert [tried[key] for key in ("network", "batch_size", "step")] == ["9-4-3", 5, "own"]
    assert tried["why"] == "5 samples of 9 numbers fit on the board"
    assert len(lines) == 3
    assert lines[0] == "ok: board, a board is plugged in"
    assert lines[1].startswith("9-4-3, mini-batches of 5: own step, ")
    assert lines[2] == tried["why"]


def test_it_shows_what_was_looked_at_where_the_device_cannot_be_used(run, plug_in):
    plug_in({"other": "Lacking"}, PLUG_INS)
    other, lines = of(run, "other")
    assert other["self_test"] is None
    assert [check["ok"] for check in other["checks"]] == [True, False]
    assert other["checks"][1]["remedy"] == "switch it on"
    assert lines == [
        "ok: board, a board is plugged in",
        "not ok: power, the board is off",
        "mend it: switch it on",
    ]


def test_what_was_found_before_a_look_failed_is_shown(run, plug_in):
    plug_in({"other": "FailsOnTheWay"}, PLUG_INS)
    other, _ = of(run, "other")
    assert [check["name"] for check in other["checks"]] == ["board"]


@pytest.mark.parametrize(
    "args", ["--network 1-1 --batch-size 1", "--network 784-16-16-10 --batch-size 32"]
)
def test_other_networks_can_be_tried(run, args):
    devices = run("devices", "--json", *args.split()).json["devices"]
    assert {"numba", "numpy"} <= {device["name"] for device in devices if device["usable"]}


@pytest.mark.parametrize(
    ("says", "args"),
    [
        ("'784' is not the sizes of layers, like 784-30-10", "--network 784"),
        ("is not the sizes of layers", "--network 784,30,10"),
        ("is not the sizes of layers", "--network 784--10"),
        ("is not the sizes of layers", "--network 784-0-10"),
        ("is not the sizes of layers", "--network ٣-٣"),
        ("is not the sizes of layers", "--network 9999999999999999-10"),
        ("this machine has", "--network 999999999999-10"),
        ("--batch-size", "--batch-size 0"),
        ("--batch-size", "--batch-size full"),
        ("this machine has", "--batch-size 1000000000"),
    ],
)
def test_networks_that_cannot_be(refused, says, args):
    refused(2, says, "devices", *args.split())


def test_a_plug_in_is_listed_and_used(run, plug_in, data):
    plug_in({"good": "Good"}, PLUG_INS)
    report = run("devices", "--json").json
    (good,) = [device for device in report["devices"] if device["name"] == "good"]
    assert (good["source"], good["usable"]) == ("plug-in", True)
    trained = run("train", "--data", data, "--epochs", 1, "--device", "good", "--json").json
    assert trained["device"] == {
        "name": "good",
        "precision": "full",
        "detail": "as good as NumPy",
    }
    assert run("evaluate", trained["model"], "--device", "good").code == 0


@pytest.mark.parametrize("command", ["devices", "train --data small.npz --epochs 1 --device good"])
@pytest.mark.usefixtures("data")
def test_a_plug_in_that_greets_does_not_spoil_the_json(run, plug_in, command):
    plug_in({"good": "Good"}, "print('Welcome!')\n" + PLUG_INS)
    assert run(*command.split(), "--json").json["schema"] == 1


def test_it_is_not_looked_at_where_plug_ins_are_disabled(run, refused, plug_in, monkeypatch):
    plug_in({"good": "Good"}, PLUG_INS)
    monkeypatch.setenv("FASTNN_DISABLE_PLUGINS", "1")
    assert "good" not in run("devices").out
    refused(3, "unknown device 'good'", "train", "--device", "good")


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_plug_in_is_reported_and_breaks_nothing(run, plug_in, data, broken):
    plug_in({"good": "Good", "other": broken}, PLUG_INS)
    result = run("devices", "--json")
    assert result.code == 0
    devices = {device["name"]: device for device in result.json["devices"]}
    assert not devices["other"]["usable"]
    assert BROKEN[broken] in devices["other"]["reason"]
    assert devices["numpy"]["usable"]
    assert devices["good"]["usable"]
    assert devices["other"]["self_test"] is None
    table = [line for line in run("devices").out.splitlines() if not line.startswith(" ")]
    assert len(table) == len(devices)
    assert run("train", "--data", data, "--epochs", 1).code == 0


@pytest.mark.parametrize("source", ["import not_there", "class", "raise SystemExit(7)"])
def test_a_plug_in_that_cannot_be_imported(run, refused, plug_in, source):
    plug_in({"other": "Class"}, source)
    result = run("devices", "--json")
    assert result.code == 0
    devices = {device["name"]: device for device in result.json["devices"]}
    assert "cannot be loaded" in devices["other"]["reason"]
    assert devices["numpy"]["usable"]
    refused(3, "cannot be loaded", "train", "--device", "other")


@pytest.mark.parametrize("broken", ["Absent", "Undecided", "Unmade", "function", "Missing"])
def test_a_broken_device_that_is_asked_for_is_an_error(refused, plug_in, data, broken):
    plug_in({"other": broken}, PLUG_INS)
    refused(3, ["'other'", BROKEN[broken]], "train", "--data", data, "--device", "other")


def test_an_unusable_device_names_those_that_can_be_used(refused, plug_in):
    plug_in({"other": "Absent", "good": "Good"}, PLUG_INS)
    result = refused(3, "usable here: ", "train", "--device", "other")
    assert "numpy" in result.err
    assert "good" in result.err
    assert "`fastnn devices`" in result.err


def test_a_name_that_two_claim_is_an_error(refused, run, plug_in):
    plug_in({"numpy": "Good"}, PLUG_INS)
    refused(3, "is claimed by", "train", "--device", "numpy")
    assert "is claimed by" in run("devices").out
