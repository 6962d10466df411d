"""Short trainings that show whether a device computes the right thing.

    python benchmarks/gpu_train.py short        for compute-sanitizer to watch
    python benchmarks/gpu_train.py trajectory   the course of a training, NumPy's beside it, as JSON

``--device`` is "cuda" if not said otherwise; ``--step`` names the step that must have run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

import numpy as np

import fastnn

BOOK: dict[str, Any] = {"sizes": [784, 30, 10], "cost": "quadratic", "init": "normal"}
# (learning rate, samples, most that it may be off, momentum): a thousand steps, and an epoch. At
# the book's rate of 3 rounding grows over an epoch until NumPy in float32 is as far from NumPy in
# float64 as from anyone: there it is shown beside, and nothing is asked.
COURSES = [
    (0.5, 10_000, 1e-3, 0.0),
    (0.5, 60_000, 5e-3, 0.0),
    (3.0, 10_000, 1e-3, 0.0),
    (3.0, 60_000, None, 0.0),
    (0.05, 10_000, 1e-3, 0.9),
]
BATCH_SIZE = 10


def short(device: str, step: str | None) -> None:
    """Train two networks on twenty mini-batches and a tail each, against NumPy."""
    for sizes, batch_size, more in (
        ([784, 30, 10], 10, {"cost": "quadratic"}),
        ([784, 16, 16, 10], 32, {"output": "softmax", "cost": "log-likelihood"}),
    ):
        data = fastnn.synthetic(train=20 * batch_size + batch_size // 2, test=1).train
        ends = []
        for who in (device, "numpy"):
            network = fastnn.Network(sizes, device=who, **more)
            history = fastnn.train(network, data, epochs=1, batch_size=batch_size)
            ends.append(np.concatenate([w.ravel() for w in network.weights]))
            if who == device and step not in (None, history.step):
                raise SystemExit(f"the step was {history.step!r}, not {step!r}: {sizes}")
        off = np.abs(ends[0] - ends[1]).max() / np.abs(ends[1]).max()
        print(f"{sizes}: {len(data)} samples, {off:.1e} from NumPy")
        if not off < 1e-4:
            raise SystemExit(f"{sizes}: the weights are {off:.1e} from NumPy's")


def trajectory(device: str) -> list[dict[str, Any]]:
    """Return costs and weights after the courses, and NumPy's."""
    folder = os.environ.get("FASTNN_MNIST")
    data = (fastnn.load_dataset(folder) if folder else fastnn.synthetic()).train
    rows = []
    for rate, samples, most, momentum in COURSES:
        part = fastnn.Dataset(data.x[:samples], data.labels[:samples])
        how: dict[str, Any] = {"learning_rate": rate, "optimiser": fastnn.SGD(momentum)}

        def run(who: str, dtype: str, part: Any = part, how: dict[str, Any] = how) -> Any:
            network = fastnn.Network(**BOOK, device=who, dtype=dtype)
            history = fastnn.train(network, part, epochs=1, batch_size=BATCH_SIZE, **how)
            return history.epochs[-1].train_cost, [*network.weights, *network.biases], history

        cost, parameters, history = run(device, "float32")
        cost_numpy, by_numpy, _ = run("numpy", "float32")
        _, exact, _ = run("numpy", "float64")
        difference, cost_difference = apart(parameters, by_numpy), abs(cost / cost_numpy - 1)
        rows.append(
            {
                "name": f"η {rate:g}, μ {momentum:g}, {len(part) // BATCH_SIZE:,} steps",
                "step": history.step,
                "cost": cost,
                "cost_numpy": cost_numpy,
                "cost_difference": cost_difference,
                "weights": side_by_side(parameters, by_numpy),
                "difference": difference,
                "numpy_to_float64": apart(by_numpy, exact),
                "most": most,
                "passed": most is None or max(difference, cost_difference) <= most,
            }
        )
    return rows


def apart(got: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Return the largest difference of a number to its array's largest."""
    pairs = zip(got, expected, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def side_by_side(got: list[np.ndarray], expected: list[np.ndarray]) -> list[dict[str, Any]]:
    """Return of each array its length as a vector on the device and by NumPy, and how far apart."""
    return [
        {
            "shape": a.shape,
            "norm": float(np.linalg.norm(a)),
            "norm_numpy": float(np.linalg.norm(b)),
            "difference": apart([a], [b]),
        }
        for a, b in zip(got, expected, strict=True)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Short trainings against NumPy.")
    parser.add_argument("what", choices=["short", "trajectory"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--step", help="the step that must have run, of short")
    options = parser.parse_args()
    if options.what == "short":
        short(options.device, options.step)
    else:
        print(json.dumps(trajectory(options.device)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
