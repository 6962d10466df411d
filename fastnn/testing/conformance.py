"""The conformance suite: subclass it with a device's name, and pytest proves the device.

::

    from fastnn.testing import BackendConformance

    class TestMetal(BackendConformance):
        device = "metal"

Every kernel runs in float32 and float64 against :mod:`fastnn.kernels.reference` in float64. A
result may be off by 8 · eps · √K · max|reference|, with K the length of the sums in it: what
rounding does to a sum of K terms.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from fastnn import backprop
from fastnn.activations import HIDDEN, OUTPUT
from fastnn.backends.base import Backend, Layer, Plan, Step
from fastnn.backends.registry import device as find_device
from fastnn.costs import COSTS, check_pair
from fastnn.errors import ArgumentError, DeviceUnavailable
from fastnn.inference import Portions
from fastnn.kernels import reference
from fastnn.network import Network
from fastnn.optimisers import SGD, Adam, AdamW, Optimiser
from fastnn.testing.comparing import (
    GUARD,
    activated,
    assert_close,
    assert_descends,
    cast,
    guarded,
    nans,
    normal,
    rounded,
)
from fastnn.testing.gradient_check import gradient_error
from fastnn.training import train

Array = NDArray[Any]


def _goes_together(cost: str, output: str) -> bool:
    try:
        check_pair(cost, output)
    except ArgumentError:
        return False
    return True


# (m, n_in, n_out): nothing to vectorise, odd, one sample, the book's mini-batch, a tail of it,
# beyond a block
SHAPES = [(1, 1, 1), (5, 3, 7), (1, 784, 30), (10, 784, 30), (3, 30, 10), (130, 65, 33)]
PAIRS = [
    (cost, output)
    for cost, output in itertools.product(COSTS, OUTPUT)
    if _goes_together(cost, output)
]
OPTIMISERS = (SGD(), SGD(0.9), SGD(0.5, nesterov=True), Adam(), AdamW())
# (samples, batch size): full mini-batches only, a tail, nothing but a tail, on-line, the whole set
SCHEDULES = [(20, 5), (23, 5), (3, 5), (4, 1), (23, 23)]


class BackendConformance:
    """What a device must do. Set ``device`` to its name, or to a backend class.

    Where the device cannot be used the tests skip with its reason, unless the environment variable
    FASTNN_REQUIRE names it (comma-separated): then they fail.
    """

    device: ClassVar[str | type[Backend]]

    # Set-up ------------------------------------------------------------------------------------

    @pytest.fixture(autouse=True)
    def _warnings_are_errors(self) -> Iterator[None]:
        with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
            warnings.simplefilter("error")
            yield

    @pytest.fixture(params=["float32", "float64"])
    def backend(self, request: pytest.FixtureRequest) -> Backend:
        return self.make(request.param)

    @pytest.fixture
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(20_26)

    def make(self, dtype: str) -> Backend:
        """Return the backend, or skip, or fail where FASTNN_REQUIRE says so."""
        if not isinstance(self.device, str):
            return self.device(None, dtype)
        try:
            return find_device(self.device, dtype)
        except DeviceUnavailable as error:
            required = os.environ.get("FASTNN_REQUIRE", "").split(",")
            if self.device.partition(":")[0] in required or self.device in required:
                pytest.fail(f"required by FASTNN_REQUIRE: {error}")
            pytest.skip(str(error))

    def check(
        self,
        backend: Backend,
        kernel: Callable[..., None],
        inputs: Mapping[str, Array],
        outs: Mapping[str, Array],
        expected: tuple[Array, ...],
        k: int,
        **options: Any,
    ) -> None:
        """Run a kernel and compare its outs; see that nothing else was written.

        Parameters
        ----------
        inputs, outs
            Host arrays by the kernel's parameter names; floats go up in the backend's dtype. What
            ``outs`` holds is there before the kernel runs.
        expected
            What each out must hold afterwards, in float64.
        k
            The length of the longest sum.
        options
            The kernel's other arguments.
        """
        hosts = {name: cast(array, backend) for name, array in inputs.items()}
        # Copies, since a device may share the host's memory.
        given = {name: backend.asarray(host.copy()) for name, host in hosts.items()}
        targets, guards = {}, []
        for name, array in outs.items():
            before, target, after = guarded(backend, cast(array, backend))
            targets[name] = target
            guards += [before, after]
        kernel(**given, **targets, **options)
        for (name, target), reference_value in zip(targets.items(), expected, strict=True):
            assert_close(backend.to_numpy(target), reference_value, backend, k, name)
        for name, host in hosts.items():
            np.testing.assert_array_equal(
                backend.to_numpy(given[name]), host, f"the input {name} was written"
            )
        for guard in guards:
            np.testing.assert_array_equal(
                backend.to_numpy(guard), GUARD, "memory beside an out was written"
            )

    # The registration --------------------------------------------------------------------------

    def test_it_says_whether_it_can_be_used(self, backend: Backend) -> None:
        assert type(backend).unavailable(None) is None
        assert all(check.ok for check in type(backend).checks(None))
        reason = type(backend).unavailable(1_000_000)
        assert isinstance(reason, str)
        assert reason.strip()
        assert isinstance(backend.name, str)
        if isinstance(self.device, str):
            asked = self.device.partition(":")[0]
            assert backend.name == asked, "the class has another name than its entry point"
        assert isinstance(backend.detail, str)
        assert backend.spec == (self.device if isinstance(self.device, str) else backend.name)
        assert "full" in backend.precisions
        assert backend.precision == "full"

    # Crossings ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("shape", [(1,), (7,), (5, 3), (1, 784)])
    @pytest.mark.parametrize("kind", ["uint8", "int32", "float"])
    def test_round_trip(
        self, backend: Backend, rng: np.random.Generator, shape: tuple[int, ...], kind: str
    ) -> None:
        dtype = backend.dtype if kind == "float" else np.dtype(kind)
        host = (255 * rng.random(shape)).astype(dtype)
        for layout in (host, np.asfortranarray(host), np.repeat(host, 2, axis=0)[::2]):
            back = backend.to_numpy(backend.asarray(layout))
            assert back.dtype == dtype
            np.testing.assert_array_equal(back, host)

    def test_to_numpy_is_a_copy(self, backend: Backend) -> None:
        array = backend.asarray(np.ones(4, backend.dtype))
        backend.to_numpy(array)[:] = 7
        np.testing.assert_array_equal(backend.to_numpy(array), 1)

    def test_empty_has_its_shape_and_dtype(self, backend: Backend) -> None:
        for shape, dtype in (((3, 4), backend.dtype), ((5,), np.dtype("uint8"))):
            host = backend.to_numpy(backend.empty(shape, dtype))
            assert (host.shape, host.dtype) == (shape, dtype)

    def test_views_are_consecutive_and_share_memory(self, backend: Backend) -> None:
        flat = backend.asarray(np.arange(20, dtype=backend.dtype))
        one, two, three = backend.views(
            flat, [(2, 3), (4,), (1, 5)]
        )  # and a rest that no one views
        np.testing.assert_array_equal(backend.to_numpy(one), [[0, 1, 2], [3, 4, 5]])
        np.testing.assert_array_equal(backend.to_numpy(three), [[10, 11, 12, 13, 14]])
        backend.sum_rows(backend.asarray(np.ones((2, 4), backend.dtype)), two)
        np.testing.assert_array_equal(
            backend.to_numpy(flat), [*range(6), 2, 2, 2, 2, *range(10, 20)]
        )

    # Kernels -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", ["uint8", "float"])
    @pytest.mark.parametrize("columns", [1, 10, 784])
    def test_gather(
        self, backend: Backend, rng: np.random.Generator, kind: str, columns: int
    ) -> None:
        rows: Array = rng.integers(0, 256, (12, columns), dtype=np.uint8)
        rows = rows if kind == "uint8" else rows / 7
        order = np.array([0, 11, 5, 5, 5, 11, 0, 3], np.int32)  # repeats, and both ends
        for (start, stop), scale in itertools.product([(0, 8), (2, 5), (7, 8)], [1.0, 1 / 255]):
            self.check(
                backend,
                backend.gather,
                {"rows": rows, "order": order},
                {"out": nans(stop - start, columns)},
                (reference.gather(rows.astype(float), order, start, stop, scale),),
                k=1,
                start=start,
                stop=stop,
                scale=scale,
            )

    @pytest.mark.parametrize(("m", "k", "n"), SHAPES)
    @pytest.mark.parametrize("transpose_a", [False, True])
    @pytest.mark.parametrize("transpose_b", [False, True])
    def test_matmul(
        self,
        backend: Backend,
        rng: np.random.Generator,
        m: int,
        k: int,
        n: int,
        transpose_a: bool,
        transpose_b: bool,
    ) -> None:
        a = normal(rng, backend, *((k, m) if transpose_a else (m, k)))
        b = normal(rng, backend, *((n, k) if transpose_b else (k, n)))
        for alpha, beta, before in (
            (1.0, 0.0, nans(m, n)),
            (-0.25, 0.75, normal(rng, backend, m, n)),
            (0.5, 1.0, normal(rng, backend, m, n)),
        ):
            options: dict[str, Any] = {"transpose_a": transpose_a, "transpose_b": transpose_b}
            options |= {"alpha": alpha, "beta": beta}
            self.check(
                backend,
                backend.matmul,
                {"a": a, "b": b},
                {"out": before},
                (reference.matmul(a, b, before, **options),),
                k=k,
                **options,
            )

    @pytest.mark.parametrize(("m", "_", "n"), SHAPES)
    def test_sum_rows(
        self, backend: Backend, rng: np.random.Generator, m: int, _: int, n: int
    ) -> None:
        delta = normal(rng, backend, m, n)
        for alpha, beta, before in (
            (1 / 8, 0.0, nans(n)),
            (-0.5, 1.0, normal(rng, backend, n)),
            (2.0, 0.5, normal(rng, backend, n)),
        ):
            self.check(
                backend,
                backend.sum_rows,
                {"delta": delta},
                {"out": before},
                (reference.sum_rows(delta, before, alpha=alpha, beta=beta),),
                k=m,
                alpha=alpha,
                beta=beta,
            )

    @pytest.mark.parametrize(("m", "_", "n"), SHAPES)
    @pytest.mark.parametrize("activation", OUTPUT)
    def test_activate(
        self, backend: Backend, rng: np.random.Generator, m: int, _: int, n: int, activation: str
    ) -> None:
        z, b = 3 * normal(rng, backend, m, n), normal(rng, backend, n)
        self.check(
            backend,
            backend.activate,
            {"b": b},
            {"out": z},
            (reference.activate(z, b, activation),),
            k=n if activation == "softmax" else 1,
            activation=activation,
        )

    @pytest.mark.parametrize("activation", OUTPUT)
    def test_activate_far_out(self, backend: Backend, activation: str) -> None:
        wide, high = [-1e4, -50, -1, 0, 1, 50, 1e4], [1e4, 1e4, -1e4, 0, 0, 0, 0]
        z = np.array([wide, high, np.subtract(high, 2e4)])
        self.check(
            backend,
            backend.activate,
            {"b": np.zeros(7)},
            {"out": z},
            (reference.activate(z, np.zeros(7), activation),),
            k=7,
            activation=activation,
        )

    @pytest.mark.parametrize(("m", "_", "n"), SHAPES)
    @pytest.mark.parametrize("activation", HIDDEN)
    def test_hadamard(
        self, backend: Backend, rng: np.random.Generator, m: int, _: int, n: int, activation: str
    ) -> None:
        d, a = normal(rng, backend, m, n), activated(rng, backend, activation, m, n)
        self.check(
            backend,
            backend.hadamard,
            {"a": a},
            {"out": d},
            (reference.hadamard(d, a, activation),),
            k=1,
            activation=activation,
        )

    @pytest.mark.parametrize(("m", "n_in", "n_out"), SHAPES)
    @pytest.mark.parametrize("activation", OUTPUT)
    def test_forward(
        self,
        backend: Backend,
        rng: np.random.Generator,
        m: int,
        n_in: int,
        n_out: int,
        activation: str,
    ) -> None:
        a_prev, b = normal(rng, backend, m, n_in), normal(rng, backend, n_out)
        w = rounded(normal(rng, backend, n_out, n_in) / n_in**0.5, backend)
        self.check(
            backend,
            backend.forward,
            {"a_prev": a_prev, "w": w, "b": b},
            {"out": nans(m, n_out)},
            (reference.forward(a_prev, w, b, activation),),
            k=n_in + n_out,
            activation=activation,
        )

    @pytest.mark.parametrize(("m", "_", "n"), SHAPES)
    @pytest.mark.parametrize(("cost", "output"), PAIRS)
    def test_output_delta(
        self,
        backend: Backend,
        rng: np.random.Generator,
        m: int,
        _: int,
        n: int,
        cost: str,
        output: str,
    ) -> None:
        a = activated(rng, backend, output, m, n)
        y = np.eye(n)[rng.integers(0, n, m)]
        self.check(
            backend,
            backend.output_delta,
            {"a": a, "y": y},
            {"out": nans(m, n)},
            (reference.output_delta(a, y, output, cost),),
            k=1,
            activation=output,
            cost=cost,
        )

    @pytest.mark.parametrize(("m", "_", "n"), SHAPES)
    def test_scale_rows(
        self, backend: Backend, rng: np.random.Generator, m: int, _: int, n: int
    ) -> None:
        delta, weights = normal(rng, backend, m, n), normal(rng, backend, m, 1) ** 2
        weights = rounded(weights, backend)
        weights[0] = 0
        self.check(
            backend,
            backend.scale_rows,
            {"weights": weights},
            {"out": delta},
            (reference.scale_rows(delta, weights),),
            k=1,
        )

    @pytest.mark.parametrize(("m", "n_in", "n_out"), SHAPES)
    @pytest.mark.parametrize("activation", HIDDEN)
    def test_propagate_delta(
        self,
        backend: Backend,
        rng: np.random.Generator,
        m: int,
        n_in: int,
        n_out: int,
        activation: str,
    ) -> None:
        delta, w = normal(rng, backend, m, n_out), normal(rng, backend, n_out, n_in)
        a = activated(rng, backend, activation, m, n_in)
        self.check(
            backend,
            backend.propagate_delta,
            {"delta": delta, "w": w, "a": a},
            {"out": nans(m, n_in)},
            (reference.propagate_delta(delta, w, a, activation),),
            k=n_out,
            activation=activation,
        )

    @pytest.mark.parametrize(("m", "n_in", "n_out"), SHAPES)
    def test_gradient(
        self, backend: Backend, rng: np.random.Generator, m: int, n_in: int, n_out: int
    ) -> None:
        delta, a_prev = normal(rng, backend, m, n_out), normal(rng, backend, m, n_in)
        self.check(
            backend,
            backend.gradient,
            {"delta": delta, "a_prev": a_prev},
            {"out_w": nans(n_out, n_in), "out_b": nans(n_out)},
            reference.gradient(delta, a_prev, 1 / m),
            k=m,
            scale=1 / m,
        )

    @pytest.mark.parametrize(("m", "n_in", "n_out"), SHAPES)
    @pytest.mark.parametrize(("rate", "shrink"), [(0.3, 1.0), (0.05, 0.9)])
    def test_descend(
        self,
        backend: Backend,
        rng: np.random.Generator,
        m: int,
        n_in: int,
        n_out: int,
        rate: float,
        shrink: float,
    ) -> None:
        delta, a_prev = normal(rng, backend, m, n_out), normal(rng, backend, m, n_in)
        w, b = normal(rng, backend, n_out, n_in), normal(rng, backend, n_out)
        self.check(
            backend,
            backend.descend,
            {"delta": delta, "a_prev": a_prev},
            {"w": w, "b": b},
            reference.descend(w, b, delta, a_prev, rate, shrink),
            k=m,
            rate=rate,
            shrink=shrink,
        )

    # The whole ---------------------------------------------------------------------------------

    @pytest.mark.parametrize(("cost", "output"), PAIRS)
    @pytest.mark.parametrize("activation", HIDDEN)
    def test_back_propagation_is_the_gradient(
        self, rng: np.random.Generator, activation: str, cost: str, output: str
    ) -> None:
        network = Network(
            [4, 5, 3], activation=activation, output=output, cost=cost, device=self.make("float64")
        )
        x, y = rng.standard_normal((6, 4)), np.eye(3)[rng.integers(0, 3, 6)]
        assert gradient_error(network, x, y) < 1e-6

    @pytest.mark.parametrize(("n", "batch_size"), SCHEDULES)
    @pytest.mark.parametrize("shrink", [1.0, 0.9])
    @pytest.mark.parametrize("portion", [backprop.PORTION, 36], ids=["whole", "by fours"])
    def test_the_plain_step_descends_the_reference(
        self,
        backend: Backend,
        monkeypatch: pytest.MonkeyPatch,
        n: int,
        batch_size: int,
        shrink: float,
        portion: int,
    ) -> None:
        monkeypatch.setattr(backprop, "PORTION", portion)
        network = Network([6, 9, 4], device=backend)
        assert_descends(backprop.BackpropStep, network, n, batch_size, shrink, "uint8")

    @pytest.mark.parametrize(
        ("sizes", "activation", "output", "cost"),
        [
            ([6, 4], "sigmoid", "sigmoid", "quadratic"),
            ([6, 9, 4], "sigmoid", "sigmoid", "cross-entropy"),
            ([6, 17, 5, 4], ["tanh", "relu"], "softmax", "log-likelihood"),
            ([6, 8, 4], "relu", "identity", "squared-error"),
            ([6, 8, 4], "leaky-relu", "tanh", "quadratic"),
        ],
    )
    def test_the_fused_step_descends_the_reference(
        self,
        backend: Backend,
        sizes: list[int],
        activation: str | list[str],
        output: str,
        cost: str,
    ) -> None:
        def fused(backend: Backend, plan: Plan) -> Step:
            step = backend.fused_step(plan)
            assert isinstance(backend.explain(plan), str)
            if step is None:
                pytest.skip(f"{backend.name} has no fused step for this network: that is its right")
            return step

        variants = itertools.product(SCHEDULES, [1.0, 0.9], ["uint8", "float"])
        for (n, batch_size), shrink, kind in variants:
            network = Network(
                sizes, activation=activation, output=output, cost=cost, device=backend
            )
            assert_descends(fused, network, n, batch_size, shrink, kind)

    @pytest.mark.parametrize("kind", ["uint8", "float"])
    @pytest.mark.parametrize(
        ("sizes", "activations"),
        [
            ([6, 4], ["sigmoid"]),
            ([784, 30, 10], ["sigmoid", "identity"]),
            ([70, 33, 17, 5], ["tanh", "relu", "softmax"]),
            ([1, 129, 2], ["leaky-relu", "tanh"]),
        ],
    )
    def test_fused_feed(
        self,
        backend: Backend,
        rng: np.random.Generator,
        sizes: list[int],
        activations: list[str],
        kind: str,
    ) -> None:
        layers, on_device = [], []
        for n_in, n_out, activation in zip(sizes, sizes[1:], activations, strict=False):
            w = rounded(normal(rng, backend, n_out, n_in) / n_in**0.5, backend)
            layers.append(Layer(w, normal(rng, backend, n_out), activation))
            w, b = (backend.asarray(cast(each, backend)) for each in layers[-1][:2])
            on_device.append(Layer(w, b, activation))
        declined = []
        for n in (1, 1000, 2311):
            rows: Array = rng.integers(0, 256, (n, sizes[0]), dtype=np.uint8)
            rows[rng.random(rows.shape) < 0.7] = 0
            rows[n // 3 : n // 2] = 0
            rows, scale = (
                (rows, 1 / 255) if kind == "uint8" else (rounded(rows / 255, backend), 1.0)
            )
            expected = rows * scale
            for layer in layers:
                expected = reference.forward(expected, *layer)

            def feed(rows: Any, out: Any, n: int = n, scale: float = scale) -> None:
                at_once = backend.fused_feed(sizes, rows, scale, n)
                if at_once is None:
                    declined.append(n)
                    at_once = Portions(backend, sizes, rows, scale, n)
                for _ in range(2):
                    at_once(on_device, out)

            outs = {"out": nans(n * sizes[-1])}
            self.check(backend, feed, {"rows": rows}, outs, (expected.ravel(),), k=sum(sizes))
        if len(declined) == 3:
            pytest.skip(f"{backend.name} has no way of its own to feed forward: that is its right")

    @pytest.mark.parametrize("optimiser", [SGD(0.9), SGD(0.6, nesterov=True), Adam()], ids=str)
    @pytest.mark.parametrize("own", [False, True])
    def test_a_step_with_an_optimiser_descends_the_reference(
        self, backend: Backend, optimiser: Optimiser, own: bool
    ) -> None:
        def make(backend: Backend, plan: Plan) -> Step:
            return backprop.step_for(backend, plan, fused=own)

        for (n, batch_size), l2 in itertools.product([*SCHEDULES, (61, 13)], [0.0, 0.3]):
            network = Network([6, 9, 4], device=backend)
            assert_descends(make, network, n, batch_size, 1.0, "uint8", optimiser, l2)

    @pytest.mark.parametrize("optimiser", [None, SGD(0.9)], ids=str)
    @pytest.mark.parametrize("rates", [None, (0.2, 0.5)], ids=["", "dropout"])
    @pytest.mark.parametrize("own", [False, True])
    def test_a_step_with_weights_descends_the_reference(
        self,
        backend: Backend,
        optimiser: Optimiser | None,
        rates: tuple[float, ...] | None,
        own: bool,
    ) -> None:
        def make(backend: Backend, plan: Plan) -> Step:
            return backprop.step_for(backend, plan, fused=own)

        for n, batch_size in SCHEDULES:
            network = Network([6, 9, 4], device=backend)
            how = network, n, batch_size, 1.0 if optimiser else 0.9, "uint8", optimiser
            assert_descends(make, *how, rates=rates, weighted=True)

    @pytest.mark.parametrize("shape", [(1,), (7,), (5, 3), (30, 784)])
    @pytest.mark.parametrize("nesterov", [False, True])
    def test_momentum(
        self, backend: Backend, rng: np.random.Generator, shape: tuple[int, ...], nesterov: bool
    ) -> None:
        w, velocity, gradient = (normal(rng, backend, *shape) for _ in range(3))
        w.flat[0] = 0  # whose sign is 0
        by = reference.Momentum(0.3, 0.9, nesterov, l1=0.01, l2=0.02, shrink=0.97)
        self.check(
            backend,
            backend.momentum,
            {"gradient": gradient},
            {"w": w, "velocity": velocity},
            reference.momentum(w, velocity, gradient, by),
            k=4,
            by=by,
        )

    @pytest.mark.parametrize("shape", [(1,), (7,), (5, 3), (30, 784)])
    @pytest.mark.parametrize("taken", [1, 1000])
    def test_adam(
        self, backend: Backend, rng: np.random.Generator, shape: tuple[int, ...], taken: int
    ) -> None:
        w, mean, gradient = (normal(rng, backend, *shape) for _ in range(3))
        square = normal(rng, backend, *shape) ** 2
        w.flat[0] = 0
        by = reference.Adam(0.01, 0.9, 0.999, 1e-8, taken, l1=0.01, l2=0.02, shrink=0.97)
        self.check(
            backend,
            backend.adam,
            {"gradient": gradient},
            {"w": w, "mean": mean, "square": rounded(square, backend)},
            reference.adam(w, mean, rounded(square, backend), gradient, by),
            k=4,
            by=by,
        )

    @pytest.mark.parametrize("k", [1, 7, 24_000])
    @pytest.mark.parametrize(
        ("size", "most"), [(1, 0.5), (1, 1e4), (1e30, 1), (1e-30, 1e-33), (0, 1)]
    )
    def test_clip(
        self, backend: Backend, rng: np.random.Generator, k: int, size: float, most: float
    ) -> None:
        gradient = rounded(size * (1 + normal(rng, backend, k) ** 2), backend)
        expected = reference.clip(gradient, most)
        self.check(backend, backend.clip, {}, {"gradient": gradient}, (expected,), k, most=most)

    @pytest.mark.parametrize("shape", [(1, 1), (3, 7), (100, 300)])
    @pytest.mark.parametrize("first", [0, 2**31, 2**63 + 1])
    @pytest.mark.parametrize("rate", [0.3, 0.999_999])
    @pytest.mark.parametrize("in_place", [False, True])
    def test_drop(
        self,
        backend: Backend,
        rng: np.random.Generator,
        shape: tuple[int, ...],
        first: int,
        rate: float,
        in_place: bool,
    ) -> None:
        a = normal(rng, backend, *shape)
        by = reference.Dropped(2**64 - 7, first, rate)
        expected = (reference.drop(a, by),)
        if in_place:
            self.check(backend, lambda out: backend.drop(out, by, out), {}, {"out": a}, expected, 1)
        else:
            self.check(backend, backend.drop, {"a": a}, {"out": nans(*shape)}, expected, 1, by=by)

    @pytest.mark.parametrize("rates", [(0.2, 0.5, 0.0), (0.0, 0.3, 0.5)])
    @pytest.mark.parametrize(
        ("own", "portion"),
        [(True, backprop.PORTION), (False, backprop.PORTION), (False, 36)],
        ids=["own", "plain", "plain by fours"],
    )
    def test_a_step_with_dropout_descends_the_reference(
        self,
        backend: Backend,
        monkeypatch: pytest.MonkeyPatch,
        rates: tuple[float, ...],
        own: bool,
        portion: int,
    ) -> None:
        def make(backend: Backend, plan: Plan) -> Step:
            return backprop.step_for(backend, plan, fused=own)

        monkeypatch.setattr(backprop, "PORTION", portion)
        for (n, batch_size), optimiser in itertools.product(SCHEDULES, (None, SGD(0.9))):
            network = Network([6, 9, 5, 4], activation=["sigmoid", "tanh"], device=backend)
            how = network, n, batch_size, 1.0 if optimiser else 0.9, "uint8", optimiser
            assert_descends(make, *how, rates=rates)

    @pytest.mark.parametrize("optimiser", OPTIMISERS, ids=str)
    def test_it_learns_as_numpy_does(self, rng: np.random.Generator, optimiser: Optimiser) -> None:
        centres = rng.standard_normal((3, 8))
        labels = rng.integers(0, 3, 203)
        x = centres[labels] + 0.3 * rng.standard_normal((203, 8))
        runs = {}
        for backend in (find_device("numpy", "float64"), self.make("float64")):
            network = Network([8, 6, 3], device=backend)
            rate = min(1.0, 20 * optimiser.learning_rate)
            how: dict[str, Any] = {"optimiser": optimiser, "l2": 0.1, "learning_rate": rate}
            if optimiser != SGD():
                how |= {"l1": 0.05, "clip_norm": 0.3}
            runs[backend] = train(network, (x, labels), epochs=5, **how).epochs
        ours, theirs = runs.values()
        np.testing.assert_allclose(
            [epoch.train_cost for epoch in theirs], [epoch.train_cost for epoch in ours], rtol=1e-9
        )
        assert theirs[-1].train_accuracy > 0.95
