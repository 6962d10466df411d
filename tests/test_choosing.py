"""What ``auto`` takes, why, and what it keeps."""

import json

import pytest

import fastnn
from fastnn import ArgumentError, DataError, Dataset, DeviceError, choosing, race
from fastnn.choosing import choose
from fastnn.trial import Stopwatch, Trial

DATA = fastnn.synthetic(train=300, test=1, features=12, classes=3).train
SIZES = [12, 7, 3]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of its own, with three devices of which one cannot be used."""
    monkeypatch.setattr(choosing, "cache_folder", lambda name: tmp_path / name)
    found = {"cuda": "no driver was found (install one).", "numba": None, "numpy": None}
    monkeypatch.setattr(choosing, "reasons", lambda: dict(found))
    monkeypatch.delenv("FASTNN_AUTO", raising=False)
    return tmp_path / "auto"


@pytest.fixture
def clock(monkeypatch):
    """Seconds a mini-batch by device and step, and who had a turn; there is time for one each."""
    seconds = {("numba", "epoch"): 1e-6, ("numba", "plain"): 4e-6, ("numpy", "plain"): 2e-6}
    timed = []

    def instead(watch):
        who = watch.trial.network.backend.name, watch.trial.step.name
        timed.append(who)
        return seconds[who]

    monkeypatch.setattr(Stopwatch, "turn", instead)
    monkeypatch.setattr(race, "FROM_START", 0)
    monkeypatch.setattr(race, "FROM_THEN", 0)
    return seconds, timed


def test_the_fastest_is_taken_and_the_line_says_what_each_came_to(clock):
    chosen = choose(SIZES, DATA, 10)
    assert (chosen.device, chosen.fused) == ("numba", True)
    assert chosen.why == "numba: 10.00 M samples/s, numpy 5.00 M; cuda: no driver was found"


@pytest.mark.parametrize(
    ("numba", "numpy", "taken"), [(10, 10.9, "numba"), (10, 11.2, "numpy"), (10.9, 10, "numba")]
)
def test_of_two_that_are_as_good_the_first_is_taken(clock, numba, numpy, taken):
    seconds, _ = clock
    seconds["numba", "epoch"], seconds["numpy", "plain"] = 1e-6 / numba, 1e-6 / numpy
    chosen = choose(SIZES, DATA, 10)
    assert (chosen.device, chosen.fused) == (taken, True)
    assert chosen.why.startswith(f"{taken}: ")


def test_a_device_whose_plain_step_is_faster_takes_that(clock):
    seconds, _ = clock
    seconds["numba", "epoch"] = 8e-6
    seconds["numpy", "plain"] = 6e-6
    chosen = choose(SIZES, DATA, 10)
    assert (chosen.device, chosen.fused) == ("numba", False)


def test_it_is_measured_once_for_a_shape(clock, folder):
    _, timed = clock
    first = choose(SIZES, DATA, 10)
    assert timed == [("numba", "epoch"), ("numba", "plain"), ("numpy", "plain")]
    assert choose(SIZES, DATA, 10) == first
    assert len(timed) == 3
    choose(SIZES, DATA, 20)
    choose([12, 8, 3], DATA, 10)
    choose(SIZES, DATA, 10, activation="relu")
    assert len(timed) == 12
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", '{"numba": 3}', '{"numba": {"own": "fast", "plain": 1}}'),
        '{"numba": {"own": 5}}',
        '{"numba": {"own": 5}, "numpy": {"own": 5}, "cuda": {"own": 5}}',
        '{"numba": {"own": 5}, "numpy": {"plain": 5}}',
        '{"numba": {"own": 5}, "numpy": {"own": 5, "best": 6}}',
        *(f'{{"numba": {{"own": {r}}}, "numpy": {{"own": 5}}}}' for r in (0, -1, "NaN", "1e400")),
    ],
)
def test_a_damaged_file_is_ignored_and_written_anew(clock, folder, content):
    _, timed = clock
    before = choose(SIZES, DATA, 10)
    (path,) = folder.iterdir()
    path.write_text(content)
    assert choose(SIZES, DATA, 10) == before
    assert len(timed) == 6
    assert json.loads(path.read_text())["numba"]["own"] == pytest.approx(10 / 1e-6)


def test_where_nothing_can_be_kept_it_is_measured_each_time(clock, folder):
    _, timed = clock
    folder.write_text("a file where a folder should be")
    assert choose(SIZES, DATA, 10) == choose(SIZES, DATA, 10)
    assert len(timed) == 6


def test_another_version_is_measured_anew(clock, monkeypatch):
    _, timed = clock
    choose(SIZES, DATA, 10)
    monkeypatch.setattr(choosing.metadata, "version", lambda name: "99")
    choose(SIZES, DATA, 10)
    assert len(timed) == 6


@pytest.fixture
def break_numba(monkeypatch):
    """Let the device no longer be made, with that error."""
    make = choosing.device

    def break_numba(error):
        def failing(name, dtype):
            if name == "numba":
                raise error
            return make(name, dtype)

        monkeypatch.setattr(choosing, "device", failing)

    return break_numba


def test_a_device_that_fails_is_told_and_nothing_is_kept(clock, break_numba, folder):
    break_numba(RuntimeError("the kernel failed"))
    chosen = choose(SIZES, DATA, 10)
    assert chosen.device == "numpy"
    assert "numba: device 'numba' is broken" in chosen.why
    assert not folder.exists()


@pytest.mark.parametrize("before", [0, 1])
def test_a_device_that_fails_while_it_is_timed_is_told(clock, monkeypatch, folder, before):
    _, timed = clock
    turn_of = Stopwatch.turn

    def failing(watch):
        mine = [name for name, _ in timed].count("numba")
        if watch.trial.network.backend.name == "numba" and mine == before:
            raise RuntimeError("the kernel failed")
        return turn_of(watch)

    monkeypatch.setattr(Stopwatch, "turn", failing)
    chosen = choose(SIZES, DATA, 10)
    assert chosen.device == "numpy"
    assert "numba: device 'numba' is broken" in chosen.why
    assert timed.count(("numpy", "plain")) == 1
    assert not folder.exists()


def test_without_any_device_it_says_why_each_is_not(monkeypatch):
    monkeypatch.setattr(choosing, "reasons", lambda: {"cuda": "no driver.", "numpy": "no NumPy."})
    with pytest.raises(DeviceError, match=r"(?s)cuda: no driver.*numpy: no NumPy"):
        choose(SIZES, DATA, 10)


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_measuring_can_be_switched_off(clock, monkeypatch, how):
    _, timed = clock
    if how == "environment":
        monkeypatch.setenv("FASTNN_AUTO", "static")
    chosen = choose(SIZES, DATA, 10, measure=how != "argument")
    assert timed == []
    assert chosen.device == fastnn.device("auto").spec
    assert "first usable" in chosen.why


def test_a_device_that_breaks_after_it_was_measured_is_not_taken(clock, break_numba):
    _, timed = clock
    assert choose(SIZES, DATA, 10).device == "numba"
    break_numba(DeviceError("device 'numba' is broken"))
    chosen = choose(SIZES, DATA, 10)
    assert chosen.device == "numpy"
    assert "numba: device 'numba' is broken" in chosen.why
    assert len(timed) == 4


def test_fewer_data_are_measured_anew(clock):
    _, timed = clock
    choose(SIZES, DATA, 10)
    choose(SIZES, Dataset(DATA.x[:40], DATA.labels[:40]), 10)
    assert len(timed) == 6


@pytest.mark.parametrize("sizes", [[11, 7, 3], [784, 7, 3], [12, 7, 2], [1, 3]])
def test_sizes_that_do_not_fit_the_data_are_refused(sizes):
    with pytest.raises(DataError, match="the network"):
        choose(sizes, DATA, 10)


@pytest.mark.parametrize("hidden", [[0], [10**9, 10**9], [10**19], [2**62, 2**62], ["7"]])
def test_sizes_that_cannot_be_are_refused(hidden):
    with pytest.raises(ArgumentError, match=r"a layer's size must be|would take"):
        choose([12, *hidden, 3], DATA, 10)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "10", 301])
def test_a_batch_size_that_training_refuses_is_refused(batch_size):
    with pytest.raises(ArgumentError, match="batch"):
        choose(SIZES, DATA, batch_size)


@pytest.mark.parametrize(
    "wrong", [{"init": "xavier"}, {"seed": -1}, {"activation": "gelu"}, {"cost": "hinge"}]
)
def test_a_network_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong)).replace("init", "initialiser")):
        choose(SIZES, DATA, 10, **wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"activaton": "relu"}, "Did you mean 'activation'"),
        ({"descent": {"optimizer": "adam"}}, "Did you mean 'optimiser'"),
        ({"descent": {"optimiser": "adma"}}, "Did you mean 'adam'"),
        ({"descent": {"class_weights": [1, 2]}}, "class_weights has 2 numbers"),
        ({"descent": "adam"}, "descent must be a dictionary"),
        ({"l2": 0.1}, "unknown setting 'l2'"),
        ({"device": "numba"}, "unknown setting 'device'"),
        ({"measure": "no"}, "measure must be True or False"),
        ({"fused": "no"}, "fused must be True or False"),
    ],
)
def test_what_nothing_takes_is_refused(wrong, says):
    with pytest.raises(ArgumentError, match=says):
        choose(SIZES, DATA, 10, **wrong)


def test_without_their_own_steps_the_plain_ones_count(clock, folder):
    _, timed = clock
    assert choose(SIZES, DATA, 10).device == "numba"
    chosen = choose(SIZES, DATA, 10, fused=False)
    assert (chosen.device, chosen.fused) == ("numpy", False)
    assert chosen.why == "numpy: 5.00 M samples/s, numba 2.50 M; cuda: no driver was found"
    assert ("numba", "epoch") not in timed[3:]
    assert choose(SIZES, DATA, 10, measure=False, fused=False).fused is False


def test_what_training_takes_is_taken(clock, monkeypatch):
    dtypes = []
    monkeypatch.setattr(
        choosing,
        "Trial",
        lambda on, *_, **__: dtypes.append(on.backend.dtype) or Trial(on, *_, **__),
    )
    assert choose(SIZES, (DATA.x, DATA.labels), None, dtype="float64").device == "numba"
    assert dtypes == ["float64"] * 3


def test_only_static_switches_measuring_off(monkeypatch):
    monkeypatch.setenv("FASTNN_AUTO", "STATIC")
    with pytest.raises(ArgumentError, match="'static', or not be set; it is 'STATIC'"):
        choose(SIZES, DATA, 10)


@pytest.mark.parametrize("batch_size", [1, 300, None])
def test_the_real_clock(batch_size):
    chosen = choose(SIZES, DATA, batch_size)
    assert chosen.device in ("numba", "numpy")
    assert "samples/s" in chosen.why
