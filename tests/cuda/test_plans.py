"""Which step a network gets on which GPU and why, and what the graph and cuBLAS are told."""

import copy
import pickle
import re
import weakref
from itertools import pairwise, product

import numpy as np
import pytest
from descent import Case, assert_right, mini_batch, plan_of, problem, trained_by_graph
from emulated import EmulatedBackend, EmulatedGpu, HostCublas, KernelFailed
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnn import SGD, Network, device, synthetic, train
from fastnn.backends import registry
from fastnn.backends.base import Layer, Plan
from fastnn.backends.cublas import WORKSPACE_BYTES, Cublas, Matrix
from fastnn.backends.cuda_gpu import Limits
from fastnn.backends.cuda_graph import _MANY, GraphStep
from fastnn.backends.cuda_resident import Kind, fit, tilings
from fastnn.errors import ArgumentError, DeviceError
from fastnn.testing import plans

# Shared memory that a block may have at the most, in KB, by compute capability.
GPUS = {(7, 5): 64, (8, 0): 163, (8, 6): 99, (8, 9): 99, (9, 0): 227, (10, 0): 227, (12, 0): 99}
KINDS = [("uint8", "float32"), ("float32", "float32"), ("uint8", "float64"), ("float64", "float64")]
NEVER = 1000  # KB

DATA = synthetic(train=43, test=1, features=12, classes=3).train
IMAGES = synthetic(train=13, test=1).train


def limits(capability):
    return Limits(capability, GPUS[capability] << 10)


def on(dtype="float32", precision="full", **has):
    """Return the device on a GPU that has these."""
    return type("Gpu", (EmulatedBackend,), {"has": has})(None, dtype, precision)


def plan_for(backend, sizes, batch_size, row="uint8"):
    gpu, dtype = backend.gpu, backend.dtype
    layers = tuple(
        Layer(gpu.empty((n_out, n_in), dtype), gpu.empty((n_out,), dtype), "sigmoid")
        for n_in, n_out in pairwise(sizes)
    )
    rows, targets = gpu.empty((1, sizes[0]), row), gpu.empty((1, sizes[-1]), np.uint8)
    return Plan(layers, sizes, "quadratic", rows, 1 / 255, targets, batch_size, batch_size)


# Which step, and why
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capability", GPUS)
@pytest.mark.parametrize(
    ("sizes", "batch_size", "dtype", "from_kb", "why"),
    [
        ((784, 30, 10), 10, "float32", 0, None),
        ((784, 30, 30, 10), 10, "float32", 0, None),
        ((784, 10), 10, "float32", 0, None),
        ((64, 30, 10), 10, "float32", 0, None),
        ((64, 30, 10), 10, "float64", 0, None),
        (
            (784, 16, 16, 10),
            32,
            "float32",
            115,
            r"takes 114 KB of shared memory; a block has {} KB",
        ),
        (
            (784, 16, 16, 10),
            32,
            "float64",
            NEVER,
            r"takes 232 KB of shared memory; a block has {} KB",
        ),
        (
            (784, 30, 10),
            1000,
            "float32",
            NEVER,
            r"takes 3,564 KB of shared memory; a block has {} KB",
        ),
        (
            (784, 100, 10),
            10,
            "float32",
            NEVER,
            "the 78,400 weights .* more than the registers of one block",
        ),
        (
            (784, 30, 10),
            10,
            "float64",
            NEVER,
            "the 23,520 weights .* more than the registers of one block",
        ),
    ],
)
def test_a_network_is_resident_where_it_fits(capability, sizes, batch_size, dtype, from_kb, why):
    backend = on(dtype, limits=limits(capability))
    said = backend.explain(plan_for(backend, sizes, batch_size))
    if GPUS[capability] >= from_kb:
        assert re.fullmatch(r"resident: a block of \d+ threads holds \d+ weights each", said)
    else:
        expected = why.format(GPUS[capability])
        assert re.match(f"graph: not resident, since .*{expected}", said), said


def test_a_mini_batch_that_takes_much_of_the_memory_is_left_to_the_plain_step():
    backend = on(memory=4 << 30)
    for batch_size, name in ((100_000, "graph"), (200_000, "plain")):
        plan = plan_for(backend, (784, 30, 10), batch_size)
        assert backend.explain(plan).startswith(f"{name}: not resident, since all but")
    assert re.search(
        r"shared memory; .*; no graph, since a mini-batch takes 1.3 GB, with 4.3 GB free",
        backend.explain(plan),
    )
    assert backend.fused_step(plan) is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_history_says_which_step_it_was(dtype):
    results = {}
    for name, kilobytes, fused in (
        ("resident", 227, True),
        ("graph", 0, True),
        ("plain", 227, False),
    ):
        backend = on(dtype, limits=Limits((9, 0), kilobytes << 10))
        network = Network([12, 9, 3], device=backend)
        history = train(network, DATA, epochs=2, fused=fused)
        assert (history.step, history.device) == (name, "cuda")
        results[name] = network.weights
    for weights in results.values():
        for got, expected in zip(weights, results["plain"], strict=True):
            assert got.dtype == dtype
            np.testing.assert_allclose(got, expected, atol=100 * np.finfo(dtype).eps)


def test_what_the_block_shares_is_counted_alike_on_both_sides():
    """Where it is not, the kernel does not compile."""
    case = Case((6, 5, 3), 4)
    right = case.fit()
    case.built(right)
    for wrong in (-16, 16):
        with pytest.raises(KernelFailed, match="the block has what it needs"):
            case.built(right._replace(shared_bytes=right.shared_bytes + wrong))


sizes_of_networks = st.lists(st.integers(1, 1200) | st.integers(1, 64), min_size=2, max_size=5)


@given(
    sizes_of_networks,
    st.integers(1, 300),
    st.booleans(),
    st.sampled_from(KINDS),
    st.sampled_from(sorted(GPUS)),
    st.sampled_from([1 << 16, 1 << 15]),
)
@settings(derandomize=True, deadline=None, max_examples=150)
def test_what_fits_asks_for_no_more_than_there_is(
    sizes, batch_size, momentum, kind, capability, registers
):
    row, dtype = map(np.dtype, kind)
    there = limits(capability)._replace(registers=registers)
    given = tuple(sizes), batch_size, row, dtype, there, Kind(momentum)
    how = fit(*given)
    assert how == fit(*given)
    if isinstance(how, str):
        assert re.search("than the registers|KB of shared memory", how)
        return
    assert how.tiling in tilings(*sizes[:2])
    assert how.threads <= 1024
    assert how.shared_bytes <= there.shared_memory
    # What a thread holds for certain: its weights, their velocities but for those in shared memory,
    # and its part of the rows on their way
    numbers = how.tiling.units * how.tiling.columns * dtype.itemsize
    assert 0 <= how.shared_quads <= (how.tiling.quads if momentum else 0)
    if momentum:
        numbers += numbers - how.tiling.units * 4 * how.shared_quads * dtype.itemsize
    numbers += how.held * -(-sizes[0] // 32) * row.itemsize
    given_out = registers // (128 * -(-how.threads // 128))
    assert numbers / 4 < min(255, given_out)
    assert 1 <= how.held <= -(-batch_size // how.tiling.warps)
    assert how.buffers in (1, 2)


@given(st.integers(1, 1200), st.integers(1, 200))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_every_tiling_has_each_weight_once(inputs, hidden):
    for tiling in tilings(inputs, hidden):
        slices = tiling.slice_warps * 32 // tiling.unit_lanes
        assert tiling.warps <= 32
        assert tiling.unit_warps * tiling.unit_lanes * tiling.units >= hidden
        assert (tiling.unit_warps - 1) * tiling.unit_lanes * tiling.units < hidden
        assert 4 * tiling.quads * slices <= inputs <= tiling.columns * slices
        assert (tiling.columns - 1) * slices < inputs


# Precision
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def emulated(monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "cuda", "emulated:EmulatedBackend")


@pytest.mark.parametrize("capability", GPUS)
def test_tf32_begins_with_compute_capability_8(capability):
    if capability >= (8, 0):
        assert on(precision="tf32", limits=limits(capability)).precision == "tf32"
    else:
        with pytest.raises(DeviceError, match=r"capability 7\.5, has no tf32; that begins at 8\.0"):
            on(precision="tf32", limits=limits(capability))


@pytest.mark.usefixtures("emulated")
def test_a_precision_is_asked_for_with_the_device():
    assert device("cuda").precision == "full"
    assert device("cuda", precision="tf32").precision == "tf32"


@pytest.mark.parametrize(
    ("spec", "precision", "says"),
    [
        ("numpy", "tf32", "device 'numpy' has no precision 'tf32'"),
        ("cuda", "tf23", "unknown precision 'tf23'. Did you mean 'tf32'?"),
        ("numpy", "half", "unknown precision 'half'"),
    ],
)
@pytest.mark.usefixtures("emulated")
def test_a_precision_that_is_not_there_is_said_so(spec, precision, says):
    with pytest.raises(ArgumentError, match=re.escape(says)):
        device(spec, precision=precision)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_copy_computes_as_its_original(copied, dtype):
    original = EmulatedBackend(0, dtype, "tf32")
    made = copied(original)
    assert made.gpu is not original.gpu
    for backend in (original, made):
        assert (backend.precision, backend.dtype, backend.index) == ("tf32", dtype, 0)


# The graph
# --------------------------------------------------------------------------------------------------

GRAPH = Case((7, 6, 5, 3), 2, ("tanh", "sigmoid"), dtype="float64", shrink=0.97)


@pytest.mark.parametrize("tail", [0, 1])
@pytest.mark.parametrize("full", [0, 1, _MANY - 1, _MANY, _MANY + 1, 2 * _MANY + 1])
def test_a_graph_takes_any_number_of_mini_batches(full, tail):
    case = GRAPH._replace(full=full, tail=tail, spans=(full + 1,))
    results = [trained_by_graph(case, order=order) for order in (0, 1, 2)]
    assert len({assert_right(case, got) for got in results}) == 1


def test_making_a_graph_leaves_the_parameters_as_they_are():
    backend, before = on("float64"), problem(GRAPH)
    plan, _ = plan_of(GRAPH, backend.gpu)
    GraphStep(backend, plan)
    for layer, w, b in zip(plan.layers, before.w, before.b, strict=True):
        assert (layer.w.tobytes(), layer.b.tobytes()) == (w.tobytes(), b.tobytes())


@pytest.mark.parametrize("optimiser", [SGD(), SGD(0.9), SGD(0.7, nesterov=True)], ids=str)
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize(("name", "kilobytes"), [("resident", 227), ("graph", 0)])
def test_both_steps_have_momentum_and_both_penalties(optimiser, watched, name, kilobytes):
    """Two epochs of 43 samples, by 13 at a time: the same as the plain step in float64."""
    how = {"epochs": 2, "batch_size": 13, "optimiser": optimiser, "l1": 0.2, "l2": 0.3}
    limits, ends, steps = Limits((9, 0), kilobytes << 10), [], []
    for backend in (on("float64", limits=limits, watched=watched), "numpy"):
        network = Network([12, 9, 3], device=backend, dtype="float64")
        steps.append(train(network, DATA, **how, schedule="step:1,0.5").step)
        ends.append([*network.weights, *network.biases])
    assert steps == [name, "plain"]
    for got, exact in zip(*ends, strict=True):
        np.testing.assert_allclose(got, exact, rtol=0, atol=1e-13)


class AnotherSGD(SGD):
    """What it makes of a gradient only it knows."""


def test_which_updates_a_step_has():
    for sizes, how, begins in (
        (
            [12, 9, 3],
            {"optimiser": SGD(0.9)},
            r"resident: .* holds \d weights and \d velocities each",
        ),
        ([12, 9, 3], {"optimiser": SGD(0.9, True), "l1": 1.0, "l2": 1.0}, "resident: "),
        ([12, 9, 3], {"l1": 1.0}, r"resident: .* holds \d weights each"),
        ([12, 9, 3], {"l2": 1.0}, "resident: "),
        ([12, 9, 3], {"optimiser": "adam"}, "plain: the others are for gradient descent, without"),
        ([12, 9, 3], {"optimiser": AnotherSGD(0.9)}, "plain: "),
        ([12, 9, 3], {"clip_norm": 1.0}, "plain: "),
        ([12, 9, 3], {"dropout": 0.5}, "plain: the others have no dropout"),
        (
            [784, 99, 10],
            {"optimiser": SGD(0.9)},
            "graph: .* layer and some of their velocities, and",
        ),
        ([784, 30, 10], {"l1": 1.0}, "resident: "),
        ([784, 30, 10], {"optimiser": SGD(0.9)}, "graph: not resident, since all but the first la"),
    ):
        network = Network(sizes, device=on(limits=limits((8, 6))))
        plan = plans.plan_for(network, DATA if sizes[0] == 12 else IMAGES, 10, **how)
        said = network.backend.explain(plan)
        assert re.match(begins, said), said
    assert re.search("weights and some of their velocities takes 136 KB of shared memory", said)


@pytest.mark.parametrize("how", [{}, {"optimiser": SGD(0.9), "l1": 0.1}], ids=str)
def test_samples_with_weights_go_by_the_plain_step(how):
    data, ends = (DATA.x, DATA.labels, np.arange(len(DATA)) % 5), []
    for backend in (on("float64"), "numpy"):
        network = Network([12, 9, 3], device=backend, dtype="float64")
        history = train(network, data, epochs=2, batch_size=13, class_weights="balanced", **how)
        ends.append([*network.weights, *network.biases])
        if backend != "numpy":
            says = "plain: the others take all samples alike, and these have weights"
            assert (history.step, history.why) == ("plain", says)
    for got, exact in zip(*ends, strict=True):
        np.testing.assert_allclose(got, exact, rtol=0, atol=1e-13)


def test_another_rate_needs_no_other_recording():
    backend, given = on("float64"), problem(GRAPH)
    plan, order = plan_of(GRAPH, backend.gpu)
    step = GraphStep(backend, plan)
    recordings, launches = backend.gpu.recordings, len(backend.gpu.launches)
    parameters = [each.copy() for each in (*given.w, *given.b)]
    velocities = [np.zeros_like(each) for each in parameters]
    for rate, shrink in ((0.5, 1.0), (0.1, 1.0), (0.1, 0.9), (0.5, 1.0)):
        step(order, 0, 6, rate, shrink)
        for first in (0, 2, 4):
            batch = given.order[first : first + 2]
            x, y = given.scale * given.rows[batch], given.targets[batch]
            mini_batch(GRAPH, parameters, velocities, x, y, rate, shrink)
    assert (
        recordings == backend.gpu.recordings == 1
    )  # a graph of many would be longer than the order
    assert launches == len(backend.gpu.launches)
    got = [*(layer.w for layer in plan.layers), *(layer.b for layer in plan.layers)]
    for array, exact in zip(got, parameters, strict=True):
        np.testing.assert_allclose(array, exact, rtol=1e-12)


# cuBLAS
# --------------------------------------------------------------------------------------------------


class Told(HostCublas):
    """Keeps what it is told."""

    def __init__(self, failing=None, status=0):
        super().__init__()
        self.told, self._failing, self._status = [], failing, status

    def __getattribute__(self, name):
        function = super().__getattribute__(name)
        if not name.startswith("cublas"):
            return function

        def noted(*arguments):
            self.told.append((name, [getattr(each, "value", None) for each in arguments[1:]]))
            return self._status if name == self._failing else function(*arguments)

        return noted


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("transpose_a", "transpose_b"), list(product([False, True], repeat=2)))
@pytest.mark.parametrize("on_gpu", [False, True])
def test_products_as_cublas_is_told_them(dtype, transpose_a, transpose_b, on_gpu):
    rng = np.random.default_rng(0)
    m, k, n = 3, 5, 7
    a = rng.integers(-9, 9, (k, m) if transpose_a else (m, k)).astype(dtype)
    b = rng.integers(-9, 9, (n, k) if transpose_b else (k, n)).astype(dtype)
    before = rng.integers(-9, 9, (m, n)).astype(dtype)
    product = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
    cublas = Cublas(HostCublas(), stream=0, workspace=0, tf32=False)
    for alpha, beta, start in (
        (2.0, 0.0, before * np.nan),
        (1.0, 1.0, before),
        (-0.5, 0.25, before),
    ):
        out = start.copy()
        on_device = np.array([alpha, beta], dtype)
        factors = [on_device[i:].ctypes.data for i in (0, 1)] if on_gpu else [alpha, beta]
        matrices = [Matrix(each.ctypes.data, *each.shape) for each in (a, b, out)]
        cublas.gemm(out.dtype, *matrices, transpose_a, transpose_b, *factors)
        expected = alpha * product + (beta * before if beta else 0)
        np.testing.assert_array_equal(out, expected)


def test_factors_on_the_gpu_are_read_when_the_product_is_run():
    gpu = EmulatedGpu()
    a, b, out = (gpu.asarray(np.full((2, 2), value)) for value in (1.0, 3.0, 0.0))
    alpha, beta = gpu.asarray(np.array([1.0])), gpu.asarray(np.array([0.0]))
    replay = gpu.recorded(lambda: gpu.gemm(a, b, out, False, False, alpha, beta))
    np.testing.assert_array_equal(out, 0)
    for factor in (1, 7):
        gpu.copy(gpu.asarray(np.array([1.0 * factor])), alpha)
        replay()
        np.testing.assert_array_equal(out, factor * 6)


@pytest.mark.parametrize("tf32", [False, True])
def test_cublas_is_set_up_in_the_order_that_it_wants(tf32):
    """A new stream takes its workspace away again."""
    library = Told()
    handle = Cublas(library, stream=11, workspace=22, tf32=tf32)
    assert library.told == [
        ("cublasCreate_v2", []),
        ("cublasSetStream_v2", [11]),
        ("cublasSetWorkspace_v2", [22, WORKSPACE_BYTES]),
        ("cublasSetMathMode", [3 if tf32 else 0]),
    ]
    del handle
    assert library.told[4:] == [("cublasDestroy_v2", [])]


def test_cublas_goes_before_its_stream_and_its_workspace():
    class Stream:
        pass

    class Library(Told):
        def cublasDestroy_v2(self, handle):
            assert stream() is not None
            self.told.append("destroyed")

    library, kept = Library(), Stream()
    stream = weakref.ref(kept)
    handle = Cublas(library, stream=11, workspace=22, tf32=False, kept=kept)
    del kept, handle
    assert library.told[-1] == "destroyed"
    assert stream() is None


@pytest.mark.parametrize(
    ("function", "status", "says"),
    [
        ("cublasCreate_v2", 1, "it is not initialised"),
        ("cublasCreate_v2", 3, "memory could not be had"),
        ("cublasSetWorkspace_v2", 7, "an argument is out of its range"),
        ("cublasDgemm_v2", 13, "the computation failed on the GPU"),
        ("cublasDgemm_v2", 99, "it does not say why"),
    ],
)
def test_what_cublas_reports_is_a_sentence(function, status, says):
    one = np.ones((1, 1))
    matrix = Matrix(one.ctypes.data, 1, 1)
    with pytest.raises(DeviceError, match=f"cuBLAS failed in {function}: {says} .status {status}"):
        Cublas(Told(function, status), stream=0, workspace=0, tf32=False).gemm(
            one.dtype, matrix, matrix, matrix, False, False, 1.0, 0.0
        )
