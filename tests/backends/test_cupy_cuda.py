"""The CUDA device on a real GPU; where there is none, tests/cuda has the proof that can be had.

Skipped as a whole where it cannot be used, unless FASTNN_REQUIRE names cuda.
"""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastnn
from fastnn import Network, device, synthetic, train
from fastnn.backends import cuda_streaming
from fastnn.backends.cuda_streaming import HostRows
from fastnn.backends.cupy_cuda import CupyBackend
from fastnn.backends.registry import usable
from fastnn.errors import DeviceError, DeviceOutOfMemory, DeviceUnavailable
from fastnn.testing import BackendConformance

if "cuda" not in os.environ.get("FASTNN_REQUIRE", "").split(",") and "cuda" not in usable():
    reason = CupyBackend.unavailable() or "see `fastnn devices`"
    pytest.skip(f"no CUDA: {reason}", allow_module_level=True)


class TestCuda(BackendConformance):
    device = "cuda"


DATA = synthetic(train=1_234, test=10).train


def trained(sizes, batch_size, fused=True, backend="cuda", data=DATA, rate=0.5, **network):
    made = Network(sizes, device=backend, **network)
    history = train(made, data, epochs=2, batch_size=batch_size, learning_rate=rate, fused=fused)
    return made, history


def parameters(network):
    return [*network.weights, *network.biases]


def apart(one, other):
    return max(
        np.abs(a - b).max() / np.abs(b).max()
        for a, b in zip(parameters(one), parameters(other), strict=True)
    )


@pytest.mark.parametrize(
    ("sizes", "batch_size", "step"),
    [
        ([784, 30, 10], 10, "resident"),
        ([784, 30, 10], 1, "resident"),
        ([784, 10], 10, "resident"),
        ([784, 3, 10], 1, "resident"),
        ([784, 10], 200, "graph"),
        ([784, 100, 10], 10, "graph"),
        ([784, 128, 10], 128, "graph"),
        ([784, 300, 200, 10], 1000, "graph"),
    ],
)
@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_each_plan_trains_as_the_plain_step_and_as_numpy(sizes, batch_size, step, kind):
    data = DATA if kind == "bytes" else (DATA.x.astype(np.float32) / 255, DATA.labels)
    network, history = trained(sizes, batch_size, data=data)
    assert history.step == step
    plain, plainly = trained(sizes, batch_size, fused=False, data=data)
    assert plainly.step == "plain"
    exact, _ = trained(sizes, batch_size, backend="numpy", data=data, dtype="float64")
    steps = 2 * -(-len(DATA) // batch_size)
    tolerance = 8 * np.finfo(np.float32).eps * 784**0.5 * steps**0.5
    assert apart(network, plain) < tolerance
    assert apart(network, exact) < tolerance


def test_the_same_seed_gives_the_same_bits():
    for sizes in ([784, 30, 10], [784, 100, 10]):
        one, other = (trained(sizes, 32)[0] for _ in range(2))
        assert all(map(np.array_equal, parameters(one), parameters(other)))


@pytest.mark.parametrize("sizes", [[784, 30, 10], [784, 100, 10]])
def test_rows_that_stay_on_the_host_are_trained_on_bit_by_bit(monkeypatch, sizes):
    resident, history = trained(sizes, 10)
    monkeypatch.setattr(cuda_streaming, "CHUNK_BYTES", 60_000)
    asarray = CupyBackend.asarray
    monkeypatch.setattr(
        CupyBackend,
        "asarray",
        lambda self, host: HostRows(host) if host.ndim == 2 else asarray(self, host),
    )
    streamed, streaming = trained(sizes, 10)
    assert streaming.step == f"streamed {history.step}"
    assert all(map(np.array_equal, parameters(streamed), parameters(resident)))
    assert [e.train_cost for e in streaming.epochs] == [e.train_cost for e in history.epochs]


def test_tf32_is_less_exact_and_exact_enough():
    sizes = [784, 512, 512, 10]
    if CupyBackend().gpu.limits.capability < (8, 0):
        with pytest.raises(DeviceError, match=r"tf32; that begins at 8\.0"):
            device("cuda", precision="tf32")
        return
    full, _ = trained(sizes, 100)
    rounded, _ = trained(sizes, 100, backend=device("cuda", precision="tf32"))
    assert 1e-6 < apart(rounded, full) < 0.05


def test_memory_that_is_not_there_is_a_sentence_with_sizes():
    backend = device("cuda")
    with pytest.raises(DeviceOutOfMemory, match=r"memory is full: [\d.]+ of its [\d.]+ GB"):
        backend.empty((1 << 44,), np.float32)
    assert backend.to_numpy(backend.asarray(np.ones(3, np.float32))).sum() == 3


def test_a_gpu_has_a_number():
    assert device("cuda").spec == "cuda"
    network, history = trained([784, 30, 10], 10, backend="cuda:0")
    assert (network.backend.spec, history.device) == ("cuda:0", "cuda:0")


def test_a_gpu_that_is_not_there():
    with pytest.raises(DeviceUnavailable, match="there is no cuda:99"):
        device("cuda:99")


def test_the_first_run_of_a_graph_leaves_the_weights_alone():
    network = Network([784, 100, 10], device="cuda")
    before = parameters(network)
    train(network, DATA, epochs=1, batch_size=10, learning_rate=1e-30)
    assert all(map(np.array_equal, parameters(network), before))


def test_a_network_goes_to_the_gpu_and_back():
    there = Network([784, 30, 10], device="numpy").to("cuda")
    back = pickle.loads(pickle.dumps(there)).to("numpy")
    assert there.backend.spec == "cuda"
    assert all(map(np.array_equal, parameters(back), parameters(there)))
    np.testing.assert_allclose(there.forward(DATA.x), back.forward(DATA.x), atol=1e-5)


def test_threads_train_beside_each_other():
    alone = parameters(trained([784, 30, 10], 10)[0])
    with ThreadPoolExecutor(4) as pool:
        networks = pool.map(lambda _: trained([784, 30, 10], 10)[0], range(4))
        for network in networks:
            assert all(map(np.array_equal, parameters(network), alone))


def test_auto_takes_it():
    assert fastnn.device("auto").name == "cuda"
