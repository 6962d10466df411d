"""Which learning rate: train a while at rates that grow from tiny to too large (Smith, 2015)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.backends.base import Array, Plan
from fastnn.backprop import step_for
from fastnn.checks import MOST_THREADS, function_or_none, is_true, whole_number, yes_or_no
from fastnn.data import Dataset
from fastnn.descent import Descent
from fastnn.errors import DataError
from fastnn.network import Network
from fastnn.optimisers import Optimiser, optimiser_of
from fastnn.scoring import LabelledSamples, Scorer, check_network, fitting
from fastnn.threads import using
from fastnn.training import batch_size_of, epoch_order

__all__ = ["RangeTest", "range_test"]

LOWEST, HIGHEST, A_DECADE = 1e-5, 100.0, 20  # rates
# At each rate so many mini-batches, or fewer large ones: so many samples, but one at the least.
MINI_BATCHES, SAMPLES = 10, 1000
MEASURED = 1000  # samples that the cost is measured on
DIVERGED = 4  # times the lowest cost so far is far beyond the noise
LEARNED = 0.9  # of the cost at the start, at the most, or nothing was learned
# Where the cost is the lowest, what mini-batches undo is already as much as what they learn.
MARGIN = 3


class RangeTest(NamedTuple):
    """What the rates did.

    Attributes
    ----------
    start
        The cost before the first mini-batch.
    rates
        The learning rates, growing geometrically.
    costs
        The cost after the mini-batches at each, with penalties and the samples' weights, by the
        same thousand samples of the training set, of those with a weight above 0.
    suggestion
        A third of the rate at which the smoothed cost is the lowest; None if no rate lowers it by a
        tenth.
    """

    start: float
    rates: list[float]
    costs: list[float]
    suggestion: float | None


def range_test(
    network: Network,
    train_set: LabelledSamples,
    *,
    batch_size: int | None = 10,
    optimiser: str | Optimiser = "sgd",
    l1: float = 0.0,
    l2: float = 0.0,
    clip_norm: float | None = None,
    dropout: float | Sequence[float] = 0.0,
    class_weights: str | Sequence[float] | None = None,
    seed: int = 0,
    fused: bool = True,
    threads: int | None = None,
    on_rate: Callable[[float, float], Any] | None = None,
) -> RangeTest:
    """Train a copy of a network at rates from 1e-5 to 100, or until its cost diverges.

    The rate grows by a twentieth of a decade after every ten mini-batches, or fewer where these are
    large. The network itself is not changed.

    Parameters
    ----------
    network
        Where the test starts from: as it is before training, if that is what a rate is sought for.
    train_set
        A :class:`fastnn.Dataset` or a pair (x, class numbers), or with weights.
    batch_size, optimiser, l1, l2, clip_norm, dropout, class_weights, seed, fused, threads
        As in :func:`fastnn.train`, with which the rate is to be used.
    on_rate
        Called with each rate and the cost after its mini-batches. The test ends if it returns True,
        and tells of the rates up to there.

    Raises
    ------
    ArgumentError
        For a number out of its range.
    DataError
        If the set does not fit the network, its weights are all 0, or its cost is beyond all
        numbers.
    """
    check_network(network)
    copy = network.to(network.backend)
    data = fitting(copy, "training", train_set)
    n, seed = len(data), whole_number("seed", seed, 0)
    batch_size = batch_size_of(batch_size, n)
    fused = yes_or_no("fused", fused)
    function_or_none("on_rate", on_rate)
    if threads is not None:
        threads = whole_number("threads", threads, 1, MOST_THREADS)
    descent = Descent(optimiser_of(optimiser), l1, l2, clip_norm, dropout, class_weights)
    plan, decay = descent.plan(copy, Scorer(copy, data), batch_size, seed), descent.decay(n)
    some, weights = epoch_order(n, seed, 0), None  # training counts epochs from 1
    if plan.weights is not None:
        weights = copy.backend.to_numpy(plan.weights)
        some = some[weights[some, 0] > 0]  # a thousand of all may tell nothing
        weights = weights[some[:MEASURED]] * (len(some) / n)
    some = some[:MEASURED]
    scorer = Scorer(copy, Dataset(data.x[some], data.labels[some]))

    def cost() -> float:
        """Return what is descended, weights, penalties and all."""
        sums = [(np.abs(w).sum(), np.square(w).sum()) for w in copy.weights] if l1 or l2 else []
        penalty = float(sum(l1 * each + l2 / 2 * square for each, square in sums)) / n
        return scorer(weights).cost + penalty

    costs: list[float] = []
    rates = np.geomspace(LOWEST, HIGHEST, round(np.log10(HIGHEST / LOWEST)) * A_DECADE + 1)
    # What overflows on the host is a cost that diverges.
    with using(threads), np.errstate(over="ignore", invalid="ignore"):
        step = step_for(copy.backend, plan, fused)
        mini_batches = _mini_batches(copy, plan, seed)
        lowest = start = cost()
        if not np.isfinite(start):
            raise DataError("the cost is not a finite number: are the samples in their range?")
        for rate in rates:
            if rate * decay >= 1:  # which shrinks all weights to nothing
                break
            for _ in range(max(1, min(MINI_BATCHES, SAMPLES // batch_size))):
                step(*next(mini_batches), float(rate), 1 - float(rate) * decay)
            now = cost()
            if not np.isfinite(now):
                break
            costs.append(now)
            lowest = min(lowest, now)
            ends = on_rate is not None and is_true(on_rate(float(rate), now))
            if ends or now > DIVERGED * lowest:
                break
    tested = rates[: len(costs)].tolist()
    return RangeTest(start, tested, costs, _suggestion(start, tested, costs))


def _mini_batches(network: Network, plan: Plan, seed: int) -> Iterator[tuple[Array, int, int]]:
    """Give one mini-batch after the other, as an order, where it starts and where it stops."""
    for epoch in count(1):
        order = network.backend.asarray(epoch_order(plan.n, seed, epoch))
        if plan.dropout is not None:
            plan.dropout.epoch = epoch
        for first in range(0, plan.n, plan.batch_size):
            yield order, first, min(first + plan.batch_size, plan.n)


def _suggestion(start: float, rates: list[float], costs: list[float]) -> float | None:
    if not costs:
        return None
    smooth = _smoothed(np.array(costs))
    lowest = int(smooth.argmin())
    return rates[lowest] / MARGIN if smooth[lowest] < LEARNED * start else None


def _smoothed(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each cost averaged with its five neighbours on either side, the near ones more."""
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 2.5) ** 2)
    mean: NDArray[np.float64] = np.convolve(
        np.pad(costs, 5, mode="edge"), weights / weights.sum(), "valid"
    )
    return mean
