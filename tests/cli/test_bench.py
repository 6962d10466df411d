"""``fastnn bench``: what it prints, and whose failures it tells."""

import pytest

PLUG_INS = """
from fastnn.backends.numpy_cpu import NumpyBackend


class Wrong(NumpyBackend):
    name = "other"

    def hadamard(self, a, activation, out):
        super().hadamard(a, activation, out)
        out *= -1
"""
QUICK = ["--network", "12-5-3", "--batch-size", "4", "--seconds", "0.05"]


def test_every_step_of_every_device_has_a_row_the_fastest_first(run, monkeypatch):
    monkeypatch.setenv("FASTNN_DISABLE_PLUGINS", "1")
    result = run("bench", *QUICK, "--devices", "numpy,numba")
    assert result.code == 0
    title, head, *rows = result.out.splitlines()
    assert title == "12-5-3, mini-batches of 4"
    assert head.split()[:3] == ["device", "step", "samples/s"]
    assert sorted(row.split()[:2] for row in rows) == [
        ["numba", "epoch"],
        ["numba", "plain"],
        ["numpy", "plain"],
    ]
    rates = [float(row.split()[2].replace(",", "")) for row in rows]
    assert rates == sorted(rates, reverse=True)
    assert rows[0].split()[-1] == "1.00"
    assert "preparing numba" in result.err


def test_as_json(run):
    result = run("bench", *QUICK, "--devices", "numpy", "--json", "-q")
    report = result.json
    assert list(report) == [
        "schema", "command", "network", "batch_size", "seconds", "rows", "failed", "versions",
    ]  # fmt: skip
    (row,) = report["rows"]
    assert list(row) == [
        "device", "step", "samples_per_second", "us_per_step", "spread", "prepare_ms",
        "max_relative_error", "detail",
    ]  # fmt: skip
    assert (row["device"], row["step"]) == ("numpy", "plain")
    assert row["samples_per_second"] == pytest.approx(4e6 / row["us_per_step"])
    assert row["max_relative_error"] < 1e-4
    assert result.err == ""


def test_by_default_all_that_can_be_used_take_part(run):
    devices = {row["device"] for row in run("bench", *QUICK, "--json").json["rows"]}
    assert {"numba", "numpy"} <= devices


def test_a_device_that_trains_wrongly_is_told_and_not_timed(run, plug_in):
    plug_in({"other": "Wrong"}, PLUG_INS)
    result = run("bench", *QUICK)
    assert result.code == 1
    assert "other failed: it trains wrongly" in result.err
    assert "other" not in result.out
    asked = run("bench", *QUICK, "--devices", "other")
    assert asked.code == 3
    assert "it trains wrongly" in asked.err


@pytest.mark.parametrize(
    ("code", "says", "args"),
    [
        (2, "is not the sizes of layers", "--network 784"),
        (2, "is not the sizes of layers", "--network 784,30,10"),
        (2, "--batch-size", "--batch-size 0"),
        (2, "--seconds", "--seconds 0"),
        (2, "names a device twice", "--devices numpy,numpy"),
        (3, "unknown device 'warp'", "--devices warp"),
        (2, "this machine has", "--network 999999999999-2"),
    ],
)
def test_what_cannot_be(run, code, says, args):
    result = run("bench", *args.split())
    assert result.code == code
    assert says in result.err
    assert result.out == ""
