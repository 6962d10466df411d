"""scikit-learn's MLPClassifier; with the labels as indicators its outputs are sigmoids."""

from __future__ import annotations

import numpy as np
from peers.task import RATE, Peer, Task


def train(task: Task) -> Peer:
    from sklearn.neural_network import MLPClassifier

    x, y = task.x, task.y.astype(np.int64)
    ordered = np.empty_like(x), np.empty_like(y)
    model = MLPClassifier(
        tuple(task.sizes[1:-1]),
        activation="logistic",
        solver="sgd",
        alpha=0,
        momentum=0,
        batch_size=task.batch_size,
        learning_rate_init=RATE,
        shuffle=False,  # the order is given
    )

    def epoch(order: np.ndarray) -> None:
        taken = [out[: len(order)] for out in ordered]
        for rows, out in zip((x, y), taken, strict=True):
            np.take(rows, order, axis=0, out=out, mode="clip")  # "raise" would copy once more
        model.partial_fit(*taken)

    # It makes its parameters in a first call, and keeps them from then on.
    model.partial_fit(x[: task.batch_size], y[: task.batch_size], classes=np.arange(task.sizes[-1]))
    for mine, start in zip(model.coefs_, task.weights, strict=True):
        mine[...] = start.T
    for mine, start in zip(model.intercepts_, task.biases, strict=True):
        mine[...] = start
    return Peer(
        epoch,
        lambda: [*(w.T.copy() for w in model.coefs_), *(b.copy() for b in model.intercepts_)],
    )
