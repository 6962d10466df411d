"""The book's first program, network.py: the quadratic cost, and no regularization."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastnn.backends.base import Backend
from fastnn.book.base import Array, BookNetwork, sigmoid, sigmoid_prime
from fastnn.book.samples import Pair, as_pairs
from fastnn.history import Epoch

__all__ = ["Network", "sigmoid", "sigmoid_prime"]


class Network(BookNetwork):
    """The network of chapters 1 and 2: sigmoid units, C = 1/2n Σ ‖y - a‖².

    Weights and biases are drawn from N(0, 1).

    Parameters
    ----------
    sizes
        Units of every layer, input first: [784, 30, 10].
    device
        "auto" (default), "cpu", a device's name, or a backend. See :func:`fastnn.device`.

    Raises
    ------
    ArgumentError
        For sizes that make no sense, or a network too large for this machine.
    DeviceError
        If the device is unknown or cannot be used.
    """

    def __init__(self, sizes: Sequence[int], *, device: str | Backend = "auto") -> None:
        super().__init__(sizes, device)
        self._draw(lambda n_in: 1.0)

    def SGD(
        self,
        training_data: Iterable[Pair],
        epochs: int,
        mini_batch_size: int,
        eta: float,
        test_data: Iterable[Pair] | None = None,
    ) -> None:
        """Train by stochastic gradient descent on mini-batches, and print a line an epoch.

        ``Epoch 0: 9129 / 10000`` says how many of the test data are classified rightly; without
        test data it is ``Epoch 0 complete``.

        The device does what `update_mini_batch` and `evaluate` say, on all samples in one call.
        If a subclass replaces a method that takes part in this, or a y is not one-hot, the
        methods themselves are called, a sample at a time in float64: as in the book, and as slow.

        Parameters
        ----------
        training_data, test_data
            Pairs (x, y), in a list, a zip or any other iterable: x (sizes[0], 1), and y
            (sizes[-1], 1) or a class number.
        epochs
            Passes over the training data, 1 or more.
        mini_batch_size
            Samples a mini-batch; more than there are means all. The last one of an epoch may be
            smaller, and is divided by its own size.
        eta
            η, above 0.

        Raises
        ------
        ArgumentError
            For a number out of its range, or weights or biases of other shapes than the sizes say.
        DataError
            If the data are empty or do not fit the network.
        Diverged
            If the weights or the cost grow beyond all numbers.
        """
        training = as_pairs("training_data", training_data, self.sizes)
        test = None if test_data is None else as_pairs("test_data", test_data, self.sizes)

        def ended(number: int, measured: Epoch | None) -> bool:
            if test is None:
                print(f"Epoch {number} complete")
                return False
            part = None if measured is None else measured.validation_accuracy
            correct = self.evaluate(test) if part is None else round(part * len(test))
            print(f"Epoch {number}: {correct} / {len(test)}")
            return False

        self._train(training, epochs, mini_batch_size, eta, 0.0, test, ended)

    def update_mini_batch(self, mini_batch: Iterable[Pair], eta: float) -> None:
        """W ← W - η/m Σ ∂C_x/∂W and b ← b - η/m Σ ∂C_x/∂b, over the m pairs, on the host.

        Raises
        ------
        ArgumentError
            For a number out of its range.
        DataError
            If the mini-batch is empty or does not fit the network.
        """
        self._descend(mini_batch, eta, 0.0, 1)

    def evaluate(self, test_data: Iterable[Pair]) -> int:
        """Return how many of the pairs the network classifies rightly, by its most active output.

        Raises
        ------
        DataError
            If the data are empty or do not fit the network.
        """
        return self._count_right("test_data", test_data)

    def cost_derivative(self, output_activations: Any, y: Any) -> Any:
        """Return ∇ₐC of one sample, a - y."""
        return output_activations - y

    def _output_delta(self, z: Array, a: Array, y: Array) -> Array:
        delta: Array = self.cost_derivative(a, y) * sigmoid_prime(z)
        return delta

    def _take_step(self, mini_batch: list[Pair], eta: float, lmbda: float, n: int) -> None:
        self.update_mini_batch(mini_batch, eta)

    def _cost_name(self) -> str:
        return "quadratic"
