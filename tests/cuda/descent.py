"""Training on an emulated GPU, and what it should come to, written again in float64.

Of the package only what is tested is used: the steps, and what makes the kernel's definitions.
"""

from functools import cache
from itertools import cycle, pairwise, product
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from emulated import H200, EmulatedBackend, EmulatedGpu, built, source_of

from fastnn.backends.base import Layer, Plan, pieces
from fastnn.backends.cuda_gpu import Limits
from fastnn.backends.cuda_graph import GraphStep
from fastnn.backends.cuda_resident import Fit, Kind, ResidentStep, _shared_numbers, definitions, fit
from fastnn.optimisers import SGD, Update

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
    *product(("quadratic", "squared-error"), HIDDEN),
    ("cross-entropy", "sigmoid"),
    ("log-likelihood", "softmax"),
]
FACTOR = {"quadratic": 1, "squared-error": 2}  # ∇_a C = factor · (a - y); the others cancel σ′


# All that can be emulated.
ROOMY = Limits((9, 0), 1 << 19, 1 << 20)


class Case(NamedTuple):
    """What is trained, on what, and how."""

    sizes: tuple[int, ...]
    batch_size: int
    hidden: tuple[str, ...] = ("sigmoid",)  # in turn
    output: str = "sigmoid"
    cost: str = "quadratic"
    row: str = "uint8"
    dtype: str = "float32"
    shrink: float = 1.0
    full: int = 7  # whole mini-batches, in two epochs
    tail: int = 0  # samples left over
    spans: tuple[int, ...] = (5, 1, 2)  # mini-batches a call, in turn
    skipped: int = 2  # samples of the order before the first
    momentum: float = 0.0
    nesterov: bool = False
    l1: float = 0.0
    l2: float = 0.0

    @property
    def activations(self):
        hidden = cycle(self.hidden)
        return (*(next(hidden) for _ in self.sizes[2:]), self.output)

    @property
    def n(self):
        return self.skipped + self.full * self.batch_size + self.tail

    @property
    def types(self):
        return np.dtype(self.row if self.row == "uint8" else self.dtype), np.dtype(self.dtype)

    @property
    def kind(self):
        return Kind(self.momentum > 0, self.nesterov, self.l1 > 0)

    def fit(self):
        """Return the plan as the package cuts it, if need be for a larger GPU than there is."""
        for limits in (H200, ROOMY):
            how = fit(self.sizes, self.batch_size, *self.types, limits, self.kind)
            if isinstance(how, Fit):
                return how
        raise AssertionError(how)

    def cut(self, tiling, buffers, held, shared_quads=0):
        """Return a plan cut otherwise than the package would."""
        how = self.kind, shared_quads
        numbers = _shared_numbers(self.sizes, self.batch_size, tiling, buffers, *how)
        return Fit(tiling, buffers, held, *how, self.types[1].itemsize * numbers)

    def definitions(self, how):
        return definitions(
            how, self.sizes, self.activations, self.cost, self.batch_size, *self.types
        )

    def built(self, how=None, changed=lambda source: source, watched=False):
        source = changed(source_of("cuda_epoch.cu"))
        return built(source, self.definitions(how or self.fit()), watched)


class Problem(NamedTuple):
    """What a case begins with, and what it should come to."""

    rows: np.ndarray
    scale: float
    targets: np.ndarray
    order: np.ndarray
    w: list
    b: list
    rate: float
    expected: list
    rtol: float


def mini_batch(case, parameters, velocities, x, y, rate, shrink):
    """One mini-batch of gradient descent in float64, in place: weights, and behind them biases."""
    layers, activations = len(case.activations), case.activations
    w, b, a = parameters[:layers], parameters[layers:], [x]
    for w_l, b_l, activation in zip(w, b, activations, strict=True):
        a.append(ACTIVATIONS[activation][0](a[-1] @ w_l.T + b_l))
    delta = a[-1] - y
    if case.cost in FACTOR:
        delta = FACTOR[case.cost] * delta * ACTIVATIONS[activations[-1]][1](a[-1])
    slopes = [*parameters]
    for l in reversed(range(layers)):  # noqa: E741  the texts' letter
        slopes[l] = delta.T @ a[l] / len(x) + case.l1 * np.sign(w[l]) + case.l2 * w[l]
        slopes[layers + l] = delta.sum(axis=0) / len(x)
        if l:
            delta = delta @ w[l] * ACTIVATIONS[activations[l - 1]][1](a[l])
    for i, slope in enumerate(slopes):
        velocities[i] = case.momentum * velocities[i] - rate * slope
        ahead = case.momentum * velocities[i] - rate * slope if case.nesterov else velocities[i]
        parameters[i] = (shrink if i < layers else 1) * parameters[i] + ahead


@cache
def problem(case):
    rng = np.random.default_rng(len(case.sizes))
    row, dtype = case.types
    w = [rng.standard_normal((o, i)) / i**0.5 for i, o in pairwise(case.sizes)]
    b = [rng.standard_normal(o) / 2 for o in case.sizes[1:]]
    w, b = ([each.astype(dtype) for each in of] for of in (w, b))
    pixels = rng.integers(0, 256, (case.n, case.sizes[0]))
    scale = 1 / 255 if row == np.uint8 else 1.0
    rows = pixels.astype(np.uint8) if row == np.uint8 else (pixels / 255).astype(dtype)
    targets = np.eye(case.sizes[-1], dtype=np.uint8)[rng.integers(0, case.sizes[-1], case.n)]
    order = rng.permutation(case.n).astype(np.int32)
    x = dtype.type(scale) * rows.astype(np.float64)
    # What does not saturate would run away at a higher rate, and rounding with it.
    rate = 4 / (8 + sum((each**2).sum(axis=1).mean() for each in (x, targets)))
    rate *= 1 - case.momentum  # a velocity sums up so many steps
    parameters = [each.astype(np.float64) for each in (*w, *b)]
    velocities = [np.zeros_like(each) for each in parameters]
    mini_batches = 0
    for _ in range(2):
        for start in range(case.skipped, case.n, case.batch_size):
            batch = order[start : start + case.batch_size]
            given = x[batch], targets[batch], rate, dtype.type(case.shrink)
            mini_batch(case, parameters, velocities, *given)
            mini_batches += 1
    # What a sum of k terms is off by, once for each mini-batch, as a part of what is largest.
    k = max(case.batch_size, *case.sizes) * mini_batches
    rtol = 8 * np.finfo(dtype).eps * k**0.5
    expected = [*parameters, *(velocities if case.momentum else ())]
    return Problem(rows, scale, targets, order, w, b, rate, expected, rtol)


def trained(case, how=None, **options):
    """Return the parameters that the resident step comes to, all weights before all biases."""
    gpu = EmulatedGpu(ROOMY, **options)
    return descended(
        case, gpu, lambda plan: ResidentStep(gpu, plan, case.types[1], how or case.fit())
    )


def trained_by_graph(case, **options):
    """Return the parameters that the graph step comes to."""

    class Backend(EmulatedBackend):
        has = options

    backend = Backend(None, case.dtype)
    return descended(case, backend.gpu, lambda plan: GraphStep(backend, plan))


def plan_of(case, gpu):
    """Return a plan of a case on a GPU, and the order of its samples there."""
    given = problem(case)
    w, b = ([gpu.asarray(each) for each in of] for of in (given.w, given.b))
    layers = tuple(map(Layer, w, b, case.activations))
    rows, targets, order = map(gpu.asarray, (given.rows, given.targets, given.order))
    update = None
    if case.kind != Kind() or case.l2:
        backend = SimpleNamespace(asarray=gpu.asarray, views=pieces, dtype=case.types[1])
        optimiser = SGD(case.momentum, case.nesterov)
        update = Update(backend, layers, case.sizes, optimiser, case.l1, case.l2)
    plan = Plan(
        layers,
        case.sizes,
        case.cost,
        rows,
        given.scale,
        targets,
        case.n,
        case.batch_size,
        update=update,
    )
    return plan, order


def descended(case, gpu, make):
    """Return the parameters that a step comes to which is made from a plan, and the velocities."""
    given, (plan, order) = problem(case), plan_of(case, gpu)
    step = make(plan)
    for _ in range(2):
        start, spans = case.skipped, cycle(case.spans)
        while start < case.n:
            stop = min(start + next(spans) * case.batch_size, case.n)
            # A call takes as much as the step can.
            for first in range(start, stop, case.batch_size * step.stride):
                last = min(first + case.batch_size * step.stride, stop)
                step(order, first, last, given.rate, case.shrink)
            start = stop
    of_layers = [plan.layers]
    if plan.update is not None:
        assert plan.update.taken == 2 * -(-(case.n - case.skipped) // case.batch_size)
        of_layers += [plan.update.kept_by_layer(0)] if case.momentum else []
    return [gpu.to_numpy(layer[i]) for layers in of_layers for i in (0, 1) for layer in layers]


def assert_right(case, got):
    """See that each parameter is what it should be, and return the bits of all."""
    given = problem(case)
    for array, exact in zip(got, given.expected, strict=True):
        assert array.dtype == case.dtype
        atol = given.rtol * np.abs(exact).max()
        np.testing.assert_allclose(array, exact, rtol=0, atol=atol)
    return b"".join(array.tobytes() for array in got)
