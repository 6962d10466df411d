"""The book's method: back-propagation a sample at a time, as columns, added up over a batch."""

from __future__ import annotations

import numpy as np
from peers.task import RATE, Arrays, Peer, Task


def train(task: Task) -> Peer:
    x, y = task.x[:, :, None], task.y[:, :, None]
    w = [array.copy() for array in task.weights]
    b = [array[:, None].copy() for array in task.biases]

    def add_gradient(x: np.ndarray, y: np.ndarray, to_w: Arrays, to_b: Arrays) -> None:
        a = [x]
        for w_l, b_l in zip(w, b, strict=True):
            a.append(1 / (1 + np.exp(-(w_l @ a[-1] + b_l))))
        delta = a[-1] - y
        for i in reversed(range(len(w))):
            to_b[i] += delta
            to_w[i] += delta @ a[i].T
            if i:
                delta = (w[i].T @ delta) * a[i] * (1 - a[i])

    def epoch(order: np.ndarray) -> None:
        for start in range(0, len(order), task.batch_size):
            batch = order[start : start + task.batch_size]
            sums = [[np.zeros_like(array) for array in mine] for mine in (w, b)]
            for i in batch:
                add_gradient(x[i], y[i], *sums)
            rate = np.float32(RATE / len(batch))
            for mine, total in zip([*w, *b], [*sums[0], *sums[1]], strict=True):
                mine -= rate * total

    return Peer(
        epoch, lambda: [*(array.copy() for array in w), *(array[:, 0].copy() for array in b)]
    )
