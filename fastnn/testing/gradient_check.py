"""Back-propagation on a device against the definition of a derivative on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.backprop import backpropagate, feed_forward, workspaces
from fastnn.costs import mean_cost
from fastnn.kernels import reference
from fastnn.network import Network

__all__ = ["backprop_gradient", "gradient_error", "numerical_gradient"]

Array = NDArray[Any]


def backprop_gradient(network: Network, x: Array, y: Array) -> list[Array]:
    """BP1 to BP4 on the network's device: ∂C/∂W and ∂C/∂b of every layer in turn.

    Parameters
    ----------
    network
        The network.
    x, y
        Samples (m, sizes[0]) and targets (m, sizes[-1]), floats.
    """
    backend, m = network.backend, len(x)
    work = workspaces(backend, network.sizes, {m})[m]
    everything = backend.asarray(np.arange(m, dtype=np.int32))
    for host, out in ((x, work.a[0]), (y, work.y)):
        rows = backend.asarray(host.astype(backend.dtype))
        backend.gather(rows, everything, 0, m, 1.0, out)
    feed_forward(backend, network.layers, work.a)
    backpropagate(backend, network.layers, network.cost, work)
    gradient = []
    for n_in, n_out, delta, a_prev in zip(
        network.sizes, network.sizes[1:], work.delta, work.a, strict=False
    ):
        out_w, out_b = (backend.empty(shape, backend.dtype) for shape in ((n_out, n_in), (n_out,)))
        backend.gradient(delta, a_prev, 1 / m, out_w, out_b)
        gradient += [backend.to_numpy(out_w), backend.to_numpy(out_b)]
    return gradient


def numerical_gradient(network: Network, x: Array, y: Array, h: float = 1e-5) -> list[Array]:
    """(C(p + h) - C(p - h)) / 2h for every parameter p, in float64 on the host.

    Takes two passes through the network a parameter: for small networks.
    """
    parameters = [
        array.astype(np.float64)
        for pair in zip(network.weights, network.biases, strict=True)
        for array in pair
    ]

    def cost() -> float:
        a = x.astype(np.float64)
        pairs = zip(parameters[::2], parameters[1::2], network.activations, strict=True)
        for w, b, activation in pairs:
            a = reference.forward(a, w, b, activation)
        return mean_cost(network.cost, a, y)

    gradient = []
    for array in parameters:
        slope = np.empty_like(array)
        for place in np.ndindex(array.shape):
            here = array[place]
            array[place] = here + h
            above = cost()
            array[place] = here - h
            below = cost()
            array[place] = here
            slope[place] = (above - below) / (2 * h)
        gradient.append(slope)
    return gradient


def gradient_error(network: Network, x: Array, y: Array) -> float:
    """Return the largest difference of the two gradients, relative to its array's largest slope.

    In float64 it is below 1e-6 if back-propagation is right; a wrong term shows as 1e-2 or more.
    The samples should keep clear of the kinks of relu, as random floats do.

    Parameters
    ----------
    network
        The network, in float64 for a sharp answer.
    x, y
        Samples (m, sizes[0]) and targets (m, sizes[-1]), floats.
    """
    return max(_relative(backprop_gradient(network, x, y), numerical_gradient(network, x, y)))


def _relative(got: Sequence[Array], expected: Sequence[Array]) -> list[float]:
    return [
        float(np.abs(g - e).max() / max(np.abs(e).max(), np.finfo(float).tiny))
        for g, e in zip(got, expected, strict=True)
    ]
