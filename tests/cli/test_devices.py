"""``fastnn devices``, and ``--device`` with the devices of others, good and broken."""

import pytest

PLUG_INS = """
from fastnn.backends.numpy_cpu import NumpyBackend


class Good(NumpyBackend):
    name = "good"
    detail = "as good as NumPy"


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
    }


def test_a_plug_in_is_listed_and_used(run, plug_in, data):
    plug_in({"good": "Good"}, PLUG_INS)
    report = run("devices", "--json").json
    (good,) = [device for device in report["devices"] if device["name"] == "good"]
    assert (good["source"], good["usable"]) == ("plug-in", True)
    trained = run("train", "--data", data, "--epochs", 1, "--device", "good", "--json").json
    assert trained["device"] == {"name": "good", "detail": "as good as NumPy"}
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
    table = run("devices").out.splitlines()
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
