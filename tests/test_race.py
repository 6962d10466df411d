"""Which device has a turn when, and who has another."""

from types import SimpleNamespace

import pytest

from fastnn import DeviceError, race
from fastnn.trial import Stopwatch


@pytest.fixture
def seconds():
    """What it takes to make a trial, to have a turn, and to rest."""
    return {"made": 0.02, "turn": 0.01, "rest": 0.005}


@pytest.fixture
def mini_batch():
    """The seconds of a mini-batch by device and step, which a test may change."""
    return {("fast", "epoch"): 1e-3, ("fast", "plain"): 5e-3, ("slow", "plain"): 2e-3}


@pytest.fixture
def events(monkeypatch, seconds, mini_batch):
    """What happens, by a clock that only this moves."""
    happened, now = [], [0.0]

    def happens(what, *who):
        now[0] += seconds[what]
        happened.append((what, *who))

    def turn(watch):
        happens("turn", *watch.trial.who)
        return mini_batch[watch.trial.who]

    monkeypatch.setattr(race, "perf_counter", lambda: now[0])
    monkeypatch.setattr(race, "come_to_rest", lambda: happens("rest"))
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
        plan, who = SimpleNamespace(batch_size=10), (name, step)
        return SimpleNamespace(who=who, step=SimpleNamespace(name=step), plan=plan)

    return make


OWN, PLAIN, SLOW = ("fast", "epoch"), ("fast", "plain"), ("slow", "plain")


def turns(events):
    return [tuple(who) for what, *who in events if what == "turn"]


def test_all_have_a_turn_after_a_rest_and_then_those_that_may_win(events, trial, seconds):
    seconds["turn"] = 0.032
    rates, failed = race.race(["fast", "slow"], trial)
    assert events[:3] == [("made", *who) for who in (OWN, PLAIN, SLOW)]
    assert events[3::2] == [("rest",)] * 5
    assert turns(events) == [OWN, PLAIN, SLOW, OWN, SLOW]
    assert rates == {"fast": {"own": 1e4, "plain": 2e3}, "slow": {"own": 5e3}}
    assert failed == {}


@pytest.mark.parametrize(
    ("who", "takes", "another"),
    [
        (SLOW, 4.9e-3, [OWN, SLOW]),
        (SLOW, 5.1e-3, []),
        (OWN, 7e-3, [OWN, PLAIN, SLOW]),
        (OWN, 3.9e-3, [OWN, SLOW]),
        (PLAIN, 1.2e-3, [OWN, PLAIN, SLOW]),
        (PLAIN, 1.3e-3, [OWN, SLOW]),
        (PLAIN, 0.39e-3, [OWN, PLAIN]),
    ],
)
def test_who_may_win_is_told_by_its_rate(events, trial, mini_batch, who, takes, another):
    mini_batch[who] = takes
    race.race(["fast", "slow"], trial)
    rounds = (len(turns(events)) - 3) // max(1, len(another))
    assert turns(events) == [OWN, PLAIN, SLOW, *another * rounds]
    assert rounds > 1 or not another


@pytest.mark.parametrize(
    ("made", "turn", "rounds"),
    [(0, 0.01, 4), (0.02, 0.019, 4), (0.02, 0.03, 2), (0.02, 0.1, 1), (9, 0.02, 2), (9, 0.04, 1)],
)
@pytest.mark.parametrize("rest", [0, 0.1])
def test_there_are_turns_while_there_is_time(events, trial, seconds, made, turn, rounds, rest):
    """That is 0.24 s, or 0.13 s where making takes long; four at the most, and rests are on top."""
    seconds.update(made=made, turn=turn, rest=rest)
    race.race(["fast", "slow"], trial)
    assert turns(events) == [OWN, PLAIN, SLOW, *[OWN, SLOW] * (rounds - 1)]


def test_one_that_is_alone_has_one_turn(events, trial):
    assert race.race(["slow"], trial) == ({"slow": {"own": 5e3}}, {})
    assert turns(events) == [SLOW]


def test_without_any_there_are_no_rates():
    assert race.race([], lambda name, own: None) == ({}, {})


@pytest.mark.parametrize("fails", ["fast", "slow"])
def test_who_cannot_be_tried_is_told_and_has_no_turn(events, trial, fails):
    def failing(name, own):
        if name == fails:
            raise DeviceError("no memory")
        return trial(name, own)

    rates, failed = race.race(["fast", "slow"], failing)
    (other,) = {"fast", "slow"} - {fails}
    assert rates.keys() == {other}
    assert failed == {fails: "no memory"}


@pytest.mark.parametrize(
    ("fails", "turn", "others"),
    [
        (OWN, 0, [OWN, SLOW]),
        (OWN, 1, [OWN, PLAIN, SLOW, OWN, SLOW]),
        (PLAIN, 0, [OWN, PLAIN, SLOW]),
        (SLOW, 1, [OWN, PLAIN, SLOW, OWN, SLOW]),
    ],
)
def test_who_fails_is_told_and_has_no_other_turn(events, trial, monkeypatch, fails, turn, others):
    had = Stopwatch.turn

    def failing(watch):
        if turns(events).count(fails) == turn and watch.trial.who == fails:
            had(watch)
            raise DeviceError("no memory")
        return had(watch)

    monkeypatch.setattr(Stopwatch, "turn", failing)
    rates, failed = race.race(["fast", "slow"], trial)
    (other,) = {"fast", "slow"} - {fails[0]}
    assert rates.keys() == {other}
    assert failed == {fails[0]: "no memory"}
    assert turns(events)[: len(others)] == others
    assert fails[0] not in [name for name, _ in turns(events)[len(others) :]]
