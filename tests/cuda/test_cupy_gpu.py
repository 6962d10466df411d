"""CupyGpu on a CuPy that runs on the host; see fake_cupy.py."""

import importlib
import sys

import numpy as np
import pytest
from fake_cupy import QueuedCublas, fake

from fastnn import Network, synthetic, train
from fastnn.backends import cuda_streaming
from fastnn.backends.cuda_streaming import HostRows
from fastnn.backends.cupy_cuda import CupyBackend
from fastnn.errors import DeviceOutOfMemory
from fastnn.testing import BackendConformance

DATA = synthetic(train=43, test=5, features=12, classes=3).train


@pytest.fixture(autouse=True)
def on_a_fake(request, monkeypatch, tmp_path):
    """The module cupy_gpu over the fake, for as long as a test takes."""
    made = fake()
    for name, module in (("cupy", made), ("cupy.cuda", made.cuda)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "fastnn.backends.cupy_gpu", raising=False)
    monkeypatch.setenv("FASTNN_CACHE_DIR", str(tmp_path))
    cupy_gpu = importlib.import_module("fastnn.backends.cupy_gpu")
    library = QueuedCublas()
    monkeypatch.setattr(cupy_gpu, "_library", lambda: library)
    yield made
    sys.modules.pop("fastnn.backends.cupy_gpu", None)


class Fake(CupyBackend):
    @classmethod
    def unavailable(cls, index=None):
        return None if index in (None, 0) else "there is one fake"

    @classmethod
    def checks(cls, index=None):
        return ()


class TestOnAFake(BackendConformance):
    device = Fake


# What a kernel computes is proven elsewhere: here it is how it comes to the GPU.
HOW = ["round_trip", "to_numpy", "empty", "views", "gather", "matmul"]
HOW += ["plain_step", "fused_step", "learns", "says"]
for name in dir(BackendConformance):
    if name.startswith("test_") and not any(word in name for word in HOW):
        setattr(TestOnAFake, name, None)


def trained(sizes, fused=True, batch_size=5):
    network = Network(sizes, device=Fake())
    history = train(network, DATA, epochs=2, batch_size=batch_size, fused=fused)
    return network, history


@pytest.mark.parametrize("batch_size", [1, 5, 43])
def test_a_graph_comes_to_what_the_plain_step_does(monkeypatch, batch_size):
    monkeypatch.setattr("fastnn.backends.cupy_cuda.fit", lambda *_: "it is not wanted")
    network, history = trained([12, 9, 7, 3], batch_size=batch_size)
    plain, _ = trained([12, 9, 7, 3], fused=False, batch_size=batch_size)
    assert history.step == "graph"
    for got, expected in zip(network.weights, plain.weights, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("step", ["resident", "graph"])
def test_rows_on_the_host_come_in_the_order_of_events(monkeypatch, step):
    if step == "graph":
        monkeypatch.setattr("fastnn.backends.cupy_cuda.fit", lambda *_: "it is not wanted")
    resident, _ = trained([12, 9, 3])
    monkeypatch.setattr(cuda_streaming, "CHUNK_BYTES", 150)
    asarray = Fake.asarray
    monkeypatch.setattr(
        Fake,
        "asarray",
        lambda self, host: HostRows(host) if host.ndim == 2 else asarray(self, host),
        raising=False,
    )
    streamed, history = trained([12, 9, 3])
    assert history.step == f"streamed {step}"
    for got, expected in zip(streamed.weights, resident.weights, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_memory_that_is_not_there_is_a_sentence_with_sizes():
    with pytest.raises(DeviceOutOfMemory, match=r"memory is full: [\d.]+ of its [\d.]+ GB"):
        Fake().empty((1 << 44,), np.float32)


def test_what_the_fake_has_the_real_one_has():
    sys.modules.pop("cupy")
    sys.modules.pop("cupy.cuda")
    real = pytest.importorskip("cupy")
    for name, what in vars(fake().cuda).items():
        if name.startswith("__"):
            continue
        assert hasattr(real.cuda, name) or name == "cublas", name
        if hasattr(what, "__dict__") and not isinstance(what, type):
            for inner in vars(what):
                assert hasattr(getattr(real.cuda, name), inner), (name, inner)
