"""What a network has learned, in numbers: where it errs, what it looks at, how sure it is of noise.

:mod:`fastnn.drawing` makes pictures of them. ``data`` is everywhere a :class:`fastnn.Dataset` or a
pair (x, class numbers), as in :func:`fastnn.evaluate`; what does not fit the network raises a
DataError. All that is returned lies on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.backprop import PORTION, Workspace, backpropagate, feed_forward, workspaces
from fastnn.checks import whole_number
from fastnn.data.arrays import as_samples
from fastnn.errors import DataError
from fastnn.network import Network
from fastnn.scoring import LabelledSamples, Scorer, fitting

__all__ = [
    "SURE",
    "Confusion",
    "Mistake",
    "activations",
    "confusion_matrix",
    "mistakes",
    "most_confused",
    "noise_like",
    "saliency",
    "sensitivity",
]

Array = NDArray[Any]

# A network counts as sure where its most active output is above this; the right one's target is 1.
SURE = 0.9


@np.errstate(over="ignore", invalid="ignore")
def activations(network: Network, x: ArrayLike) -> list[Array]:
    """Return a^l = σ(W^l a^{l-1} + b^l) of every layer for samples, the input first.

    Parameters
    ----------
    network
        The network.
    x
        (m, sizes[0]) or images (m, h, w), as in :meth:`fastnn.Network.forward`.

    Returns
    -------
    One (m, sizes[l]) a layer. The input is as the network sees it: bytes are scaled by 1/255.

    Raises
    ------
    DataError
        If x does not fit the network, or an activation is not a finite number.
    """
    rows = as_samples(x)
    labels = np.zeros(len(rows), np.int64)  # which play no part in it
    read = network.backend.to_numpy
    portions = [[read(a) for a in work.a] for work in _passes(network, (rows, labels))]
    return _finite([np.concatenate(layer) for layer in zip(*portions, strict=True)])


@np.errstate(over="ignore", invalid="ignore")
def saliency(network: Network, data: LabelledSamples) -> Array:
    """Return ∂C_x/∂x: how each sample's own cost changes with each of its pixels.

    It is BP2 carried one layer further, to the input, which has no σ′: D W of the first layer.

    Parameters
    ----------
    network
        The network.
    data
        A :class:`fastnn.Dataset` or a pair (x, class numbers).

    Returns
    -------
    (n, sizes[0]), by the pixels as the network sees them: those of bytes go from 0 to 1.

    Raises
    ------
    DataError
        If the set does not fit the network, or a slope is not a finite number.
    """
    backend, slopes = network.backend, []
    for work in _passes(network, data):
        backpropagate(backend, network.layers, network.cost, work)
        out = work.a[0]  # the input is not needed any more
        backend.matmul(work.delta[0], network.layers[0].w, out)
        slopes.append(backend.to_numpy(out))
    return _finite([np.concatenate(slopes)])[0]


@np.errstate(over="ignore", invalid="ignore")
def sensitivity(network: Network, data: LabelledSamples) -> list[Array]:
    """Return ∂C/∂W of every layer: how the mean cost of a set changes with each weight.

    It is BP4, Dᵀ A_prev / n, over all n samples.

    Parameters
    ----------
    network
        The network.
    data
        A :class:`fastnn.Dataset` or a pair (x, class numbers).

    Returns
    -------
    One (n_out, n_in) a layer.

    Raises
    ------
    DataError
        If the set does not fit the network, or a slope is not a finite number.
    """
    data = fitting(network, "given", data)
    backend, dtype = network.backend, network.backend.dtype
    sums = [
        (backend.asarray(np.zeros((n_out, n_in), dtype)), backend.asarray(np.zeros(n_out, dtype)))
        for n_in, n_out in pairwise(network.sizes)
    ]
    for work in _passes(network, data):
        backpropagate(backend, network.layers, network.cost, work)
        for (w, b), delta, a_prev in zip(sums, work.delta, work.a, strict=False):
            # A descent from 0 at the rate -1 comes to the gradient itself.
            backend.descend(w, b, delta, a_prev, -1 / len(data), 1.0)
    return _finite([backend.to_numpy(w) for w, _ in sums])


def confusion_matrix(network: Network, data: LabelledSamples) -> NDArray[np.int64]:
    """Return how many samples of class i (row) the network takes for class j (column).

    Parameters
    ----------
    network
        The network.
    data
        A :class:`fastnn.Dataset` or a pair (x, class numbers).

    Returns
    -------
    (sizes[-1], sizes[-1]); those on the diagonal are classified rightly.

    Raises
    ------
    DataError
        If the set does not fit the network, or an output is not a finite number.
    """
    data = fitting(network, "given", data)
    matrix = np.zeros((network.sizes[-1],) * 2, np.int64)
    np.add.at(matrix, (data.labels, network.predict(data.x)), 1)
    return matrix


class Confusion(NamedTuple):
    """So many times a sample of the class ``label`` is taken for one of the class ``predicted``."""

    label: int
    predicted: int
    times: int


def most_confused(matrix: NDArray[np.int64], most: int = 5) -> list[Confusion]:
    """Return the largest numbers off the diagonal of a confusion matrix, the largest first.

    Parameters
    ----------
    matrix
        What :func:`confusion_matrix` returns.
    most
        How many at the most; fewer if there are fewer that are not 0. Default 5.
    """
    wrong = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = (divmod(int(place), len(matrix)) for place in order)
    return [Confusion(i, j, int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


class Mistake(NamedTuple):
    """A sample that is classified wrongly.

    Attributes
    ----------
    sample
        Its number in the set, from 0.
    label, predicted
        Its class, and the one it is taken for.
    output
        How active the output of that one is: how sure the network is.
    """

    sample: int
    label: int
    predicted: int
    output: float


def mistakes(network: Network, data: LabelledSamples) -> list[Mistake]:
    """Return all samples that are classified wrongly, the one the network is surest of first.

    Parameters
    ----------
    network
        The network.
    data
        A :class:`fastnn.Dataset` or a pair (x, class numbers).

    Raises
    ------
    DataError
        If the set does not fit the network, or an output is not a finite number.
    """
    data = fitting(network, "given", data)
    outputs = network.forward(data.x)
    predicted, top = outputs.argmax(axis=1), outputs.max(axis=1)
    wrong = np.flatnonzero(predicted != data.labels)
    surest_first = wrong[np.argsort(-top[wrong], kind="stable")]
    return [
        Mistake(int(i), int(data.labels[i]), int(predicted[i]), float(top[i])) for i in surest_first
    ]


def noise_like(x: ArrayLike, n: int = 1000, seed: int = 0) -> Array:
    """Return samples of nothing: every pixel drawn by itself, uniformly.

    A network that learned to tell ten digits apart was never told that there is anything else: it
    may be as sure of these as of a digit.

    Parameters
    ----------
    x
        Samples (m, features) to be like: bytes give 0 to 255, floats their own least to greatest.
    n
        How many to draw. Default 1000.
    seed
        Of what is drawn. Default 0.

    Returns
    -------
    (n, features) of the type of x.

    Raises
    ------
    ArgumentError
        If n or seed is out of range.
    DataError
        If x holds no samples.
    """
    rows = as_samples(x)
    shape = (whole_number("n", n, 1), rows.shape[1])
    generator = np.random.default_rng(whole_number("seed", seed, 0))
    if rows.dtype == np.uint8:
        return generator.integers(0, 256, shape, np.uint8)
    least, greatest = float(rows.min()), float(rows.max())
    # Not uniform(least, greatest), whose difference could overflow.
    part = generator.random(shape)
    return (least * (1 - part) + greatest * part).astype(rows.dtype)


def _passes(network: Network, data: LabelledSamples) -> Iterator[Workspace]:
    """Feed a set through the network, a portion at a time; give each portion's buffers in turn."""
    backend, plan = network.backend, Scorer(network, fitting(network, "given", data)).plan(1)
    portion = min(plan.n, max(1, PORTION // max(plan.sizes)))
    work = workspaces(backend, plan.sizes, {portion, plan.n % portion or portion})
    order = backend.asarray(np.arange(plan.n, dtype=np.int32))
    for start in range(0, plan.n, portion):
        stop = min(start + portion, plan.n)
        mine = work[stop - start]
        backend.gather(plan.inputs, order, start, stop, plan.scale, mine.a[0])
        backend.gather(plan.targets, order, start, stop, 1.0, mine.y)
        feed_forward(backend, plan.layers, mine.a)
        yield mine


def _finite(arrays: list[Array]) -> list[Array]:
    if not all(np.isfinite(array).all() for array in arrays):
        raise DataError("a result is not a finite number: are the samples in their range?")
    return arrays
