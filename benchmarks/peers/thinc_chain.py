"""Thinc: a chain of its layers, its products by BLIS, its SGD."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from peers.task import RATE, Peer, Task


def train(task: Task) -> Peer:
    from thinc.api import SGD, Linear, NumpyOps, Sigmoid, chain

    x, y, ops = task.x, task.y, NumpyOps()
    *hidden, last = pairwise(task.sizes)
    # The last layer gives z: with cross-entropy σ′ falls out of its delta.
    layers = [
        *(Sigmoid(n_out, n_in) for n_in, n_out in hidden),
        Linear(last[1], last[0]),
    ]
    model = chain(*layers) if hidden else layers[0]
    model.initialize()
    for layer, w, b in zip(layers, task.weights, task.biases, strict=True):
        layer.set_param("W", w.copy())
        layer.set_param("b", b.copy())
    descent = SGD(RATE, L2=0, grad_clip=0, use_averages=False)

    def epoch(order: np.ndarray) -> None:
        for start in range(0, len(order), task.batch_size):
            batch = order[start : start + task.batch_size]
            z, backprop = model.begin_update(x[batch])
            backprop((ops.sigmoid(z) - y[batch]) / np.float32(len(batch)))
            model.finish_update(descent)

    return Peer(epoch, lambda: [layer.get_param(name).copy() for name in "Wb" for layer in layers])
