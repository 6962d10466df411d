"""Where a training's time goes."""

import json

import numpy as np
import pytest

import fastnn
from fastnn import Network, Profile, synthetic, train

DATA = synthetic(train=47, test=10, features=12, classes=3)


def profiled(device, fused=True, **settings):
    network, profile = Network([12, 7, 5, 3], device=device), Profile()
    history = train(
        network, DATA.train, DATA.test, epochs=2, batch_size=10, fused=fused, profile=profile,
        **settings,
    )  # fmt: skip
    return network, profile, history


@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_the_plain_step_shows_its_phases(device):
    _, profile, history = profiled(device, fused=False)
    assert history.step == "plain"
    phases = [span.phase for span in profile.spans]
    # Inputs and targets; three layers; BP1 and BP2 twice; three layers.
    mini_batch = ["gather"] * 2 + ["forward"] * 3 + ["backward"] * 3 + ["update"] * 3
    epoch = [*mini_batch * 5, "evaluate"]
    assert phases == epoch * 2


def test_weights_go_back_and_dropout_has_a_phase_of_its_own():
    how = {"class_weights": "balanced", "dropout": 0.5, "fused": False}
    _, profile, _ = profiled("numpy", **how)
    # Inputs, targets and weights; three layers, and before the upper two what is left of the one
    # below; BP1 and its weights; BP2 twice, each with the units that rest; three layers.
    forward = ["forward"] + ["dropout", "forward"] * 2
    backward = ["backward"] * 2 + ["backward", "dropout"] * 2
    mini_batch = ["gather"] * 3 + forward + backward + ["update"] * 3
    assert [span.phase for span in profile.spans] == [*mini_batch * 5, "evaluate"] * 2


def test_another_step_shows_its_calls():
    _, profile, history = profiled("numba")
    assert history.step == "epoch"
    assert set(profile.seconds()) == {"epoch step", "evaluate", "host"}


def test_spans_follow_one_another_and_all_of_the_time_is_accounted_for():
    _, profile, _ = profiled("numpy")
    ends = [span.began + span.seconds for span in profile.spans]
    assert all(span.began >= end for span, end in zip(profile.spans[1:], ends, strict=False))
    by_phase = profile.seconds()
    assert list(by_phase) == ["gather", "forward", "backward", "update", "evaluate", "host"]
    assert sum(by_phase.values()) >= ends[-1] - profile.spans[0].began


@pytest.mark.parametrize("fused", [True, False])
def test_it_changes_nothing_but_the_time(fused):
    watched, _, _ = profiled("numba", fused)
    alone = Network([12, 7, 5, 3], device="numba")
    train(alone, DATA.train, epochs=2, batch_size=10, fused=fused)
    for one, other in zip(watched.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not {"gather", "forward", "descend"} & set(vars(watched.backend))


def test_a_training_that_is_ended_leaves_the_device_as_it_was():
    network, profile, _ = profiled("numpy", on_call=lambda progress: True)
    assert "gather" not in vars(network.backend)
    assert profile.seconds()["gather"] > 0


def test_the_trace_is_one_that_is_read_elsewhere():
    _, profile, _ = profiled("numpy")
    events = json.loads(profile.trace())["traceEvents"]
    assert len(events) == len(profile.spans)
    for event, span in zip(events, profile.spans, strict=True):
        assert event["ph"] == "X"
        assert event["name"] == span.phase
        assert event["dur"] == pytest.approx(1e6 * span.seconds)
        assert event["ts"] >= 0


@pytest.mark.parametrize("content", [b"my thesis", b"{}"], ids=["something else", "another JSON"])
def test_it_writes_over_nothing_but_a_trace(tmp_path, content):
    path = tmp_path / "trace.json"
    path.write_bytes(content)
    with pytest.raises(fastnn.OutputError, match="holds something other than a trace"):
        fastnn.profiling.check_trace(path)
    path.write_text(Profile().trace())
    assert fastnn.profiling.check_trace(path) == path


@pytest.mark.parametrize("path", ["no/such/folder/trace.json", "", "nul\0byte"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fastnn.OutputError):
        fastnn.profiling.check_trace(path)
