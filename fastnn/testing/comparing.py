"""What the conformance suite compares by: host arrays, tolerances, and epochs of the reference."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastnn.backends.base import Backend, Layer, Plan, Step
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.comparing import rounding
from fastnn.dropout import Dropout
from fastnn.kernels import reference
from fastnn.kernels.reference import Dropped
from fastnn.network import Network
from fastnn.optimisers import Optimiser, Update

Array = NDArray[Any]

GUARD = 123.0


def guarded(backend: Backend, host: Array) -> list[Any]:
    """Return three views: memory of guard values, the array, and guard values again."""
    guard = np.full(64, GUARD, backend.dtype)
    flat = backend.asarray(np.concatenate([guard, host.ravel(), guard]))
    return backend.views(flat, [guard.shape, host.shape, guard.shape])


def cast(array: Array, backend: Backend) -> Array:
    """Return floats in the backend's dtype, and integers as they are."""
    return array.astype(backend.dtype) if np.issubdtype(array.dtype, np.floating) else array


def rounded(array: Array, backend: Backend) -> Array:
    """Return float64 values that the backend's dtype holds exactly."""
    return array.astype(backend.dtype).astype(np.float64)


def normal(rng: np.random.Generator, backend: Backend, *shape: int) -> Array:
    """Return draws from N(0, 1) that the backend's dtype holds exactly."""
    return rounded(rng.standard_normal(shape), backend)


def activated(rng: np.random.Generator, backend: Backend, activation: str, m: int, n: int) -> Array:
    """Return values that the activation can have."""
    return rounded(reference.SIGMA[activation](rng.standard_normal((m, n))), backend)


def nans(*shape: int) -> Array:
    """Return an array that must be overwritten."""
    return np.full(shape, np.nan)


def assert_close(got: Array, expected: Array, backend: Backend, k: int, what: str) -> None:
    """Hold a result to 8 · eps · √k · max|expected|, with k the length of the longest sum in it."""
    assert got.dtype == backend.dtype
    assert np.isfinite(got).all(), f"{what} is not finite"
    tolerance = rounding(k, backend.dtype) * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=what)


def assert_descends(
    make_step: Callable[[Backend, Plan], Step],
    network: Network,
    n: int,
    batch_size: int,
    shrink: float,
    kind: str,
    optimiser: Optimiser | None = None,
    l2: float = 0.0,
    rates: Sequence[float] | None = None,
    weighted: bool = False,
) -> None:
    """Three epochs against the reference in float64.

    The first in as few calls as the step's stride allows, the second in calls of one mini-batch,
    the third in calls of one, two, three and so on; each with an order, a rate and a factor to
    shrink by of its own, and draws of its own where units rest at some rates. Many pixels are 0, as
    in images; of samples with weights, some weights are, too.
    """
    rng = np.random.default_rng(n)
    backend, n_in, n_out = network.backend, network.sizes[0], network.sizes[-1]
    pixels = rng.integers(0, 256, (n, n_in), dtype=np.uint8)
    pixels[rng.random(pixels.shape) < 0.7] = 0
    x = pixels if kind == "uint8" else rounded(pixels / 255, backend)
    scale = 1 / 255 if kind == "uint8" else 1.0
    y = np.eye(n_out, dtype=np.uint8)[rng.integers(0, n_out, n)]
    w, b = ([array.astype(float) for array in each] for each in (network.weights, network.biases))
    plan = Plan(
        layers=network.layers,
        sizes=network.sizes,
        cost=network.cost,
        inputs=backend.asarray(cast(x, backend)),
        scale=scale,
        targets=backend.asarray(y),
        n=n,
        batch_size=batch_size,
    )
    exact, crossing = None, False  # whether the device takes the host
    weights = np.ones((n, 1))
    if weighted:
        weights = rounded(3 * rng.random((n, 1)) * (rng.random((n, 1)) < 0.8), backend)
        plan = replace(plan, weights=backend.asarray(cast(weights, backend)))
        crossing = type(backend).scale_rows is Backend.scale_rows
    if optimiser is not None:
        plan = replace(plan, update=Update(backend, plan.layers, plan.sizes, optimiser, 0.0, l2))
        layers = [Layer(*pair, "") for pair in zip(w, b, strict=True)]
        exact = Update(NumpyBackend(dtype="float64"), layers, plan.sizes, optimiser, 0.0, l2)
        crossing = crossing or type(backend).momentum is Backend.momentum
    if rates is not None:
        plan = replace(plan, dropout=Dropout(backend, rates, plan.sizes, n, seed=3))
        crossing = crossing or type(backend).drop is Backend.drop
    step = make_step(backend, plan)
    starts = range(0, n, batch_size)
    strides = (itertools.repeat(step.stride), itertools.repeat(1), itertools.count(1))
    epochs = [(rng.permutation(n).astype(np.int32), 0.3 / e, shrink**e) for e in (1, 2, 3)]
    orders = [backend.asarray(order) for order, *_ in epochs]
    with nullcontext() if crossing else _no_crossings(backend):
        for number, (order, (_, *how), stride) in enumerate(
            zip(orders, epochs, strides, strict=True), 1
        ):
            start = 0
            if plan.dropout is not None:
                plan.dropout.epoch = number
            while start < n:
                stop = min(start + batch_size * min(next(stride), step.stride), n)
                step(order, start, stop, *how)
                start = stop

    for number, (order, rate, factor) in enumerate(epochs):
        # What a unit's number is multiplied by: a matrix for each layer, a row for each sample.
        masks = [np.ones((n, 1)) for _ in w]
        if rates is not None:
            masks = [
                reference.drop(np.ones((n, width)), Dropped(key, number * n * width, part))
                for key, width, part in zip(plan.dropout.keys, plan.sizes, rates, strict=False)
            ]
        for start in starts:
            piece = slice(start, start + batch_size)
            batch, rest = order[piece], [mask[piece] for mask in masks]
            samples = scale * x[batch], y[batch], weights[batch], rest
            _reference_mini_batch(network, w, b, *samples, rate, factor, exact)
    # The rounding of each mini-batch adds to that of all before it.
    k = max(batch_size, *network.sizes) * (len(epochs) * len(starts)) ** 2
    for got, expected in zip((*network.weights, *network.biases), (*w, *b), strict=True):
        assert_close(got, expected, backend, k, "a parameter")


def _reference_mini_batch(
    network: Network,
    w: list[Array],
    b: list[Array],
    x: Array,
    y: Array,
    weights: Array,
    masks: list[Array],
    rate: float,
    shrink: float,
    update: Update | None,
) -> None:
    a = [x]
    for i, activation in enumerate(network.activations):
        a.append(reference.forward(masks[i] * a[i], w[i], b[i], activation))
    delta = reference.output_delta(a[-1], y, network.output, network.cost)
    delta = reference.scale_rows(delta, weights)
    for i in reversed(range(len(w))):
        below, seen = delta, masks[i] * a[i]
        if i:
            below = reference.propagate_delta(delta, w[i], a[i], network.activations[i - 1])
            below *= masks[i]
        if update is None:
            w[i], b[i] = reference.descend(w[i], b[i], delta, seen, rate / len(x), shrink)
        else:
            for out, slope in zip(
                update.gradients[i], reference.gradient(delta, seen, 1 / len(x)), strict=True
            ):
                out[...] = slope
        delta = below
    if update is not None:
        update(rate, shrink)


class _no_crossings:
    """Between enter and exit, an array that crosses between host and device is a failure."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __enter__(self) -> None:
        def refuse(*_: Any) -> None:
            pytest.fail("a step moved data between host and device")

        for name in ("asarray", "to_numpy"):
            setattr(self._backend, name, refuse)

    def __exit__(self, *_: object) -> None:
        for name in ("asarray", "to_numpy"):
            delattr(self._backend, name)
