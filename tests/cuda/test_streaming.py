"""Rows on the host: what is trained and measured in chunks comes out as if it were on the GPU."""

from dataclasses import replace

import numpy as np
import pytest
from descent import Case, assert_right, descended
from emulated import EmulatedBackend, EmulatedSlot

from fastnn import Network, evaluate, inference, synthetic, train
from fastnn.backends import cuda_streaming
from fastnn.backends.cuda_gpu import Limits
from fastnn.backends.cuda_streaming import HostRows
from fastnn.backprop import BackpropStep
from fastnn.errors import DeviceOutOfMemory

RESIDENT, GRAPH = Limits((9, 0), 227 << 10), Limits((9, 0), 0)


def on(dtype="float32", **has):
    """Return the device on a GPU that has these."""
    return type("Gpu", (EmulatedBackend,), {"has": has})(None, dtype)


@pytest.fixture(params=[1, 700, 1 << 26])
def chunk_bytes(request, monkeypatch):
    """Bytes of a chunk: a mini-batch, or a sample, each; a few; all that there are."""
    monkeypatch.setattr(cuda_streaming, "CHUNK_BYTES", request.param)
    return request.param


# A step on rows that lie on the host
# --------------------------------------------------------------------------------------------------

CASES = [
    Case((12, 9, 3), 5, row=row, dtype=dtype, tail=tail, shrink=0.97, skipped=0)
    for row, dtype, tail in (
        ("uint8", "float64", 3),
        ("float", "float64", 0),
        ("uint8", "float32", 1),
    )
]


def trained(case, step, on_host=()):
    """Return the parameters, all weights before all biases, and the step's name."""
    backend = on(case.dtype, limits=GRAPH if step == "graph" else RESIDENT)
    names = []

    def make(plan):
        kept = {name: HostRows(getattr(plan, name)) for name in on_host}
        plan = replace(plan, **kept)
        made = BackpropStep(backend, plan) if step == "plain" else backend.fused_step(plan)
        names.append(made.name)
        return made

    return descended(case, backend.gpu, make), names[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row}-{case.dtype}-{case.tail}")
@pytest.mark.parametrize("step", ["resident", "graph", "plain"])
@pytest.mark.parametrize("on_host", [["inputs"], ["targets"], ["inputs", "targets"]], ids="-".join)
def test_a_step_comes_to_the_same_bits(case, step, on_host, chunk_bytes):
    expected, name = trained(case, step)
    assert name == step
    got, name = trained(case, step, on_host)
    assert name == (step if step == "plain" else f"streamed {step}")
    assert assert_right(case, got) == assert_right(case, expected)


def test_a_chunk_is_whole_mini_batches_and_as_large_as_it_may_be(monkeypatch):
    sent = []

    def send(self, count):
        sent.append((self.host.dtype.name, self.host.shape[1], count))
        return original(self, count)

    original = EmulatedSlot.send
    monkeypatch.setattr(EmulatedSlot, "send", send)
    case = CASES[0]._replace(full=7, tail=3, spans=(8,))  # 38 samples of 15 bytes, labels included
    for size, counts in (
        (1, [5] * 7 + [3]),
        (149, [5] * 7 + [3]),
        (150, [10, 10, 10, 8]),
        (1 << 26, [38]),
    ):
        sent.clear()
        monkeypatch.setattr(cuda_streaming, "CHUNK_BYTES", size)
        trained(case, "resident", ["inputs", "targets"])
        assert sent[::2] == 2 * [("uint8", 12, count) for count in counts]
        assert sent[1::2] == 2 * [("uint8", 3, count) for count in counts]


# What is wrong in the order of things is found
# --------------------------------------------------------------------------------------------------


def fills_the_other(self, which, places):
    return FILL(self, 1 - which, places)


def releases_at_once(self, which, places):
    FILL(self, which, places)
    self.release(which)


FILL = cuda_streaming._Halves.fill


@pytest.mark.parametrize("step", ["resident", "plain"])
@pytest.mark.parametrize(
    ("owner", "method", "instead"),
    [
        (EmulatedSlot, "wait", lambda self: None),
        (cuda_streaming._Halves, "release", lambda self, which: None),
        (cuda_streaming._Halves, "fill", fills_the_other),
        (cuda_streaming._Halves, "fill", releases_at_once),
    ],
    ids=["not waited", "not released", "the other half", "released too early"],
)
def test_the_emulated_gpu_finds_a_piece_that_is_used_at_the_wrong_time(
    monkeypatch, owner, method, instead, step
):
    monkeypatch.setattr(cuda_streaming, "CHUNK_BYTES", 24)
    monkeypatch.setattr(owner, method, instead)
    with pytest.raises(AssertionError):
        assert_right(CASES[0], trained(CASES[0], step, ["inputs"])[0])


# A data set larger than the GPU's memory
# --------------------------------------------------------------------------------------------------

FEATURES, CLASSES, N = 240, 3, 503
SMALL = 110 << 10  # bytes, less than the data set has
SET = synthetic(train=N, test=107, features=FEATURES, classes=CLASSES)


def as_floats(data):
    return data.x.reshape(len(data), -1) / np.float32(255), data.labels


@pytest.fixture
def small_portions(monkeypatch):
    """The GPU has no room for more."""
    monkeypatch.setattr(inference, "PORTION", 1000)


def came_to(network, history):
    scores = [(each.train_cost, each.train_accuracy, each.test_cost) for each in history.epochs]
    return [each.tobytes() for each in (*network.weights, *network.biases)], scores


@pytest.mark.usefixtures("small_portions")
@pytest.mark.parametrize(
    ("limits", "fused", "step"),
    [
        (RESIDENT, True, "streamed resident"),
        (GRAPH, True, "streamed graph"),
        (RESIDENT, False, "plain"),
    ],
)
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_it_trains_and_measures_what_does_not_fit(monkeypatch, limits, fused, step, kind):
    monkeypatch.setattr(cuda_streaming, "CHUNK_BYTES", 1000 if kind == "uint8" else 4000)
    data, test = (SET.train, SET.test) if kind == "uint8" else map(as_floats, SET)
    results = []
    for memory in (1 << 30, SMALL):
        backend = on(limits=limits, memory=memory)
        network = Network([FEATURES, 8, CLASSES], device=backend)
        history = train(network, data, test, epochs=2, batch_size=4, fused=fused)
        results.append(came_to(network, history))
        assert (history.step == step) == (memory == SMALL or not fused)
    assert results[0] == results[1]


@pytest.mark.usefixtures("small_portions")
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_it_predicts_and_evaluates_what_does_not_fit(chunk_bytes, kind):
    data = SET.train if kind == "uint8" else as_floats(SET.train)
    x = SET.train.x if kind == "uint8" else data[0]
    results = []
    for memory in (1 << 30, SMALL):
        backend = on(memory=memory)
        assert isinstance(backend.asarray(x.reshape(N, -1)), HostRows) == (memory == SMALL)
        network = Network([FEATURES, 8, CLASSES], device=backend)
        results.append((evaluate(network, data), network.predict(x).tobytes()))
    assert results[0] == results[1]


def test_rows_that_would_fill_the_memory_stay_on_the_host():
    """An eighth of it is left for the rest: activations, deltas, the order of an epoch."""
    backend = on(memory=8000)
    fits, larger = np.zeros((70, 100), np.uint8), np.zeros((71, 100), np.uint8)
    assert isinstance(backend.asarray(larger), HostRows)
    held = backend.asarray(fits)
    assert isinstance(held, np.ndarray)
    # On a GPU that is nearly full, what is small beside the rest goes up all the same.
    assert isinstance(backend.asarray(fits[:3]), HostRows)
    assert isinstance(backend.asarray(fits[:2]), np.ndarray)
    del held
    assert isinstance(backend.asarray(fits[:3]), np.ndarray)


def test_rows_on_the_host_are_not_copied_and_come_back_as_a_copy():
    backend = on(memory=1000)
    host = np.arange(4000, dtype=np.uint8).reshape(40, 100)
    rows = backend.asarray(host)
    assert np.shares_memory(rows.host, host)
    back = backend.to_numpy(rows)
    np.testing.assert_array_equal(back, host)
    assert not np.shares_memory(back, host)
    np.testing.assert_array_equal(backend.to_numpy(backend.asarray(host[:, ::-1])), host[:, ::-1])


# Out of memory
# --------------------------------------------------------------------------------------------------


def test_a_network_larger_than_the_memory_is_an_error_with_sizes():
    with pytest.raises(DeviceOutOfMemory, match="2000 of 2000 bytes are free; 4040 were asked for"):
        Network([100, 10], device=on(memory=2000))
    assert DeviceOutOfMemory.exit_code == 1


@pytest.mark.parametrize("memory", [9 << 10, 20 << 10, 40 << 10])
def test_where_not_even_the_rest_fits_it_is_an_error(memory):
    network = Network([FEATURES, 8, CLASSES], device=on(memory=memory))
    with pytest.raises(DeviceOutOfMemory, match="bytes are free"):
        train(network, SET.train, epochs=1)
