"""``fastnn compare``: right devices agree, wrong ones are told apart."""

import numpy as np
import pytest

import fastnn
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.comparing import compare

PLUG_IN = """
from fastnn.backends.numpy_cpu import NumpyBackend


class Sloppy(NumpyBackend):
    name = "other"

    def descend(self, w, b, delta, a_prev, rate, shrink):
        super().descend(w, b, delta, a_prev, 1.001 * rate, shrink)
"""


def test_the_cpu_s_devices_agree(run):
    result = run("compare", "--epochs", 2)
    assert result.code == 0
    head, *rows, verdict = result.out.splitlines()
    assert head.split()[:3] == ["epoch", "cost,", "exact"]
    assert "numpy, plain" in head
    assert "numba, epoch" in head
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert verdict == "they agree"


def test_as_json(run):
    result = run("compare", "--epochs", 2, "--devices", "numba", "--hidden", "7,5", "--json")
    report = result.json
    assert list(report) == [
        "schema", "command", "data", "network", "settings", "exact", "allowed", "devices", "agree",
    ]  # fmt: skip
    assert report["network"] == {"sizes": [64, 7, 5, 10]}
    (numba,) = report["devices"]
    assert list(numba) == ["device", "step", "train_cost", "max_relative_difference", "agrees"]
    assert (numba["device"], numba["step"]) == ("numba", "epoch")
    np.testing.assert_allclose(numba["train_cost"], report["exact"]["train_cost"], rtol=1e-5)
    assert len(report["allowed"]) == 2
    # What is exact is what the library makes of it in float64.
    train_set, _ = fastnn.load_dataset("digits")
    network = fastnn.Network([64, 7, 5, 10], device="numpy", dtype="float64")
    costs = [e.train_cost for e in fastnn.train(network, train_set, epochs=2).epochs]
    assert report["exact"]["train_cost"] == costs


def test_a_device_that_is_a_thousandth_wrong_parts(run, plug_in):
    plug_in({"other": "Sloppy"}, PLUG_IN)
    result = run("compare", "--devices", "numpy,other", "--epochs", 2)
    assert result.code == 1
    assert result.out.splitlines()[-1] == "other parted"
    assert "(!)" in result.out
    report = run("compare", "--devices", "numpy,other", "--epochs", 2, "--json")
    assert report.code == 1
    assert not report.json["agree"]
    assert [device["agrees"] for device in report.json["devices"]] == [True, False]


def test_the_plain_step_can_be_asked_for(run):
    devices = run("compare", "--devices", "numba", "--no-fused", "--epochs", 1, "--json").json[
        "devices"
    ]
    assert devices[0]["step"] == "plain"


def test_where_rounding_alone_goes_far_it_says_so(run):
    result = run("compare", "--hidden", "16,16", "--eta", 3)
    assert "a smaller --learning-rate tells more" in result.err


@pytest.mark.parametrize(
    ("code", "says", "args"),
    [
        (3, "unknown device 'warp'", "--devices numpy,warp"),
        (2, "names a device twice", "--devices numpy,numpy"),
        (2, "is not a list of devices", "--devices numpy,,numba"),
        (2, "--epochs", "--epochs 0"),
        (2, "batch size", "--batch-size 99999"),
        (4, "no-such", "--data no-such"),
        (5, "diverged", "--hidden 30 --eta 1e30 --epochs 1"),
    ],
)
def test_what_cannot_be(run, code, says, args):
    result = run("compare", *args.split())
    assert result.code == code
    assert says in result.err
    assert result.out == ""


def test_a_backend_can_be_given():
    train_set = fastnn.synthetic(train=50, test=1, features=9, classes=3).train
    result = compare([NumpyBackend()], [9, 4, 3], train_set, epochs=1, batch_size=5)
    assert result.agree
    assert result.courses[0].off[0] > 0
