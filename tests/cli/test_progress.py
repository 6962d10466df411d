"""What is shown of a training while it runs: how long it will yet take, and what fits."""

import re

import pytest

import fastnn.cli.progress
from fastnn import Epoch, Progress
from fastnn.cli.progress import Remaining

COLOUR = re.compile(r"\x1b\[[\d;]*m")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(fastnn.cli.progress, "perf_counter", clock)
    return clock


def run(clock, epochs, training, measuring, calls=10, warm_up=0.0):
    """Train by the clock; give where it is, what is said to be left, and what is."""
    remaining = Remaining(epochs)
    end = clock.now + warm_up + epochs * (training + measuring)
    for number in range(1, epochs + 1):
        began = clock.now
        for call in range(1, calls + 1):
            if number == call == 1:
                clock.now += warm_up
            clock.now += training / calls
            rate = 100 * call / (clock.now - began)
            remaining.call(Progress(number, 100 * call, 100 * calls, rate))
            yield number, call, remaining.seconds(), end - clock.now
        seconds = clock.now - began
        clock.now += measuring / 2
        yield number, "measuring", remaining.seconds(), end - clock.now
        clock.now += measuring / 2
        remaining.epoch(Epoch(number, seconds, 100 * calls / seconds, 0.1, 0.9))
        yield number, "end", remaining.seconds(), end - clock.now


@pytest.mark.parametrize("measuring", [0.0, 0.1, 2.0, 30.0])
def test_measuring_counts_from_the_second_epoch_on(clock, measuring):
    for number, call, said, left in run(clock, 8, 10.0, measuring):
        if number == 1 and call != "end":  # nothing was measured yet
            assert said == pytest.approx(max(0, left - 8 * measuring), abs=measuring + 1e-6)
        else:
            assert said == pytest.approx(left, abs=1e-6)


def test_epochs_that_were_done_before_tell_nothing_of_how_long_it_takes(clock):
    remaining = Remaining(100, 90)
    assert (remaining.done, remaining.seconds()) == (90, None)
    clock.now += 10
    remaining.call(Progress(91, 100, 100, 10.0))
    remaining.epoch(Epoch(91, 10.0, 10.0, 0.1, 0.9))
    assert (remaining.done, remaining.seconds()) == (91, pytest.approx(90))


def test_it_runs_down_between_the_calls(clock):
    remaining = Remaining(10)
    clock.now += 10
    remaining.call(Progress(1, 50, 100, 5.0))
    assert remaining.seconds() == pytest.approx(190)
    clock.now += 15
    assert remaining.seconds() == pytest.approx(175)
    clock.now += 1000
    assert remaining.seconds() == 0


def test_nothing_is_said_before_there_is_something_to_go_by(clock):
    remaining = Remaining(10)
    assert remaining.seconds() is None
    clock.now += 0.5  # the first mini-batch takes long
    remaining.call(Progress(1, 1, 1000, 2.0))
    assert remaining.seconds() is None


def test_a_slow_start_is_soon_forgotten(clock):
    said = [(said, left) for number, _, said, left in run(clock, 100, 1.0, 0.1, warm_up=5.0)]
    assert all(abs(said - left) < 0.1 * left for said, left in said[len(said) // 2 : -24])


def test_epochs_too_short_for_more_than_one_call(clock):
    for _, _, said, left in run(clock, 5000, 1e-3, 2e-3, calls=1):
        if left < 13:
            assert said == pytest.approx(left, abs=0.01)


def test_a_clock_that_stands_still(clock):
    remaining = Remaining(3)
    for number in (1, 2, 3):
        remaining.call(Progress(number, 5, 5, 1e9))
        remaining.epoch(Epoch(number, 1e-9, 1e9, 0.1, 0.9))
        assert remaining.seconds() is None
    assert remaining.done == 3


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-:--"), (0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (75, "1:15"), (3600, "1:00:00")],
)
def test_times(seconds, shown):
    assert fastnn.cli.progress._clock(seconds) == shown


def bars(shown):
    """The bar at each moment, without colours and what moves the cursor."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\r", shown)
    return [line for line in re.split(r"[\r\n]+", text) if re.match(r"epoch \d/3 [ ━╸╺]", line)]


@pytest.mark.parametrize(
    ("columns", "holds"),
    [
        (100, r"epoch 3/3 [━╸ ]+ cost \S+, test \S+ %  [\d,]+ samples/s  0:0\d, \S+ left *"),
        (80, r"epoch 3/3 [━╸ ]+ cost \S+, test \S+ %  [\d,]+ samples/s  0:0\d, \S+ left *"),
        (60, r"epoch 3/3 [━╸ ]+ [\d,]+ samples/s  0:0\d, \S+ left *"),
        (40, r"epoch 3/3 [━╸ ]+ 0:0\d, \S+ left *"),
        (20, r"epoch 3/3 [━╸ ]+"),
    ],
)
def test_a_bar_has_what_fits(on_terminal, columns, holds):
    _, shown = on_terminal(COLUMNS=str(columns), NO_COLOR="1")
    seen = bars(shown)
    assert all(len(bar) <= columns for bar in seen)
    assert re.fullmatch(holds, seen[-1]), seen[-1]


FULL = """
import fastnn.log

def full(*_, **__):
    raise fastnn.OutputError("cannot write log.csv: No space left on device")

fastnn.log.append = full
"""


def test_a_log_that_cannot_be_written_is_said_above_the_bar(on_terminal, tmp_path):
    _, shown = on_terminal("--log", "log.csv", code=1, prepare=FULL)
    said = "fastnn: cannot write log.csv: No space left on device; the training goes on without it"
    assert shown.count(said) == 1
    before = COLOUR.sub("", shown[: shown.index(said)])
    assert before.endswith(("\n", "\r", "\x1b[2K"))  # at the beginning of a line
    assert (tmp_path / "fastnn-small.safetensors").exists()
