"""The book's second program, network2.py: the cross-entropy, regularization, and the monitors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fastnn.backends.base import Backend
from fastnn.backends.registry import device as find_device
from fastnn.book.base import Array, BookNetwork, checked_parameters, sigmoid, sigmoid_prime
from fastnn.book.samples import Pair, as_column, as_pairs, vectorized_result
from fastnn.cache import write_whole
from fastnn.checks import layer_sizes, whole_number
from fastnn.costs import mean_cost
from fastnn.errors import ArgumentError, ModelError, known_name
from fastnn.history import Epoch
from fastnn.outputs import cannot_write, check_output

__all__ = [
    "CrossEntropyCost",
    "Network",
    "QuadraticCost",
    "load",
    "sigmoid",
    "sigmoid_prime",
    "vectorized_result",
]

PathLike: TypeAlias = str | os.PathLike[str]
Monitored: TypeAlias = tuple[list[float], list[int], list[float], list[int]]


class QuadraticCost:
    """C_x = 1/2 ‖y - a‖²."""

    @staticmethod
    def fn(a: Any, y: Any) -> float:
        """Return the cost of one sample, from outputs and desired outputs of the same shape."""
        return _total("quadratic", a, y)

    @staticmethod
    def delta(z: Any, a: Any, y: Any) -> Any:
        """BP1: δ^L = (a - y) ⊙ σ′(z)."""
        return (a - y) * sigmoid_prime(z)


class CrossEntropyCost:
    """C_x = -Σ_j [y_j ln a_j + (1 - y_j) ln(1 - a_j)]."""

    @staticmethod
    def fn(a: Any, y: Any) -> float:
        """Return the cost of one sample, from outputs and desired outputs of the same shape."""
        return _total("cross-entropy", a, y)

    @staticmethod
    def delta(z: Any, a: Any, y: Any) -> Any:
        """BP1: δ^L = a - y; σ′(z) cancels out."""
        return a - y


_COSTS: dict[str, tuple[str, type]] = {
    "QuadraticCost": ("quadratic", QuadraticCost),
    "CrossEntropyCost": ("cross-entropy", CrossEntropyCost),
}


def _total(cost: str, a: Any, y: Any) -> float:
    a, y = (np.asarray(each, np.float64).reshape(1, -1) for each in (a, y))
    return mean_cost(cost, a, y)


@dataclass
class _Monitor:
    """What is measured of a set after each epoch, and what it came to."""

    what: str  # as the book prints it
    key: str  # as an Epoch has it
    pairs: list[Pair]
    with_cost: bool
    with_accuracy: bool
    costs: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


class Network(BookNetwork):
    """The network of chapter 3: a choice of costs, L2 regularization, better initial weights.

    Parameters
    ----------
    sizes
        Units of every layer, input first: [784, 30, 10].
    cost
        :class:`CrossEntropyCost` (default), :class:`QuadraticCost`, or a class of the reader's
        with `fn` and `delta` like theirs; or an object of one of them.
    device
        "auto" (default), "cpu", a device's name, or a backend. See :func:`fastnn.device`.

    Raises
    ------
    ArgumentError
        For sizes that make no sense, a network too large for this machine, or a cost without `fn`
        or `delta`.
    DeviceError
        If the device is unknown or cannot be used.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        cost: Any = CrossEntropyCost,
        *,
        device: str | Backend = "auto",
    ) -> None:
        if not (hasattr(cost, "fn") and hasattr(cost, "delta")):
            raise ArgumentError(
                f"cost must be CrossEntropyCost, QuadraticCost, or a class with fn and delta like "
                f"theirs, not {cost!r}"
            )
        super().__init__(sizes, device)
        self.cost = cost
        self.default_weight_initializer()

    def default_weight_initializer(self) -> None:
        """Draw weights from N(0, 1/n_in), biases from N(0, 1)."""
        self._draw(math.sqrt)

    def large_weight_initializer(self) -> None:
        """Draw weights and biases from N(0, 1), as in chapter 1."""
        self._draw(lambda n_in: 1.0)

    def SGD(
        self,
        training_data: Iterable[Pair],
        epochs: int,
        mini_batch_size: int,
        eta: float,
        lmbda: float = 0.0,
        evaluation_data: Iterable[Pair] | None = None,
        monitor_evaluation_cost: bool = False,
        monitor_evaluation_accuracy: bool = False,
        monitor_training_cost: bool = False,
        monitor_training_accuracy: bool = False,
        early_stopping_n: int = 0,
    ) -> Monitored:
        """Train by stochastic gradient descent on mini-batches; measure and print what is asked.

        The device does what `update_mini_batch`, `total_cost` and `accuracy` say, on all samples
        in one call. If a subclass replaces a method that takes part in this, the cost is the
        reader's own or a y is not one-hot, the methods themselves are called, a sample at a time
        in float64: as in the book, and as slow.

        Parameters
        ----------
        training_data, evaluation_data
            Pairs (x, y), in a list, a zip or any other iterable: x (sizes[0], 1), and y
            (sizes[-1], 1) or a class number.
        epochs
            Passes over the training data, 1 or more.
        mini_batch_size
            Samples a mini-batch; more than there are means all. The last one of an epoch may be
            smaller, and is divided by its own size.
        eta
            η, above 0.
        lmbda
            λ, 0 (default) or more: W ← (1 - ηλ/n) W - …, with n training samples.
        monitor_evaluation_cost, monitor_evaluation_accuracy, and so on
            What is measured after every epoch and printed: C + λ/2n Σw², n being the size of the
            set measured, and how many samples are classified rightly. Default nothing.
        early_stopping_n
            Training ends after so many epochs in which the accuracy on the evaluation data, which
            must be monitored, was not better than ever before. Default 0: it does not.

        Returns
        -------
        evaluation_cost, evaluation_accuracy, training_cost, training_accuracy
            Lists with a number an epoch; empty where nothing was to be measured.

        Raises
        ------
        ArgumentError
            For a number out of its range, a monitor without data, or weights or biases of other
            shapes than the sizes say.
        DataError
            If the data are empty or do not fit the network.
        Diverged
            If the weights or a cost grow beyond all numbers.
        """
        training = as_pairs("training_data", training_data, self.sizes)
        evaluation: list[Pair] = []
        if evaluation_data is not None:
            evaluation = as_pairs("evaluation_data", evaluation_data, self.sizes)
        of_training = _Monitor(
            "training", "train", training, monitor_training_cost, monitor_training_accuracy
        )
        of_evaluation = _Monitor(
            "evaluation",
            "validation",
            evaluation,
            monitor_evaluation_cost,
            monitor_evaluation_accuracy,
        )
        wanted = monitor_evaluation_cost or monitor_evaluation_accuracy
        if wanted and not evaluation:
            raise ArgumentError("to monitor evaluation_data, SGD must be given them")
        early_stopping_n = whole_number("early_stopping_n", early_stopping_n, 0)
        if early_stopping_n and not monitor_evaluation_accuracy:
            raise ArgumentError("early_stopping_n needs monitor_evaluation_accuracy=True")

        def ended(number: int, measured: Epoch | None) -> bool:
            print(f"Epoch {number} training complete")
            for monitor in (of_training, of_evaluation):
                self._measure(monitor, measured, lmbda)
            print()
            if not early_stopping_n:
                return False
            counts = of_evaluation.counts
            return number - counts.index(max(counts)) >= early_stopping_n

        further = evaluation if wanted else None
        self._train(training, epochs, mini_batch_size, eta, lmbda, further, ended)
        return of_evaluation.costs, of_evaluation.counts, of_training.costs, of_training.counts

    def update_mini_batch(
        self, mini_batch: Iterable[Pair], eta: float, lmbda: float, n: int
    ) -> None:
        """W ← (1 - ηλ/n) W - η/m Σ ∂C_x/∂W and b ← b - η/m Σ ∂C_x/∂b, on the host.

        The sums are over the m pairs of the mini-batch; n is the number of all training samples.

        Raises
        ------
        ArgumentError
            For a number out of its range.
        DataError
            If the mini-batch is empty or does not fit the network.
        """
        self._descend(mini_batch, eta, lmbda, n)

    def accuracy(self, data: Iterable[Pair], convert: bool = False) -> int:
        """Return how many of the pairs the network classifies rightly, by its most active output.

        A y may be a column or a class number whatever `convert` is, here and in `total_cost`.

        Raises
        ------
        DataError
            If the data are empty or do not fit the network.
        """
        return self._count_right("data", data)

    def total_cost(self, data: Iterable[Pair], lmbda: float, convert: bool = False) -> float:
        """Return C + λ/2n Σw², C being the mean cost of the n pairs.

        Raises
        ------
        DataError
            If the data are empty or do not fit the network.
        """
        pairs = as_pairs("data", data, self.sizes)
        n, n_out = len(pairs), self.sizes[-1]
        total = sum(self.cost.fn(self.feedforward(x), as_column(y, n_out)) for x, y in pairs)
        return float(total) / n + self._penalty(lmbda, n)

    def save(self, filename: PathLike) -> None:
        """Write the network to a file of JSON in the book's form, which :func:`load` reads.

        It is an object with sizes, weights, biases, and cost, the name of the cost's class.

        Raises
        ------
        ArgumentError
            If the weights or biases have other shapes than the sizes say, or are not finite.
        OutputError
            If the file cannot be written, or something other than such a network is there.
        """
        weights, biases = checked_parameters(self.sizes, self.weights, self.biases)
        network = {
            "sizes": self.sizes,
            "weights": [w.tolist() for w in weights],
            "biases": [b.tolist() for b in biases],
            "cost": self._cost_class().__name__,
        }
        target = check_output(filename, "a network of this form", _is_network)
        try:
            write_whole(target, json.dumps(network).encode())
        except OSError as error:
            raise cannot_write(filename, error) from error

    def _measure(self, monitor: _Monitor, measured: Epoch | None, lmbda: float) -> None:
        """Note and print what is monitored, by the device's measure or, without, our methods'."""
        pairs, n = monitor.pairs, len(monitor.pairs)
        if monitor.with_cost:
            mean = getattr(measured, f"{monitor.key}_cost", None)
            cost = self.total_cost(pairs, lmbda) if mean is None else mean + self._penalty(lmbda, n)
            monitor.costs.append(cost)
            print(f"Cost on {monitor.what} data: {cost}")
        if monitor.with_accuracy:
            part = getattr(measured, f"{monitor.key}_accuracy", None)
            count = self.accuracy(pairs) if part is None else round(part * n)
            monitor.counts.append(count)
            print(f"Accuracy on {monitor.what} data: {count} / {n}")

    def _penalty(self, lmbda: float, n: int) -> float:
        return 0.5 * lmbda / n * sum(float(np.square(w).sum()) for w in self.weights)

    def _cost_class(self) -> type:
        return self.cost if isinstance(self.cost, type) else type(self.cost)

    def _output_delta(self, z: Array, a: Array, y: Array) -> Array:
        delta: Array = self.cost.delta(z, a, y)
        return delta

    def _take_step(self, mini_batch: list[Pair], eta: float, lmbda: float, n: int) -> None:
        self.update_mini_batch(mini_batch, eta, lmbda, n)

    def _cost_name(self) -> str | None:
        names = {cls: name for name, cls in _COSTS.values()}
        return names.get(self._cost_class())


def load(filename: PathLike, *, device: str | Backend = "auto") -> Network:
    """Return the network in a file that :meth:`Network.save`, or the book's, wrote.

    Parameters
    ----------
    filename
        The file.
    device
        As for :class:`Network`.

    Raises
    ------
    ModelError
        If the file is missing, or is no such network; if its cost is neither of the book's two.
    DeviceError
        If the device is unknown or cannot be used.
    """
    backend = find_device(device)
    content = _read(filename)
    try:
        _, cost = _COSTS[known_name("cost", content["cost"], _COSTS)]
        sizes = layer_sizes(content["sizes"])
        weights, biases = checked_parameters(sizes, content["weights"], content["biases"])
    except KeyError as error:
        raise ModelError(f"{filename} is no network of network2: it lacks {error}") from error
    except ArgumentError as error:
        raise ModelError(f"{filename} is damaged: {error}") from error
    network = Network(sizes, cost=cost, device=backend)
    network.weights, network.biases = weights, biases
    return network


def _read(filename: PathLike) -> dict[str, Any]:
    try:
        content = json.loads(Path(filename).read_bytes())
    except OSError as error:
        raise ModelError(f"{filename} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{filename} is no network of network2: it is not JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"{filename} is no network of network2: it is no JSON object")
    return content


def _is_network(path: Path) -> bool:
    try:
        return _read(path).keys() >= {"sizes", "weights", "biases", "cost"}
    except ModelError:
        return False
