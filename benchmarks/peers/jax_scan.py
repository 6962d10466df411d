"""JAX: a whole epoch as one jitted lax.scan, with the data on the device."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from peers.task import RATE, Peer, Task, fastest

PRECISION = {"fp32": "highest", "tf32": "tensorfloat32"}
# The loop may hold several steps at once, where it is long enough for that to matter.
UNROLLED, LONG = 8, 1000


def train(task: Task) -> Peer:
    """Of one step a turn of the loop and several, what is faster.

    The parameters are donated: the epoch may write the new ones where the old ones were.
    """
    import jax
    from jax import numpy as jnp

    device = jax.devices(task.platform)[0]

    def on_device(array: np.ndarray) -> Any:
        return jax.device_put(np.array(array, order="C"), device)  # a copy: it may be donated

    # Bytes become floats within the kernel that gathers them.
    x, y = on_device(task.data.x.reshape(len(task.data), -1)), on_device(task.y)
    b_size = task.batch_size

    def at_start() -> Any:
        pairs = zip(task.weights, task.biases, strict=True)
        return [(on_device(w.T), on_device(b)) for w, b in pairs]

    def cost(layers: Any, x: Any, y: Any) -> Any:
        *hidden, (w, b) = layers
        a = x.astype(jnp.float32) / 255
        for w_l, b_l in hidden:
            a = jax.nn.sigmoid(a @ w_l + b_l)
        z = a @ w + b
        return (jax.nn.softplus(z) - y * z).sum(axis=1).mean()  # cross-entropy, of z

    @partial(jax.jit, static_argnames="unroll", donate_argnums=0)
    def whole(layers: Any, x: Any, y: Any, batches: Any, tail: Any, unroll: int) -> Any:
        def step(layers: Any, batch: Any) -> Any:
            slopes = jax.grad(cost)(layers, x[batch], y[batch])
            return jax.tree.map(lambda p, slope: p - RATE * slope, layers, slopes), None

        layers = jax.lax.scan(step, layers, batches, unroll=unroll)[0]
        return step(layers, tail)[0] if tail.size else layers

    def epoch(order: np.ndarray, unroll: int | None = None) -> None:
        nonlocal layers
        full = len(order) // b_size * b_size
        batches, tail = on_device(order[:full].reshape(-1, b_size)), on_device(order[full:])
        with jax.default_matmul_precision(PRECISION[task.precision]):
            layers = whole(layers, x, y, batches, tail, unroll=unroll or best)
        jax.block_until_ready(layers)

    layers, best, form = at_start(), 1, ""
    if len(task.data) // b_size >= LONG:
        as_they_lie = np.arange(len(task.data), dtype=np.int32)
        best = fastest((1, UNROLLED), lambda unroll: epoch(as_they_lie, unroll))
        layers, form = at_start(), f"steps a turn of the loop: {best}"
    return Peer(
        epoch,
        lambda: [*(np.asarray(w).T for w, _ in layers), *(np.asarray(b) for _, b in layers)],
        form,
    )
