"""What is made of a step's times."""

import itertools

import pytest

import fastnn
from fastnn.trial import Stopwatch, Trial

DATA = fastnn.synthetic(train=3000, test=1, features=12, classes=3).train


@pytest.fixture
def trial():
    return Trial(fastnn.Network([12, 7, 3], device="numpy"), DATA, 10)


def stepping(monkeypatch, a_call, a_mini_batch):
    """Let calls take these seconds times a speed; return it in a list, and the calls' lengths."""
    slower, calls = [1], []

    def timed(trial, mini_batches):
        calls.append(mini_batches)
        return slower[0] * (a_call + mini_batches * a_mini_batch)

    monkeypatch.setattr(Trial, "timed", timed)
    return slower, calls


@pytest.mark.parametrize("a_mini_batch", [1e-6, 1e-4, 3e-2])
@pytest.mark.parametrize("stride", [1, 300])
def test_what_a_call_costs_once_is_left_out_where_a_call_takes_many(
    trial, monkeypatch, stride, a_mini_batch
):
    trial.step.stride = stride
    a_call = 5 * a_mini_batch if stride > 1 else 0
    stepping(monkeypatch, a_call, a_mini_batch)
    assert Stopwatch(trial, 0.01).turn() == pytest.approx(a_mini_batch)


@pytest.mark.parametrize("a_mini_batch", [1e-6, 1e-4, 3e-2])
@pytest.mark.parametrize("stride", [1, 300])
@pytest.mark.parametrize("speeds", [(1, 7), (7, 1)])
def test_a_turn_that_is_disturbed_does_not_count(trial, monkeypatch, stride, a_mini_batch, speeds):
    trial.step.stride = stride
    slower, _ = stepping(monkeypatch, a_mini_batch if stride > 1 else 0, a_mini_batch)
    watch = Stopwatch(trial, 0.01)
    for slower[0] in speeds:
        seconds = watch.turn()
    assert seconds == pytest.approx(a_mini_batch)


@pytest.mark.parametrize("stride", [1, 300])
@pytest.mark.parametrize("a_mini_batch", [4e-5 * 1.3**k for k in range(12)])
def test_a_turn_lasts_about_as_long_as_it_is_to(trial, monkeypatch, stride, a_mini_batch):
    trial.step.stride = stride
    a_call = 5 * a_mini_batch if stride > 1 else 0
    _, calls = stepping(monkeypatch, a_call, a_mini_batch)
    watch = Stopwatch(trial, 0.01)
    for _ in range(2):
        watch.turn()
        assert 0.005 <= sum(a_call + n * a_mini_batch for n in calls) <= 0.0175
        calls.clear()


def test_calls_that_are_disturbed_now_and_then_tell_no_other_rate(trial, monkeypatch):
    """Where a call costs much at once, a slow call of one must not be taken for that."""
    trial.step.stride = 300
    number = itertools.count()

    def timed(trial, mini_batches):
        return (80e-6 + mini_batches * 2e-6) * (3 if next(number) % 3 == 0 else 1)

    monkeypatch.setattr(Trial, "timed", timed)
    assert Stopwatch(trial, 0.01).turn() == pytest.approx(2e-6)


@pytest.mark.parametrize("batch_size", [3000, 2000])
def test_a_single_mini_batch_is_timed_by_itself(monkeypatch, batch_size):
    trial = Trial(fastnn.Network([12, 7, 3], device="numba"), DATA, batch_size)
    _, calls = stepping(monkeypatch, 0, 3e-3)
    assert Stopwatch(trial, 0.01).turn() == pytest.approx(3e-3)
    assert set(calls) == {1}


@pytest.mark.parametrize("a_mini_batch", [6e-3, 0.5])
def test_of_a_mini_batch_that_is_a_turn_by_itself_there_are_two(trial, monkeypatch, a_mini_batch):
    trial.step.stride = 1
    _, calls = stepping(monkeypatch, 0, a_mini_batch)
    watch = Stopwatch(trial, 0.01)
    for _ in range(2):
        watch.turn()
        assert calls == [1, 1]
        calls.clear()


def test_the_real_clock(trial):
    watch = Stopwatch(trial, 0.002)
    first, second = watch.turn(), watch.turn()
    assert 0 < second <= first < 0.1
