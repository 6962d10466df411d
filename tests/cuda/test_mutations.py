"""What is wrong in a kernel is found: its source, with one fault at a time, by the other checks.

A fault is an old text and a new one. The old one must be in the source: a table cannot rot.
"""

import re
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from descent import Case, assert_right, trained, trained_by_graph
from emulated import EmulatedBackend, KernelFailed, build, built, source_of

from fastnn.backends.cuda_kernels import C_TYPES
from fastnn.backends.cuda_resident import Tiling
from fastnn.kernels import reference
from fastnn.optimisers import SGD

# Rows that are no whole fours, more of them than a warp holds; units of a tile that does not end
# with them, in more orders than one.
DEEP = Case((70, 11, 6, 4), 7, ("tanh", "sigmoid"), tail=3, dtype="float64", shrink=0.97)
SOFTMAX = DEEP._replace(output="softmax", cost="log-likelihood")
MOVING = DEEP._replace(momentum=0.9, l2=0.05)
AHEAD = MOVING._replace(nesterov=True, l1=0.02)
SHARP = DEEP._replace(l1=0.02)
FEW_SLICES = Tiling(8, 2, 4, 16, 1, 3)
MANY_SLICES = Tiling(2, 1, 1, 4, 2, 2)

WAIT = "__syncthreads();"

RIGHT = "nothing"
WRONG = "a wrong result"
OTHER_BITS = "other bits in another order of threads"
ORDERS = 0, 1, 2
# What the emulator says.
BARRIER, BEYOND, MASK = "different barriers", "beyond the shared one", "its mask leaves out"
# What it says when it watches each access.
RACE, FOREIGN = "no barrier in between", "not given to the kernel"
COMPILER = "static assertion failed"


def cut(case, tiling, buffers):
    """Return how a block has a case; velocities are in both places if there are quads enough."""
    return case.cut(tiling, buffers, held=1, shared_quads=int(case.momentum > 0))


class Fault(NamedTuple):
    """What is changed in the source, and by what it is seen."""

    name: str
    old: str
    new: str
    seen: str = WRONG
    buffers: int = 2
    tiling: Tiling = MANY_SLICES
    case: Case = DEEP

    def changed(self, source):
        if source.count(self.old) != 1:
            raise LookupError(f"the source has changed: {self.old!r}")
        return source.replace(self.old, self.new)

    @property
    def watched(self):
        return self.seen in (RACE, FOREIGN)

    @property
    def cut(self):
        return cut(self.case, self.tiling, self.buffers)

    @property
    def found(self):
        return {"changed": self.changed, "watched": self.watched}


def found(check, watched=False, **options):
    """Return by what is first seen that something is wrong."""
    try:
        orders = ORDERS[:1] if watched else ORDERS
        bits = {check(watched=watched, order=order, **options) for order in orders}
    except KernelFailed as failed:
        return str(failed)
    except AssertionError:
        return WRONG
    return RIGHT if len(bits) == 1 else OTHER_BITS


# The resident step
# --------------------------------------------------------------------------------------------------

BARRIERS = [
    ("after a layer", "__syncthreads();\n    if constexpr (l < L) {", (1, 2)),
    ("after softmax", "OUTPUTS, j));\n        }\n        __syncthreads();", (1, 2)),
    ("after a delta", "__syncthreads();\n        backpropagate<l - 1>", (1, 2)),
    ("after the filling", "[i] = 0;\n    __syncthreads();", (1, 2)),
    ("before the first sums", "stage.fetch(data, 2);\n    __syncthreads();", (1, 2)),
    ("after the sums", "-rate / m;\n        __syncthreads();", (1, 2)),
    ("before the samples change", "if (BUFFERS == 1) {\n            __syncthreads();", (1,)),
    ("after the samples change", "stage.put(data, t + 1);\n            __syncthreads();", (1,)),
    # With one buffer that of the last mini-batch is enough.
    ("before the end", "__syncthreads();\n    copy_parameters<1, false, false>", (2,)),
]
MISSING = [
    Fault(name, text, text.replace(WAIT, ""), seen, buffers, case=SOFTMAX)
    for name, text, needed in BARRIERS
    for buffers in needed
    for seen in (WRONG, RACE)
]
FAULTS = [
    # Buffers
    Fault("the other buffer", "buffer = t % BUFFERS,", "buffer = (t + 1) % BUFFERS,"),
    Fault(
        "put into the other buffer",
        "part[r].write(data.scale, t % BUFFERS",
        "part[r].write(data.scale, (t + 1) % BUFFERS",
    ),
    Fault(
        "sums of the other buffer",
        "tile.forward((t + 1) % BUFFERS, samples_of",
        "tile.forward(t % BUFFERS, samples_of",
    ),
    Fault("labels of the first buffer", "(Y)[(buffer * BATCH + i)", "(Y)[(0 * BATCH + i)"),
    Fault("not put", "stage.put(data, t + 1);\n        feed", ";\n        feed"),
    Fault(
        "put too early",
        "__syncthreads();\n        if (BUFFERS == 2)\n            stage.put(data, t + 1);",
        "if (BUFFERS == 2)\n            stage.put(data, t + 1);\n        __syncthreads();",
        RACE,
    ),
    Fault("not fetched", "stage.fetch(data, 2);", ";"),
    Fault("fetched too early", "fetch(data, t + 1 + BUFFERS)", "fetch(data, t + BUFFERS)"),
    Fault(
        "fetched too late",
        "fetch(data, t + 1 + BUFFERS)",
        "fetch(data, t + 2 + BUFFERS)",
        buffers=1,
    ),
    Fault("a row that is not held", "int r = HELD; r <", "int r = HELD + 1; r <"),
    # Places
    Fault("rows without filling", "sample) * X_ROW);", "sample) * INPUTS);"),
    Fault(
        "a lane's packs",
        "= ((const Pack*)data.inputs)[(long long)row * ROW_PACKS + lane() + 32 * p]",
        "= ((const Pack*)data.inputs)[(long long)row * ROW_PACKS + lane() + 31 * p]",
    ),
    Fault("the order's first", "data.order[data.start + t", "data.order[t"),
    Fault("too short rows of weights", "((n_in + 3) / 4 | 1) * 4", "(n_in / 4 | 1) * 4", COMPILER),
    Fault("rows of activations", "a + i * Layer<l - 1>::a_row)", "a + i * Layer<l - 1>::out)"),
    Fault(
        "rows of the first delta",
        "l == 1 ? TWISTS * TILED_UNITS : out;",
        "l == 1 ? TILED_UNITS : out;",
    ),
    Fault("one order of the units", "(j ^ c * KEPT)", "j"),
    Fault("one order of the units", "(j ^ c * KEPT)", "j", tiling=FEW_SLICES),
    Fault("no order of the units", "slice_lane() / TWINS * KEPT;", "0;"),
    Fault("no order of the units", "slice_lane() / TWINS * KEPT;", "0;", tiling=FEW_SLICES),
    Fault(
        "sums out of order", "BATCH * TILED_UNITS + unit(0)", "BATCH * TILED_UNITS + first_unit()"
    ),
    Fault(
        "the slice", "warp() / UNIT_WARPS * SLICE_LANES +", "warp() % UNIT_WARPS * SLICE_LANES +"
    ),
    Fault("the single inputs", ": 4 * QUADS * SLICES + (k", ": (k"),
    Fault("an input too many", "input(k) < INPUTS ? x[input(k)] : 0;", "x[input(k)];"),
    Fault("a slice too few", "s < SLICE_WARPS; s++", "s < SLICE_WARPS - 1; s++"),
    Fault("both twins", "if (slice_lane() % TWINS == 0)", "", RACE),
    Fault("beyond the memory", "i < SHARED_NUMBERS; i", "i <= SHARED_NUMBERS; i", BEYOND),
    Fault("no filling", "shared(0)[i] = 0;", ";"),
    # Numbers
    Fault("no tail", "m = samples_of(data, t);", "m = BATCH;"),
    Fault("the tail's rate", "-rate / m;", "-rate / BATCH;"),
    Fault("no scale", "return scale * number", "return number"),
    Fault("bytes", "- 8388608.0f", "- 8388607.0f"),
    Fault("the first layer not shrunk", "w[u][k] = curtailed(by, w[u][k]);", ";"),
    Fault("a layer not shrunk", "w = curtailed(by, w) + rate * sum;", "w = w + rate * sum;"),
    Fault("biases shrunk", "update(by.of_biases(),", "update(by,"),
    Fault("no slope", "e * sigma_prime(Below::activation, a);", "e;"),
    Fault(
        "the slope of the layer above",
        "sigma_prime(Below::activation",
        "sigma_prime(This::activation",
    ),
    Fault("no slope of the last layer", "MATCHED ? int(IDENTITY) : This::activation", "IDENTITY"),
    Fault("no rate", "l == 2 ? rate * d : d", "d"),
    Fault("the rate twice", "l == 1 ? 1 : rate, sum", "rate, sum"),
    Fault(
        "softmax of some",
        "for (int k = 0; k < n; k++)\n        sum +=",
        "for (int k = 1; k < n; k++)\n        sum +=",
        case=SOFTMAX,
    ),
    Fault("softmax too early", "l < L || This::activation == SOFTMAX", "l < L", case=SOFTMAX),
    # Threads
    Fault(
        "some threads wait",
        "__syncthreads();\n    if constexpr (l < L) {",
        "if (threadIdx.x < m * This::out)\n        __syncthreads();\n    if constexpr (l < L) {",
        BARRIER,
    ),
    Fault("half a mask", "(0xffffffffu, z[u + n]", "(0xffffu, z[u + n]", MASK),
    Fault("the other lane", "z[u + n], other * UNIT_LANES", "z[u + n], other"),
    Fault("the other lane, of one", "z[0], other * UNIT_LANES", "z[0], other"),
    Fault(
        "the other half",
        "z[u] += __shfl_xor_sync(0xffffffffu, z[u + n]",
        "z[u] += __shfl_xor_sync(0xffffffffu, z[u]",
    ),
    # The end
    Fault("parameters kept", "copy_parameters<1, false, false>(parameters);", ";"),
    Fault("weights kept", "tile.store(parameters[0], weight);", ";"),
    # Momentum and penalties
    *(
        Fault(*texts, case=MOVING)
        for texts in (
            ("velocities not read", "copy_parameters<1, true, true>(velocities);", ";"),
            ("the tiles' velocities not read", "tile.load(velocities[0], velocity);", ";"),
            ("velocities kept", "copy_parameters<1, false, true>(velocities);", ";"),
            ("the tiles' velocities kept", "tile.store(velocities[0], velocity);", ";"),
            (
                "the parameters' places",
                "velocities = parameters + 2 * L;",
                "velocities = parameters;",
            ),
            ("another layout of the velocities", "velocity_b + up(out);", "velocity_b;"),
            ("no friction", "v = mu * velocity - step;", "v = velocity - step;"),
            ("the velocity before", "velocity = v;", ";"),
            ("always ahead", "(nesterov ? mu * v - step : v)", "(mu * v - step)"),
            ("not decayed", "by.l2 * w - rate * sum;", "-(rate * sum);"),
            ("up the slope", "by.l2 * w - rate * sum;", "by.l2 * w + rate * sum;"),
            (
                "not shrunk beside",
                "NESTEROV, by.shrink, velocity, w);",
                "NESTEROV, 1, velocity, w);",
            ),
            ("biases penalised", "update(by.of_biases(),", "update(by,"),
            ("biases without momentum", "return {mu, 0, 0, 1};", "return {0, 0, 0, 1};"),
            ("singles stay", "4 * QUADS ? 4 : SINGLES;", "4 * QUADS ? 4 : 0;"),
        )
    ),
    Fault("never ahead", "(nesterov ? mu * v - step : v)", "v", case=AHEAD),
    Fault("no sign", "step += by.l1 * sign(w);", "step += by.l1;", case=AHEAD),
    Fault("no sign of the penalty", "w - (L1 ? by.l1 * sign(w) : 0)", "w - by.l1", case=SHARP),
    Fault(
        "the first quad again",
        "read_quad(x, k / 4, part);",
        "read_quad(x, 0, part);",
        tiling=FEW_SLICES,
        case=MOVING,
    ),
    Fault(
        "one velocity for all units",
        "(k / 4 * UNITS + u) * THREADS",
        "(k / 4 * UNITS) * THREADS",
        case=MOVING,
    ),
    Fault("all threads' velocity", "THREADS + threadIdx.x) * 4", "THREADS) * 4", RACE, case=MOVING),
]


def resident(case, cut, **options):
    return assert_right(case, trained(case, cut, **options))


# The kernels of the other steps
# --------------------------------------------------------------------------------------------------


def graph(**options):
    return assert_right(DEEP, trained_by_graph(DEEP, **options))


def kernels_run(**options):
    """Run those kernels that the graph does not have, or not in every way that they can be used."""

    class Backend(EmulatedBackend):
        has = options

    backend, rng = Backend(None, "float64"), np.random.default_rng(0)
    results = []

    def run(kernel, given, out, expected, *arguments, **named):
        given, out = [*map(backend.asarray, given)], backend.asarray(out)
        getattr(backend, kernel)(*given, *arguments, out, **named)
        results.append((backend.to_numpy(out), expected))

    for m, n in ((3, 5), (2, 33), (19, 300)):
        z, b, y = rng.standard_normal((m, n)), rng.standard_normal(n), np.eye(m, n)
        for activation, wide in (("softmax", 1), ("softmax", 1e4), ("tanh", 1)):
            expected = reference.activate(wide * z, b, activation)
            run("activate", [b], wide * z, expected, activation)
        run("hadamard", [y], z, reference.hadamard(z, y, "sigmoid"), "sigmoid")
        run("sum_rows", [z], b * np.nan, 2 * z.sum(0), alpha=2)
        run("sum_rows", [z], b, 2 * z.sum(0) + 3 * b, alpha=2, beta=3)
        by = reference.Dropped(2**64 - 7, 2**63 - 1, 0.4)
        run("drop", [z], z * np.nan, reference.drop(z, by), by)
        how = "sigmoid", "squared-error"
        run("output_delta", [z, y], b * np.nan * z, reference.output_delta(z, y, *how), *how)
        weights = rng.random((m, 1))
        run("scale_rows", [weights], z, reference.scale_rows(z, weights))
    for columns in (5, 8):
        rows = rng.integers(0, 256, (4, columns))
        for kind in (np.uint8, np.float64):
            order = np.array([9, 3, 0, 2, 2, 9], np.int32)
            expected = 0.5 * rows[order[1:5]]
            given = [rows.astype(kind), order]
            run("gather", given, np.full(expected.shape, np.nan), expected, 1, 5, 0.5)
    for size in (3, 700):
        w, kept, more, g = rng.standard_normal((4, size))
        more = more**2
        for kernel, outs, how in (
            ("momentum", [w, kept], reference.Momentum(0.3, 0.9, False, 0.01, 0.02, 0.97)),
            ("momentum", [w, kept], reference.Momentum(0.3, 0.9, True, 0.01, 0.02, 0.97)),
            ("adam", [w, kept, more], reference.Adam(0.01, 0.9, 0.99, 1e-3, 7, 0.01, 0.02, 0.97)),
        ):
            there = [*map(backend.asarray, (*outs, g))]
            getattr(backend, kernel)(*there, how)
            expected = getattr(reference, kernel)(*outs, g, how)
            results += zip(map(backend.to_numpy, there), expected, strict=False)
        for nesterov in (False, True):
            by = reference.Momentum(0.3, 0.9, nesterov, 0.01, 0.02, 0.97)
            rate, shrink, *there = map(
                backend.asarray, (*np.array([[0.3], [0.97]]), -0.3 * g, kept, w)
            )
            backend.launch_momentum(rate, SGD(0.9, nesterov), 0.01, 0.02, shrink, *there)
            moved = reference.momentum(w, kept, g, by)
            results += zip(map(backend.to_numpy, there[::-1]), moved, strict=False)
            results.append((1 + backend.to_numpy(there[0]), np.ones(size)))
    for size, most in ((3, 0.5), (20_000, 0.5), (700, 1e3)):
        g = rng.standard_normal(size)
        there = backend.asarray(g)
        backend.clip(there, most)
        results.append((backend.to_numpy(there), reference.clip(g, most)))
    return results


def kernels_right(**options):
    results = kernels_run(**options)
    for got, expected in results:
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    return b"".join(got.tobytes() for got, _ in results)


KERNEL_BARRIERS = [
    ("before a halving", "half /= 2) {\n        __syncthreads();"),
    ("after the halvings", "__syncthreads();\n    const real all"),
    ("before the next halvings", "= shared_memory[0];\n    __syncthreads();"),
    ("before the groups are summed", "= sum;\n    __syncthreads();"),
]
KERNEL_FAULTS = [
    *(
        Fault(name, text, text.replace(WAIT, ""), seen)
        for name, text in KERNEL_BARRIERS
        for seen in (WRONG, RACE)
    ),
    # Without it the largest is another, and rounding with it.
    *(
        Fault("before softmax", "__syncthreads();\n    real largest", "real largest", seen)
        for seen in (OTHER_BITS, RACE)
    ),
    Fault("a row of the order", "(long long)order[blockIdx.x] * packs", "order[0] * packs"),
    Fault("a row of out", "(long long)blockIdx.x * packs;", "(blockIdx.x + 1) * packs;", FOREIGN),
    Fault("the draw before", "(first + k + 1) * gamma", "(first + k) * gamma"),
    Fault("half mixed", "(z ^ (z >> 27)) *", "z *"),
    Fault("the rate stays", "z >> 32 < threshold", "z >> 32 >= threshold"),
    Fault("of the lower bits", "z >> 32 < threshold", "(z & 0xffffffffu) < threshold"),
    Fault("not inverted", "real(0) : scale * a[k]", "real(0) : a[k]"),
    Fault("no scale", "= scale * real(", "= real("),
    Fault("one number of four", "k < PACK; k++", "k < 1; k++"),
    Fault("a column twice", "if (threadIdx.x < half)", "if (threadIdx.x <= half)", RACE),
    Fault("not all columns", "sum += row[j] = exp", "sum = row[j] = exp"),
    Fault("no bias", "row[j] + b[j]);", "row[j]);"),
    Fault("not the largest", "x > y ? x : y", "x < y ? x : y"),
    Fault("another row's weight", "weights[i / n]", "weights[i / (n + 1)]"),
    Fault("no penalty of the size", "l1 * sign(w[i]) + l2 * w[i]);", "l2 * w[i]);"),
    Fault("zero has a sign", "w < 0 ? real(-1)", "w <= 0 ? real(1)"),
    Fault("the velocity before", "velocity = v;", ";"),
    Fault("added once more", "minus_rated[i] = 0;", ";"),
    Fault("up the slope", "- minus_rated[i];", "+ minus_rated[i];"),
    Fault("never ahead", "(nesterov ? mu * v - step : v)", "v"),
    Fault("not squared", "rest2 * g * g", "rest2 * g"),
    Fault("another mean", "rest1 * g", "rest2 * g"),
    Fault("biased", "of_square * s", "s"),
    Fault("a piece of the length", "hypotenuse(length, numbers", "hypotenuse(0, numbers"),
    Fault("longer than the longest", "(by_x ? y : x) / longer", "(by_x ? x : y) / longer"),
    Fault("always as long", "if (!(length > most))", "if (false)"),
    Fault(
        "a number twice",
        "i < count; i += all)\n        out[i] *=",
        "i < count; i += blockDim.x)\n        out[i] *=",
        RACE,
    ),
    Fault("columns of no one", "if (j < n)\n        for", "for", FOREIGN),
    Fault("a group too few", "int group = 1;", "int group = 2;"),
    Fault("one group", "i = threadIdx.y; i < m", "i = 0; i < m"),
    Fault("no overwriting", "(beta ? beta * out[j] : 0)", "beta * out[j]"),
]
GRAPH_FAULTS = [
    Fault(
        "labels as they lie",
        "targets[(long long)order[i] * n + j]",
        "targets[(long long)i * n + j]",
    ),
    Fault("no slope", "delta[k] *= sigma_prime(activation, a[k])", "delta[k]"),
    Fault(
        "no rate",
        "a[k], y);\n        },\n        [=](int j, real sum) { b[j] += *minus_rate *",
        "a[k], y);\n        },\n        [=](int j, real sum) { b[j] +=",
    ),
]


# The tests
# --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _compiled():
    def compiled(fault, source, definitions):
        with suppress(KernelFailed):  # it shows in the test
            built(fault.changed(source_of(source)), definitions, fault.watched)

    def epoch(fault):
        compiled(fault, "cuda_epoch.cu", fault.case.definitions(fault.cut))

    def kernels(fault):
        compiled(fault, "cuda_kernels.cu", {"REAL": C_TYPES["float64"], "LEAK": reference.LEAK})

    build(
        [
            *(partial(epoch, fault) for fault in [*MISSING, *FAULTS]),
            *(partial(kernels, fault) for fault in [*KERNEL_FAULTS, *GRAPH_FAULTS]),
        ]
    )


def test_every_barrier_is_in_a_table():
    for source, faults in (
        ("cuda_epoch.cu", MISSING),
        ("cuda_kernels.cu", KERNEL_FAULTS),
    ):
        text = source_of(source)
        missing = {place for fault in faults for place in places_changed(text, fault)}
        assert missing >= {found.start() for found in re.finditer(r"__syncthreads\(\);", text)}


def places_changed(text, fault):
    """Return where the barriers stand that a fault removes."""
    if fault.new.count(WAIT) < fault.old.count(WAIT):
        yield text.index(fault.old) + fault.old.index(WAIT)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("buffers", [1, 2])
@pytest.mark.parametrize("tiling", [MANY_SLICES, FEW_SLICES])
@pytest.mark.parametrize(
    "case",
    [DEEP, SOFTMAX, MOVING, AHEAD, SHARP],
    ids=["sigmoid", "softmax", "momentum", "nesterov", "l1"],
)
def test_without_a_fault_nothing_is_found_in_the_resident_step(case, tiling, buffers, watched):
    assert found(partial(resident, case, cut(case, tiling, buffers)), watched) == RIGHT


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("check", [kernels_right, graph])
def test_without_a_fault_nothing_is_found_in_the_kernels(check, watched):
    assert found(check, watched) == RIGHT


def name(fault):
    tiling = "-".join(map(str, fault.tiling))
    return f"{fault.name}: {fault.seen} ({tiling}, {fault.buffers})"


@pytest.mark.parametrize("fault", [*MISSING, *FAULTS], ids=name)
def test_a_fault_in_the_resident_step_is_found(fault):
    assert fault.seen in found(partial(resident, fault.case, fault.cut), **fault.found)


@pytest.mark.parametrize("fault", KERNEL_FAULTS, ids=name)
def test_a_fault_in_the_kernels_is_found(fault):
    assert fault.seen in found(kernels_right, **fault.found)


@pytest.mark.parametrize("fault", GRAPH_FAULTS, ids=name)
def test_a_fault_in_the_kernels_of_the_graph_is_found(fault):
    assert fault.seen in found(graph, **fault.found)
