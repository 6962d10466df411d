"""Which device has a turn when, and who is waited for."""

import hashlib
import sys
from threading import Thread
from types import SimpleNamespace

import pytest

from fastnn import DeviceError, race
from fastnn.trial import Stopwatch


@pytest.fixture
def seconds():
    """What it takes to make a trial, to have a turn, and to rest."""
    return {"made": 0.02, "turn": 0.01, "rest": 0.03}


@pytest.fixture
def events(monkeypatch, seconds):
    """What happens, by a clock that only this moves."""
    happened, now = [], [0.0]

    def happens(what, *who):
        now[0] += seconds[what]
        happened.append((what, *who))

    def turn(watch):
        happens("turn", watch.trial.name, watch.trial.step.name)
        return 1e-3

    monkeypatch.setattr(race, "perf_counter", lambda: now[0])
    monkeypatch.setattr(race, "_rest", lambda: happens("rest"))
    monkeypatch.setattr(
        Stopwatch, "__init__", lambda watch, trial, _: setattr(watch, "trial", trial)
    )
    monkeypatch.setattr(Stopwatch, "turn", turn)
    happened.append(happens)
    return happened


@pytest.fixture
def trial(events):
    """Make a trial: that of "fast" has a step of its own."""
    happens = events.pop()

    def make(name, own):
        step = "epoch" if own and name == "fast" else "plain"
        happens("made", name, step)
        plan = SimpleNamespace(batch_size=10)
        return SimpleNamespace(name=name, step=SimpleNamespace(name=step), plan=plan)

    return make


def test_each_has_two_turns_and_those_before_it_come_to_rest(events, trial):
    rates, failed = race.race(["fast", "slow"], trial)
    fast, slow, plain = ("fast", "epoch"), ("slow", "plain"), ("fast", "plain")
    assert events == [
        *[("rest",), ("made", *fast), ("turn", *fast)],
        *[("rest",), ("made", *slow), ("turn", *slow)],
        # BLAS's threads look out while this is made.
        *[("made", *plain), ("rest",), ("turn", *plain)],
        *[("turn", *fast), ("rest",), ("turn", *slow)],
    ]
    assert rates == {"fast": {"own": 1e4, "plain": 1e4}, "slow": {"own": 1e4}}
    assert failed == {}


@pytest.mark.parametrize(
    ("what", "takes", "turns"),
    [("made", 9, 5), ("turn", 0.012, 5), ("turn", 0.05, 3), ("rest", 0.2, 3)],
)
def test_where_there_is_no_time_for_second_turns_there_are_none(
    events, trial, seconds, what, takes, turns
):
    seconds[what] = takes
    race.race(["fast", "slow"], trial)
    assert [event[0] for event in events].count("turn") == turns


@pytest.mark.parametrize("fails", ["fast", "slow"])
def test_who_fails_is_told_and_has_no_other_turn(events, trial, fails):
    def failing(name, own):
        if name == fails:
            raise DeviceError("no memory")
        return trial(name, own)

    rates, failed = race.race(["fast", "slow"], failing)
    (other,) = {"fast", "slow"} - {fails}
    assert rates.keys() == {other}
    assert failed == {fails: "no memory"}


@pytest.mark.parametrize(("busy", "waits"), [(0, 0), (0.1, 0.1), (9, 0.15)])
def test_threads_that_still_work_are_waited_for_but_not_forever(busy, waits, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(race, "perf_counter", lambda: now[0])
    monkeypatch.setattr(race, "_others_work", lambda: now[0] < busy)
    monkeypatch.setattr(race, "sleep", lambda seconds: now.append(now.pop() + seconds))
    race._rest()
    assert now[0] == pytest.approx(waits, abs=0.002)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what threads do")
def test_it_is_seen_whether_another_thread_works():
    def work():
        while not seen:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2000)  # without Python's lock

    seen = []
    other = Thread(target=work)
    other.start()
    seen.append(any(race._others_work() for _ in range(100)))
    other.join()
    assert seen == [True]
    race._rest()  # from the tests before
    assert not race._others_work()
