"""The network of the texts: fully connected layers of any number and size, on a device."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnn.activations import layer_activations
from fastnn.backends.base import Array, Backend, Layer, pieces
from fastnn.backends.registry import device as find_device
from fastnn.checks import layer_sizes, number_arrays, whole_number
from fastnn.costs import check_pair
from fastnn.data.arrays import as_samples
from fastnn.errors import ArgumentError, DataError
from fastnn.inference import Samples
from fastnn.initialisers import initial_parameters

__all__ = ["Network"]

_Arrays: TypeAlias = list[NDArray[Any]]
_Origin: TypeAlias = Mapping[str, str] | None


class Network:
    """A multilayer perceptron: a^l = σ(W^l a^{l-1} + b^l) from the input to the output.

    Parameters
    ----------
    sizes
        Units of every layer, input first: [784, 30, 10]. Two at the least.
    activation
        Of the hidden layers: "sigmoid" (default), "tanh", "relu", "leaky-relu" (slope 0.01 below
        zero) or "identity"; one name for all, or a sequence with one each.
    output
        Of the output layer: one of those, or "softmax". Default "sigmoid".
    cost
        "cross-entropy" (default, with sigmoid outputs), "log-likelihood" (with softmax),
        "quadratic" or "squared-error" (with any but softmax). See :func:`fastnn.costs.mean_cost`.
    init
        "scaled" (default), "normal", "glorot" or "he". See :mod:`fastnn.initialisers`.
    seed
        Of the initial weights, a whole number from 0. Default 0.
    device
        "auto" (default), "cpu", a device's name, or a backend. See :func:`fastnn.device`.
    dtype
        "float32" (default) or "float64".

    Raises
    ------
    ArgumentError
        For sizes, names or combinations that make no sense, or a network too large for this
        machine.
    DeviceError
        If the device is unknown or cannot be used.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str | Sequence[str] = "sigmoid",
        output: str = "sigmoid",
        cost: str = "cross-entropy",
        init: str = "scaled",
        seed: int = 0,
        device: str | Backend = "auto",
        dtype: DTypeLike | None = None,
    ) -> None:
        self._define(sizes, activation, output, cost, device, dtype)
        weights, biases = initial_parameters(self.sizes, init, whole_number("seed", seed, 0))
        self.init: str | None = init
        self._fill(weights, biases)

    @classmethod
    def from_parameters(
        cls,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike],
        *,
        activation: str | Sequence[str] = "sigmoid",
        output: str = "sigmoid",
        cost: str = "cross-entropy",
        device: str | Backend = "auto",
        dtype: DTypeLike | None = None,
    ) -> Network:
        """Return a network with the given parameters; the rest is as for :class:`Network`.

        Parameters
        ----------
        weights
            One (n_out, n_in) a layer: W[j, k] leads from unit k to unit j, as in the book and in
            PyTorch.
        biases
            One (n_out,) a layer.

        Raises
        ------
        ArgumentError
            If the shapes do not chain, or a value is not finite.
        """
        w, b = number_arrays("weights", weights), number_arrays("biases", biases)
        if not w or any(each.ndim != 2 for each in w):
            raise ArgumentError("weights must be matrices (n_out, n_in), one a layer, at least one")
        sizes = [w[0].shape[1], *(each.shape[0] for each in w)]
        expected = [(n_out, n_in) for n_in, n_out in pairwise(sizes)]
        if [each.shape for each in w] != expected or [each.shape for each in b] != [
            (n_out,) for n_out in sizes[1:]
        ]:
            raise ArgumentError(
                f"the parameters do not chain: weights {[each.shape for each in w]}, "
                f"biases {[each.shape for each in b]}"
            )
        network = cls.__new__(cls)
        network._define(sizes, activation, output, cost, device, dtype)
        network.init = None
        network._fill(w, b)
        return network

    def _define(
        self,
        sizes: Sequence[int],
        activation: str | Sequence[str],
        output: str,
        cost: str,
        device: str | Backend,
        dtype: DTypeLike | None,
    ) -> None:
        self.sizes = layer_sizes(sizes)
        self.activations = layer_activations(activation, output, len(self.sizes) - 2)
        check_pair(cost, output)
        self.cost = cost
        self.backend = find_device(device, dtype)
        # Kept for the model file: what the network was trained on, {"name": ..., "sha256": ...}.
        self.trained_on: _Origin = None

    def _fill(self, weights: Sequence[NDArray[Any]], biases: Sequence[NDArray[Any]]) -> None:
        """Put all parameters into one contiguous buffer with a view for each, W and b in turn."""
        pairs = [array for pair in zip(weights, biases, strict=True) for array in pair]
        with np.errstate(over="ignore"):
            flat = np.concatenate(
                [array.ravel() for array in pairs], dtype=self.backend.dtype, casting="same_kind"
            )
        if not np.isfinite(flat).all():
            raise ArgumentError(f"weights and biases must be finite numbers in {flat.dtype}")
        self.buffer: Array = self.backend.asarray(flat)
        views = self.backend.views(self.buffer, [array.shape for array in pairs])
        self.layers = tuple(
            Layer(w, b, activation)
            for w, b, activation in zip(views[::2], views[1::2], self.activations, strict=True)
        )

    @property
    def parameter_count(self) -> int:
        """The number of weights and biases."""
        return sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.sizes))

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of W and b of each layer in turn."""
        pairs = pairwise(self.sizes)
        return [shape for n_in, n_out in pairs for shape in ((n_out, n_in), (n_out,))]

    @property
    def activation(self) -> str | list[str]:
        """The hidden layers' activation: one name where all have the same, else a list."""
        hidden = list(self.activations[:-1])
        return hidden[0] if len(set(hidden)) == 1 else hidden

    @property
    def output(self) -> str:
        """The output layer's activation."""
        return self.activations[-1]

    @property
    def weights(self) -> _Arrays:
        """Copies of the weights (n_out, n_in), read-only: writing to them would change nothing."""
        return self._parameters()[::2]

    @property
    def biases(self) -> _Arrays:
        """Copies of the bias vectors (n_out,), read-only."""
        return self._parameters()[1::2]

    def _parameters(self) -> _Arrays:
        """Return W and b of each layer in turn, from one read of the buffer."""
        flat = self.backend.to_numpy(self.buffer)
        flat.flags.writeable = False
        return pieces(flat, self.shapes)

    def forward(self, x: ArrayLike) -> NDArray[Any]:
        """Return the outputs for samples.

        Parameters
        ----------
        x
            (m, sizes[0]), rows samples, or (m, h, w) images: uint8, which is scaled by 1/255, or
            floats, which are taken as they are.

        Returns
        -------
        (m, sizes[-1]) in the network's dtype.

        Raises
        ------
        DataError
            If x is of another type or width, or holds NaN or inf; if an output is not finite.
        """
        if isinstance(x, np.ndarray) and x.ndim > 1 and not len(x):
            return np.empty((0, self.sizes[-1]), self.backend.dtype)
        rows = as_samples(x)
        if rows.shape[1] != self.sizes[0]:
            raise DataError(
                f"the network takes samples of {self.sizes[0]} numbers; "
                f"these have {rows.shape[1]}, in x of shape {np.shape(x)}"
            )
        outputs = Samples(self.backend, self.sizes, rows).outputs(self.layers)
        if not np.isfinite(outputs).all():
            raise DataError("an output is not a finite number: are the samples in their range?")
        return outputs

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """Return the class number of each sample, (m,), its most active output; x as in forward."""
        classes: NDArray[np.int64] = self.forward(x).argmax(axis=1)
        return classes

    def to(self, device: str | Backend) -> Network:
        """Return a copy of the network on another device.

        It is of the same precision; if a backend is given, of the backend's.
        """
        dtype = None if isinstance(device, Backend) else self.backend.dtype
        return _rebuilt(*self._content(), device, dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy must not lose what its layers are: views of its one buffer.
        return _rebuilt, (*self._content(), self.backend)

    def _content(self) -> tuple[_Arrays, _Arrays, dict[str, Any], str | None, _Origin]:
        description = {
            "activation": self.activations[:-1],
            "output": self.output,
            "cost": self.cost,
        }
        parameters = self._parameters()
        return parameters[::2], parameters[1::2], description, self.init, self.trained_on

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a file that :meth:`load` reads; see :mod:`fastnn.model_file`.

        Raises
        ------
        OutputError
            If the file cannot be written. One that was there before is then as it was.
        """
        from fastnn.model_file import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | Backend = "auto") -> Network:
        """Return the network that :meth:`save` wrote, on a device.

        Raises
        ------
        ModelError
            If the file is missing, damaged, no model of ours, or from a newer version.
        """
        from fastnn.model_file import load

        return load(path, device=device)

    def __repr__(self) -> str:
        shape = "-".join(map(str, self.sizes))
        hidden = self.activation if isinstance(self.activation, str) else ", ".join(self.activation)
        activations = f"{hidden} and {self.output}" if hidden else self.output
        return (
            f"<Network {shape}: {activations}, {self.cost}, "
            f"{self.parameter_count:,} parameters in {self.backend.dtype} on {self.backend.spec}>"
        )


def _rebuilt(
    weights: _Arrays,
    biases: _Arrays,
    description: dict[str, Any],
    init: str | None,
    trained_on: _Origin,
    device: str | Backend,
    dtype: DTypeLike | None = None,
) -> Network:
    network = Network.from_parameters(weights, biases, **description, device=device, dtype=dtype)
    network.init, network.trained_on = init, trained_on
    return network
