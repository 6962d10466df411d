"""What the networks of the book's two programs share: the parameters, the method, the training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.backends.base import Backend
from fastnn.backends.registry import device as find_device
from fastnn.book.samples import Pair, as_column, as_dataset, as_digit, as_pairs
from fastnn.checks import (
    MOST_EPOCHS,
    fits_memory,
    layer_sizes,
    number_arrays,
    number_between,
    positive_number,
    whole_number,
)
from fastnn.errors import ArgumentError, DataError
from fastnn.history import Epoch
from fastnn.kernels.reference import SIGMA
from fastnn.network import Network
from fastnn.training import epoch_order, train

__all__ = ["Array", "BookNetwork", "checked_parameters", "sigmoid", "sigmoid_prime"]

Array: TypeAlias = NDArray[np.float64]
Gradient: TypeAlias = tuple[list[Array], list[Array]]

# What SGD does on the device instead; where one is a reader's own, SGD calls them all.
_METHODS = (
    "feedforward",
    "backprop",
    "update_mini_batch",
    "cost_derivative",
    "evaluate",
    "accuracy",
    "total_cost",
)


def sigmoid(z: Any) -> Any:
    """σ(z) = 1 / (1 + e^-z), of a number or an array."""
    return SIGMA["sigmoid"](z)


def sigmoid_prime(z: Any) -> Any:
    """σ′(z) = σ(z) (1 - σ(z)), of a number or an array."""
    return sigmoid(z) * (1 - sigmoid(z))


class BookNetwork(ABC):
    """A network of sigmoid units; samples are columns, and W[j, k] leads from unit k to unit j.

    Attributes
    ----------
    sizes, num_layers
        Units of every layer, the input first, and how many layers that are.
    weights, biases
        For each layer but the input a float64 array, (n_out, n_in) and (n_out, 1). They may be
        written to and replaced; SGD begins with what is there, and replaces them.
    backend
        The device.
    """

    def __init__(self, sizes: Sequence[int], device: str | Backend) -> None:
        self.sizes = list(layer_sizes(sizes))
        self.num_layers = len(self.sizes)
        count = sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.sizes))
        fits_memory(f"a network of {count:,} parameters", 8 * count)
        self.backend = find_device(device)

    def _draw(self, divisor: Callable[[int], float]) -> None:
        """Draw biases from N(0, 1), and weights from it to be divided by a number for n_in.

        First all biases, then all weights, from NumPy's global state: a seed means what it means
        in the book.
        """
        randn = np.random.randn
        self.biases = [randn(n_out, 1) for n_out in self.sizes[1:]]
        self.weights = [randn(n_out, n_in) / divisor(n_in) for n_in, n_out in pairwise(self.sizes)]

    def feedforward(self, a: ArrayLike) -> Array:
        """Return the outputs for inputs, a^l = σ(W^l a^{l-1} + b^l), in float64 on the host.

        Parameters
        ----------
        a
            A sample as a column, (sizes[0], 1), or m of them, (sizes[0], m).

        Returns
        -------
        (sizes[-1], 1) or (sizes[-1], m)

        Raises
        ------
        DataError
            If a is of another shape.
        """
        activation = _columns("a", a, self.sizes[0])
        for w, b in zip(self.weights, self.biases, strict=True):
            activation = sigmoid(w @ activation + b)
        return activation

    def backprop(self, x: ArrayLike, y: ArrayLike) -> Gradient:
        """Return the gradient of the cost of one sample by BP1 to BP4, in float64 on the host.

        Parameters
        ----------
        x, y
            The sample and the desired output, (sizes[0], 1) and (sizes[-1], 1).

        Returns
        -------
        nabla_b, nabla_w
            ∂C_x/∂b and ∂C_x/∂W of each layer, in the shapes of `biases` and `weights`.

        Raises
        ------
        DataError
            If x or y is of another shape.
        """
        a, zs = [_columns("x", x, self.sizes[0])], []
        for w, b in zip(self.weights, self.biases, strict=True):
            zs.append(w @ a[-1] + b)
            a.append(sigmoid(zs[-1]))
        delta = self._output_delta(zs[-1], a[-1], _columns("y", y, self.sizes[-1]))
        nabla_b, nabla_w = [delta], [delta @ a[-2].T]
        for w, z, a_prev in zip(self.weights[:0:-1], zs[-2::-1], a[-3::-1], strict=True):
            delta = (w.T @ delta) * sigmoid_prime(z)
            nabla_b.insert(0, delta)
            nabla_w.insert(0, delta @ a_prev.T)
        return nabla_b, nabla_w

    @abstractmethod
    def _output_delta(self, z: Array, a: Array, y: Array) -> Array:
        """BP1: δ^L, from z^L, a^L and the desired output."""

    def _descend(self, mini_batch: Iterable[Pair], eta: float, lmbda: float, n: int) -> None:
        """W ← (1 - ηλ/n) W - η/m Σ ∂C_x/∂W and b ← b - η/m Σ ∂C_x/∂b, a sample at a time."""
        pairs = as_pairs("mini_batch", mini_batch, self.sizes)
        eta, lmbda = positive_number("eta", eta), number_between("lmbda", lmbda, 0)
        n = whole_number("n", n, 1)
        sums = [np.zeros(np.shape(array)) for array in (*self.biases, *self.weights)]
        for x, y in pairs:
            nabla_b, nabla_w = self.backprop(x, as_column(y, self.sizes[-1]))
            for total, part in zip(sums, (*nabla_b, *nabla_w), strict=True):
                total += part
        rate, depth = eta / len(pairs), len(self.biases)
        self.biases = [b - rate * nb for b, nb in zip(self.biases, sums[:depth], strict=True)]
        self.weights = [
            (1 - eta * lmbda / n) * w - rate * nw
            for w, nw in zip(self.weights, sums[depth:], strict=True)
        ]

    def _count_right(self, what: str, data: Iterable[Pair]) -> int:
        """Return of how many pairs the most active output is the right one."""
        pairs = as_pairs(what, data, self.sizes)
        return sum(int(self.feedforward(x).argmax()) == as_digit(y) for x, y in pairs)

    @abstractmethod
    def _take_step(self, mini_batch: list[Pair], eta: float, lmbda: float, n: int) -> None:
        """Call `update_mini_batch`."""

    @abstractmethod
    def _cost_name(self) -> str | None:
        """Return the cost's name in :mod:`fastnn.costs`, None if it is a reader's own."""

    def _train(
        self,
        training: list[Pair],
        epochs: int,
        mini_batch_size: int,
        eta: float,
        lmbda: float,
        evaluation: list[Pair] | None,
        ended: Callable[[int, Epoch | None], bool],
    ) -> None:
        """Train on the device, or by the network's methods where a device does not do what they do.

        Parameters
        ----------
        training, evaluation
            Pairs that fit.
        epochs, mini_batch_size, eta, lmbda
            As the reader gave them.
        ended
            Called after each epoch with its number from 0 and with what the device measured, or
            None. Training ends if it returns True.
        """
        n, n_out = len(training), self.sizes[-1]
        epochs = whole_number("epochs", epochs, 1, MOST_EPOCHS)
        size = min(whole_number("mini_batch_size", mini_batch_size, 1), n)
        eta, lmbda = positive_number("eta", eta), number_between("lmbda", lmbda, 0)
        if eta * lmbda >= n:
            raise ArgumentError(
                f"at an eta of {eta:g} a lmbda of {lmbda:g} shrinks the weights to nothing in one "
                f"mini-batch; their product must be below the number of samples, {n:,}"
            )
        seed = int(np.random.randint(1 << 31))  # noqa: NPY002
        weights, biases = checked_parameters(self.sizes, self.weights, self.biases)

        cost = None if self._has_own_methods() else self._cost_name()
        train_set = as_dataset(training, n_out) if cost else None
        evaluation_set = as_dataset(evaluation, n_out) if evaluation else None
        if cost is None or train_set is None or (evaluation and evaluation_set is None):
            for number in range(epochs):
                order = epoch_order(n, seed, number + 1)
                for start in range(0, n, size):
                    mini_batch = [training[i] for i in order[start : start + size]]
                    self._take_step(mini_batch, eta, lmbda, n)
                if ended(number, None):
                    return
            return

        network = Network.from_parameters(
            weights, [b[:, 0] for b in biases], cost=cost, device=self.backend
        )

        def on_epoch(epoch: Epoch) -> bool:
            self.weights = [w.astype(np.float64) for w in network.weights]
            self.biases = [b.astype(np.float64)[:, np.newaxis] for b in network.biases]
            return ended(epoch.epoch - 1, epoch)

        train(
            network,
            train_set,
            validation=evaluation_set,
            epochs=epochs,
            batch_size=size,
            learning_rate=eta,
            l2=lmbda,
            seed=seed,
            on_epoch=on_epoch,
        )

    def _has_own_methods(self) -> bool:
        """Whether a subclass, or a reader on this object, replaced what SGD does on the device."""
        here = f"{__package__}."
        ours = next(cls for cls in type(self).__mro__ if cls.__module__.startswith(here))
        return any(
            name in vars(self) or getattr(type(self), name, None) is not getattr(ours, name, None)
            for name in _METHODS
        )


def checked_parameters(
    sizes: Sequence[int], weights: Sequence[ArrayLike], biases: Sequence[ArrayLike]
) -> tuple[list[Array], list[Array]]:
    """Return weights and biases as float64 arrays of the shapes that belong to the sizes.

    Raises
    ------
    ArgumentError
        If they are of other shapes, or not finite numbers.
    """
    w, b = number_arrays("weights", weights), number_arrays("biases", biases)
    for what, arrays, shapes in (
        ("weights", w, [(n_out, n_in) for n_in, n_out in pairwise(sizes)]),
        ("biases", b, [(n_out, 1) for n_out in sizes[1:]]),
    ):
        if [array.shape for array in arrays] != shapes:
            raise ArgumentError(
                f"the {what} of a network of sizes {list(sizes)} have the shapes {shapes}, "
                f"not {[array.shape for array in arrays]}"
            )
        if not all(np.isfinite(array).all() for array in arrays):
            raise ArgumentError(f"the {what} must be finite numbers")
    return w, b


def _columns(what: str, given: ArrayLike, n: int) -> Array:
    """Return the columns in float64, or say that they are none of n numbers."""
    try:
        columns = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} must be a column of {n} numbers: {error}") from None
    if columns.ndim != 2 or len(columns) != n:
        raise DataError(f"{what} must be a column, of shape ({n}, 1), not {columns.shape}")
    return columns
