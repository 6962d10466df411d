"""The same training by others: an epoch of SGD on a quadratic cost with sigmoids, in float32.

Each peer is a function of the parameters to start from, the data and the mini-batches' size. It
returns a function that trains on one epoch in a given order, and one that returns the parameters
then, for checking that it does the same work. Each is written in the form that is fastest for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np

import fastnn

Arrays = list[np.ndarray]
Epoch = Callable[[np.ndarray], Any]
Peer = tuple[Epoch, Callable[[], Arrays]]

RATE = 0.5


def by_hand(weights: Arrays, biases: Arrays, data: fastnn.Dataset, batch_size: int) -> Peer:
    """SGD as a good NumPy programmer writes it; the images are scaled once, beforehand."""
    x, y = _floats(data), one_hot(data)
    w, b = [array.copy() for array in weights], [array.copy() for array in biases]

    def epoch(order: np.ndarray) -> None:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            a = [x[batch]]
            for w_l, b_l in zip(w, b, strict=True):
                a.append(1 / (1 + np.exp(-(a[-1] @ w_l.T + b_l))))
            delta = (a[-1] - y[batch]) * a[-1] * (1 - a[-1])
            rate = np.float32(RATE / len(batch))
            for i in reversed(range(len(w))):
                below = (delta @ w[i]) * a[i] * (1 - a[i]) if i else delta
                w[i] -= rate * (delta.T @ a[i])
                b[i] -= rate * delta.sum(axis=0)
                delta = below

    return epoch, lambda: [*w, *b]


def jax(
    weights: Arrays,
    biases: Arrays,
    data: fastnn.Dataset,
    batch_size: int,
    *,
    platform: str = "cpu",
    precision: str = "highest",
    unrolls: tuple[int, ...] = (1,),
) -> Peer:
    """A whole epoch as one jitted lax.scan, with the data on the device, as bytes.

    Of several numbers of steps that the loop may hold at once, what is faster. The parameters are
    donated: the epoch may write the new ones where the old ones were.
    """
    import jax
    from jax import numpy as jnp

    device = jax.devices(platform)[0]

    def on_device(array: np.ndarray) -> Any:
        return jax.device_put(np.array(array, order="C"), device)  # a copy: it may be donated

    x, y = on_device(data.x.reshape(len(data), -1)), on_device(one_hot(data))

    def at_start() -> Any:
        return [(on_device(w.T), on_device(b)) for w, b in zip(weights, biases, strict=True)]

    def cost(layers: Any, x: Any, y: Any) -> Any:
        a = x.astype(jnp.float32) / 255
        for w, b in layers:
            a = jax.nn.sigmoid(a @ w + b)
        return 0.5 * ((a - y) ** 2).sum(axis=1).mean()

    @partial(jax.jit, static_argnames="unroll", donate_argnums=0)
    def whole(layers: Any, x: Any, y: Any, batches: Any, tail: Any, unroll: int) -> Any:
        def step(layers: Any, batch: Any) -> Any:
            slopes = jax.grad(cost)(layers, x[batch], y[batch])
            return jax.tree.map(lambda p, slope: p - RATE * slope, layers, slopes), None

        layers = jax.lax.scan(step, layers, batches, unroll=unroll)[0]
        return step(layers, tail)[0] if tail.size else layers

    def epoch(order: np.ndarray, unroll: int | None = None) -> None:
        nonlocal layers
        full = len(order) // batch_size * batch_size
        batches, tail = on_device(order[:full].reshape(-1, batch_size)), on_device(order[full:])
        with jax.default_matmul_precision(precision):
            layers = whole(layers, x, y, batches, tail, unroll=unroll or fastest)
        jax.block_until_ready(layers)

    def seconds(unroll: int) -> float:
        order = np.arange(len(data), dtype=np.int32)
        epoch(order, unroll)  # compile
        began = perf_counter()
        epoch(order, unroll)
        return perf_counter() - began

    layers, fastest = at_start(), unrolls[0]
    if len(unrolls) > 1:
        fastest = min(unrolls, key=seconds)
        layers = at_start()
        epoch.form = f"steps a turn of the loop: {fastest}"
    return epoch, lambda: [
        *(np.asarray(w).T for w, _ in layers),
        *(np.asarray(b) for _, b in layers),
    ]


def torch(weights: Arrays, biases: Arrays, data: fastnn.Dataset, batch_size: int) -> Peer:
    """PyTorch, eager; of one thread and all of them, what is faster."""
    return _torch(weights, biases, data, batch_size, compiled=False)


def torch_compile(weights: Arrays, biases: Arrays, data: fastnn.Dataset, batch_size: int) -> Peer:
    """PyTorch with the cost and its gradient compiled; of one thread and all, what is faster."""
    return _torch(weights, biases, data, batch_size, compiled=True)


def _torch(
    weights: Arrays, biases: Arrays, data: fastnn.Dataset, batch_size: int, compiled: bool
) -> Peer:
    import torch

    x, y = torch.from_numpy(_floats(data)), torch.from_numpy(one_hot(data))
    w = [torch.tensor(array, requires_grad=True) for array in weights]
    b = [torch.tensor(array, requires_grad=True) for array in biases]
    parameters = [*w, *b]

    def cost(a: Any, y: Any) -> Any:
        for w_l, b_l in zip(w, b, strict=True):
            a = torch.sigmoid(torch.nn.functional.linear(a, w_l, b_l))
        return 0.5 * (a - y).square().sum(dim=1).mean()

    if compiled:
        cost = torch.compile(cost, dynamic=False)

    def steps(order: np.ndarray) -> None:
        for batch in torch.from_numpy(order.astype(np.int64)).split(batch_size):
            slopes = torch.autograd.grad(cost(x[batch], y[batch]), parameters)
            with torch.no_grad():
                torch._foreach_add_(parameters, slopes, alpha=-RATE)

    all_threads = torch.get_num_threads()

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        began = perf_counter()
        steps(np.arange(min(200 * batch_size, len(x))))
        return perf_counter() - began

    seconds(1)  # compile
    threads = min((1, all_threads), key=seconds)
    with torch.no_grad():  # back to the start
        for parameter, array in zip(parameters, [*weights, *biases], strict=True):
            parameter.copy_(torch.tensor(array))

    def epoch(order: np.ndarray) -> None:
        torch.set_num_threads(threads)
        steps(order)
        torch.set_num_threads(all_threads)

    return epoch, lambda: [p.detach().numpy().copy() for p in parameters]


def sklearn(weights: Arrays, biases: Arrays, data: fastnn.Dataset, batch_size: int) -> Peer:
    """scikit-learn's MLPClassifier, with softmax and its own start: the same amount of work."""
    from sklearn.neural_network import MLPClassifier

    x, classes = _floats(data), np.arange(len(biases[-1]))
    model = MLPClassifier(
        tuple(len(b) for b in biases[:-1]),
        activation="logistic",
        solver="sgd",
        alpha=0,
        momentum=0,
        batch_size=batch_size,
        learning_rate_init=RATE,
        shuffle=False,
    )

    def epoch(order: np.ndarray) -> None:
        # It would shuffle by itself; what it takes to bring the samples in order is left out.
        model.partial_fit(x, data.labels, classes=classes)

    return epoch, lambda: []


def installed() -> dict[str, Callable[..., Peer]]:
    """Return the peers that can be imported here, by the names that results call them."""
    peers: dict[str, Callable[..., Peer]] = {"NumPy by hand": by_hand}
    with contextlib.suppress(ModuleNotFoundError):
        if find_spec("jax"):
            peers["JAX"] = jax
        if find_spec("torch"):
            peers |= {"PyTorch": torch, "torch.compile": torch_compile}
    return peers | {"scikit-learn": sklearn}


def _floats(data: fastnn.Dataset) -> np.ndarray:
    return data.x.reshape(len(data), -1).astype(np.float32) / 255


def one_hot(data: fastnn.Dataset) -> np.ndarray:
    return np.eye(10, dtype=np.float32)[data.labels]
