"""The fused step against mini-batches written in NumPy, and against itself.

Nothing but the step itself is of the package: what it should do is written again below, in float64.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread, active_count
from time import monotonic, sleep
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numba.core.runtime import _nrt_python, rtsys
from threadpoolctl import threadpool_limits

from fastnn import SGD, Network, device, synthetic, train
from fastnn.backends.base import Plan
from fastnn.threads import using

# σ(z), and σ′(z) by a = σ(z)
ACTIVATIONS = {
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda a: a * (1 - a)),
    "tanh": (np.tanh, lambda a: 1 - a**2),
    "relu": (lambda z: z * (z > 0), lambda a: 1.0 * (a > 0)),
    "leaky-relu": (lambda z: np.where(z > 0, z, z / 100), lambda a: np.where(a > 0, 1, 0.01)),
    "identity": (lambda z: z, lambda a: 1.0),
    "softmax": (lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), None),
}
HIDDEN = [name for name in ACTIVATIONS if name != "softmax"]
PAIRS = [
    *itertools.product(("quadratic", "squared-error"), HIDDEN),
    ("cross-entropy", "sigmoid"),
    ("log-likelihood", "softmax"),
]
FACTOR = {"quadratic": 1, "squared-error": 2}  # ∇_a C = factor · (a - y); the others cancel σ′

DTYPES = ["float32", "float64"]


@pytest.fixture(autouse=True, scope="module")
def one_thread_for_numpy():
    """Threads of NumPy's would look out for more work while the step's want the processor."""
    with threadpool_limits(1, user_api="blas"):
        yield


class Case(NamedTuple):
    """What is trained, on what, and how."""

    sizes: list[int]
    activations: list[str]  # of the hidden layers
    dtype: str
    kind: str  # of the samples, "uint8" or "float"
    batch_size: int
    n: int
    density: float  # of what is not 0 in the samples
    blank: int  # this mini-batch is 0 throughout, if there is one
    spans: list[int]  # mini-batches a call, in turn
    shrink: float
    threads: int
    seed: int


# Some whose rows would all fall on the same lines of the cache, and more columns than are taken at
# once.
widths = st.integers(1, 70) | st.sampled_from([127, 128, 200, 256, 390])


@st.composite
def cases(draw):
    sizes = draw(st.lists(widths, min_size=2, max_size=5))
    batch_size = draw(st.integers(1, 24))
    full = draw(st.integers(0, 4))
    tail = draw(st.integers(0 if full else 1, batch_size - 1 if full else batch_size))
    return Case(
        sizes=sizes,
        activations=draw(st.tuples(*[st.sampled_from(HIDDEN)] * (len(sizes) - 2))),
        dtype=draw(st.sampled_from(DTYPES)),
        kind=draw(st.sampled_from(["uint8", "float"])),
        batch_size=min(batch_size, full * batch_size + tail),
        n=full * batch_size + tail,
        density=draw(st.sampled_from([1.0, 0.5, 0.1])),
        blank=draw(st.integers(0, 8)),
        spans=draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)),
        shrink=draw(st.sampled_from([1.0, 0.9])),
        threads=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def forward(w, b, activations, x):
    a = [x]
    for w_l, b_l, activation in zip(w, b, activations, strict=True):
        a.append(ACTIVATIONS[activation][0](a[-1] @ w_l.T + b_l))
    return a


def mini_batch(w, b, activations, cost, x, y, rate, shrink):
    """One mini-batch of gradient descent in float64, in place."""
    a = forward(w, b, activations, x)
    delta = a[-1] - y
    if cost in FACTOR:
        delta = FACTOR[cost] * delta * ACTIVATIONS[activations[-1]][1](a[-1])
    for l in reversed(range(len(w))):  # noqa: E741  the texts' letter
        below = delta @ w[l]
        w[l] = shrink * w[l] - rate / len(x) * delta.T @ a[l]
        b[l] = b[l] - rate / len(x) * delta.sum(axis=0)
        if l:
            delta = below * ACTIVATIONS[activations[l - 1]][1](a[l])


def descended(case, cost, output):
    """Train two epochs by the step, and in float64.

    Return the network, the step, the parameters as they should be, and how far each may be off.
    """
    rng = np.random.default_rng(case.seed)
    sizes, n, dtype = case.sizes, case.n, np.dtype(case.dtype)
    network = Network.from_parameters(
        [rng.standard_normal((o, i)) / i**0.5 for i, o in itertools.pairwise(sizes)],
        [rng.standard_normal(o) / 2 for o in sizes[1:]],
        activation=list(case.activations) or "sigmoid",
        output=output,
        cost=cost,
        device="numba",
        dtype=dtype,
    )
    order = rng.permutation(n).astype(np.int32)
    pixels = rng.integers(1, 256, (n, sizes[0])) * (rng.random((n, sizes[0])) < case.density)
    pixels[order[case.blank * case.batch_size : (case.blank + 1) * case.batch_size]] = 0
    scale = 1 / 255 if case.kind == "uint8" else 1.0
    given_x = pixels.astype(np.uint8) if case.kind == "uint8" else (pixels / 255).astype(dtype)
    x = scale * given_x.astype(np.float64)
    y = np.eye(sizes[-1], dtype=np.uint8)[rng.integers(0, sizes[-1], n)]
    w, b = ([each.astype(np.float64) for each in of] for of in (network.weights, network.biases))
    # Small enough that no training here runs away, whatever is linear in it.
    a = forward(w, b, network.activations, x)
    rate = 0.5 / (1 + sum(np.abs(a_l).max() ** 2 * a_l.shape[1] for a_l in a))

    plan = Plan(network.layers, network.sizes, cost, given_x, scale, y, n, case.batch_size)
    with using(case.threads):
        step = network.backend.fused_step(plan)
    mini_batches, largest, spans = 0, 1.0, itertools.cycle(case.spans)  # 1 is in the targets
    for _ in range(2):
        start = 0
        while start < n:
            stop = min(start + next(spans) * case.batch_size, n)
            step(order, start, stop, rate, case.shrink)
            start = stop
        for start in range(0, n, case.batch_size):
            batch = order[start : start + case.batch_size]
            mini_batch(w, b, network.activations, cost, x[batch], y[batch], rate, case.shrink)
            mini_batches += 1
            largest = max(largest, *(np.abs(each).max() for each in (*w, *b)))
    # A sum of k terms is off by eps · √k, and each mini-batch adds to what was off before it.
    k = max(case.batch_size, *sizes) * mini_batches**2
    return network, step, [*w, *b], 8 * np.finfo(dtype).eps * k**0.5 * largest


@pytest.mark.parametrize(("cost", "output"), PAIRS)
@given(cases())
@settings(derandomize=True, deadline=None, max_examples=50)
def test_it_descends_as_numpy_does(cost, output, case):
    network, step, expected, atol = descended(case, cost, output)
    assert step.name == "epoch"
    for got, exact in zip([*network.weights, *network.biases], expected, strict=True):
        assert got.dtype == case.dtype
        np.testing.assert_allclose(got, exact, rtol=0, atol=atol)


@given(cases())
@settings(derandomize=True, deadline=None, max_examples=50)
def test_what_fills_up_the_rows_never_learns(case):
    """What of w and b in the step's memory is no number of the network is still 0."""
    _, step, *_ = descended(case, "quadratic", "sigmoid")
    memory, epoch = step._work.memory, device("numba", case.dtype)._code.epoch
    filling = np.zeros(memory.size, bool)
    own = np.zeros_like(memory)
    for layer in step._work.layers:
        w = layer["w"]
        filling[w["at"] : w["at"] + w["rows"] * w["columns"]] = True
        filling[layer["b"] : layer["b"] + w["columns"]] = True
        n_in, n_out = layer["n_in"], layer["n_out"]
        epoch.pack(own, layer, np.ones((n_out, n_in), own.dtype), np.ones(n_out, own.dtype))
    parameters = sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(case.sizes))
    assert np.count_nonzero(own) == np.count_nonzero(own[filling]) == parameters
    np.testing.assert_array_equal(memory[filling & (own == 0)], 0)


# A mini-batch beyond the first level of the cache, and a tail
SIZES, N, BATCH_SIZE = [100, 64, 32, 10], 1003, 20


def trained(dtype, seed, threads):
    data, _ = synthetic(N, 1, SIZES[0], SIZES[-1], seed=seed)
    network = Network(
        SIZES,
        activation=["relu", "tanh"],
        output="softmax",
        cost="log-likelihood",
        seed=seed,
        device="numba",
        dtype=dtype,
    )
    history = train(network, data, epochs=3, batch_size=BATCH_SIZE, seed=seed, threads=threads)
    assert history.step == "epoch"
    return [each.tobytes() for each in (*network.weights, *network.biases)]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_training_twice_is_the_same_to_the_bit(dtype, threads):
    first = trained(dtype, 1, threads)
    assert all(trained(dtype, 1, threads) == first for _ in range(4))
    assert first == trained(dtype, 1, 1), "the number of threads changed it"
    assert trained(dtype, 2, threads) != first


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("float32", "float64")])
def test_two_trainings_at_once_do_not_mix(dtypes, threads):
    expected = [trained(dtype, seed, threads) for seed, dtype in enumerate(dtypes)]
    ready = Barrier(2)

    def again(seed):
        ready.wait()
        return [trained(dtypes[seed], seed, threads) for _ in range(4)]

    with ThreadPoolExecutor(2) as pool:
        for results, alone in zip(pool.map(again, range(2)), expected, strict=True):
            assert all(result == alone for result in results)


def test_where_not_all_of_a_team_can_begin_nobody_waits_for_them(monkeypatch):
    class Scarce(Thread):
        left = 1

        def start(self):
            if not Scarce.left:
                raise RuntimeError("can't start new thread")
            Scarce.left -= 1
            super().start()

    before = active_count()
    monkeypatch.setattr("fastnn.threads.Thread", Scarce)
    with pytest.raises(RuntimeError, match="new thread"):
        trained("float32", 1, threads=3)
    until = monotonic() + 10
    while active_count() > before and monotonic() < until:
        sleep(0.01)
    assert active_count() == before


@pytest.mark.parametrize("kind", ["uint8", "float"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_mini_batch_allocates_anything(dtype, kind):
    @njit
    def allocate():
        return np.zeros(3)

    n = 400
    network = Network([30, 20, 5], device="numba", dtype=dtype)
    pixels = np.random.default_rng(0).integers(0, 256, (n, 30), dtype=np.uint8)
    x = pixels if kind == "uint8" else (pixels / 255).astype(dtype)
    y = np.eye(5, dtype=np.uint8)[np.arange(n) % 5]
    plan = Plan(network.layers, network.sizes, network.cost, x, 1 / 255, y, n, 2)
    step, order = network.backend.fused_step(plan), np.arange(n, dtype=np.int32)

    def allocations(work):
        before = rtsys.get_allocation_stats()
        work()
        after = rtsys.get_allocation_stats()
        return after.alloc - before.alloc, after.mi_alloc - before.mi_alloc

    _nrt_python.memsys_enable_stats()
    try:
        assert allocations(allocate) == (1, 1)
        one = allocations(lambda: step(order, 0, 2, 0.1, 0.9))
        assert allocations(lambda: step(order, 0, n, 0.1, 0.9)) == one
    finally:
        _nrt_python.memsys_disable_stats()


def test_mini_batches_beyond_the_bound_are_left_to_the_plain_step():
    """2²³ numbers, as many as the plain step holds of a mini-batch before it divides it."""
    features, n = 4096, 2049
    network = Network([features, 2], device="numba")
    x, labels = np.zeros((n, features), np.uint8), np.arange(n) % 2
    targets = np.eye(2, dtype=np.uint8)[labels]

    def plan(batch_size):
        return Plan(network.layers, network.sizes, network.cost, x, 1 / 255, targets, n, batch_size)

    assert network.backend.fused_step(plan(n - 1)).name == "epoch"
    assert network.backend.fused_step(plan(n)) is None
    assert train(network, (x, labels), epochs=1, batch_size=n).step == "plain"


def test_what_blas_does_faster_is_left_to_the_plain_step():
    backend = device("numba")
    for sizes, batch_size, name in (
        ((784, 2048, 2048, 10), 256, "epoch"),
        ((784, 4096, 4096, 10), 128, None),
    ):
        network = Network(sizes, device=backend)
        inputs, targets = (
            np.zeros((batch_size, 784), np.uint8),
            np.zeros((batch_size, 10), np.uint8),
        )
        plan = Plan(
            network.layers, sizes, network.cost, inputs, 1.0, targets, batch_size, batch_size
        )
        step = backend.fused_step(plan)
        assert (step and step.name) == name


@pytest.mark.parametrize(("fused", "threads"), [(False, None), (True, 1), (True, 2)])
@pytest.mark.parametrize("batch_size", [20_000, 9_500])  # the second with a tail that is small
@pytest.mark.parametrize("how", [{}, {"optimiser": SGD(0.9)}, {"l2": 5.0}])
def test_biases_learn_from_many_samples_as_exactly_as_from_few(fused, threads, batch_size, how):
    """What each of 20,000 adds is small beside b, and must not be rounded by its size."""
    how = {"epochs": 1, "batch_size": batch_size, "fused": fused, "threads": threads, **how}
    data, changes = synthetic(20_000, 1, features=20, classes=3).train, []
    for name, dtype in (("numpy", "float64"), ("numba", "float32")):
        network = Network([20, 8, 3], device=name, dtype=dtype)
        before = network.biases
        history = train(network, data, **how)
        pairs = zip(network.biases, before, strict=True)
        changes.append([now.astype("float64") - then for now, then in pairs])
    assert history.step == ("epoch" if fused else "plain")
    for exact, change in zip(*changes, strict=True):
        # A last bit of b, of 2 or so, is all that the last addition may take.
        np.testing.assert_allclose(change, exact, rtol=1e-5, atol=1e-6)
