"""``fastnn lr-find``: what it prints, its picture, and that it leaves nothing else."""

import os
import re

import pytest

import fastnn


def test_it_shows_a_curve_and_suggests_a_rate_and_leaves_nothing(run, data):
    result = run("lr-find", "--data", data)
    assert result.code == 0
    head, *rows, last = result.out.splitlines()
    assert head.split() == ["η", "cost"]
    rates = [float(row.split()[0]) for row in rows]
    assert rates == sorted(rates)
    assert all(len(row) <= 80 for row in rows)
    assert re.fullmatch(r"suggested: --learning-rate [\d.e-]+", last)
    assert "16-30-3 on small.npz" in result.err
    assert os.listdir() == ["small.npz"]
    assert run("train", "--data", data, "--epochs", 2, *last.split()[1:]).code == 0


@pytest.mark.parametrize(
    ("flags", "shape", "how"),
    [
        ("", {}, {}),
        ("--optimiser adam --seed 3", {"seed": 3}, {"optimiser": "adam", "seed": 3}),
        ("--momentum 0.9 --nesterov", {}, {"optimiser": fastnn.SGD(0.9, nesterov=True)}),
        ("--l2 5 --batch-size 7 --no-fused", {}, {"l2": 5.0, "batch_size": 7, "fused": False}),
        ("--batch-size full", {}, {"batch_size": None}),
        (
            "--activation relu --output softmax --cost log-likelihood --init he",
            {"activation": "relu", "output": "softmax", "cost": "log-likelihood", "init": "he"},
            {},
        ),
        ("--dropout 0.2,0.5", {}, {"dropout": [0.2, 0.5]}),
        ("--l1 1 --clip-norm 0.5", {}, {"l1": 1.0, "clip_norm": 0.5}),
        ("--class-weights balanced", {}, {"class_weights": "balanced"}),
        ("--class-weights 1,1,3", {}, {"class_weights": [1, 1, 3]}),
    ],
)
def test_its_json_is_what_the_library_finds(run, data, flags, shape, how):
    result = run("lr-find", "--data", data, *flags.split(), "--json", "-q")
    report = result.json
    assert (report["command"], result.err) == ("lr-find", "")
    test = fastnn.range_test(
        fastnn.Network([16, 30, 3], **shape), fastnn.load_dataset(data).train, **how
    )
    assert {name: report[name] for name in test._fields} == test._asdict()
    assert result.code == (0 if test.suggestion else 1)


def test_a_picture_is_drawn_and_only_such_a_one_replaced(run, refused, data, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra 'plot' is not installed")
    for _ in range(2):
        assert run("lr-find", "--data", data, "--plot", "curve.png").code == 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    refused(1, "other than a picture of ours", "lr-find", "--data", data, "--plot", data)
    refused(1, "cannot write no/where.png", "lr-find", "--data", data, "--plot", "no/where.png")


def test_where_no_rate_learns_it_says_so(run, data, monkeypatch):
    test = fastnn.RangeTest(2.0, [0.1, 0.2], [2.0, 2.5], None)
    monkeypatch.setattr(fastnn, "range_test", lambda *_, **how: test)
    result = run("lr-find", "--data", data)
    assert result.code == 1
    assert "no rate lowers the cost by a tenth" in result.out
    assert "suggested" not in result.out
    assert run("lr-find", "--data", data, "--json").json["suggestion"] is None


@pytest.mark.parametrize(
    ("says", "flags"),
    [
        ("Did you mean 'adam'?", "--optimiser adma"),
        ("are of sgd; adam has its own", "--optimiser adam --momentum 0.9"),
        ("softmax goes with 'log-likelihood'", "--output softmax"),
        ("--batch-size full", "--batch-size 1000000"),
        ("No such option", "--eta 0.5"),
    ],
)
def test_what_makes_no_sense_is_refused(refused, data, flags, says):
    refused(2, says, "lr-find", "--data", data, *flags.split())
