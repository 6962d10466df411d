"""The one training loop: mini-batch SGD, on-line learning and gradient descent, on any device.

The loop owns what is done: the order of the samples, the rate, the measuring, the reports. A
:class:`~fastnn.backends.base.Step` owns how: how many mini-batches it takes in one call.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.backends.base import Plan, Step
from fastnn.backprop import BackpropStep
from fastnn.checks import MOST_EPOCHS, positive_number, whole_number
from fastnn.costs import mean_cost
from fastnn.data import Dataset
from fastnn.errors import ArgumentError, DataError, Diverged
from fastnn.history import Epoch, History, Progress, Score
from fastnn.inference import Samples
from fastnn.network import Network

__all__ = ["epoch_order", "evaluate", "train"]

LabelledSamples: TypeAlias = Dataset | tuple[ArrayLike, ArrayLike]

# A call lasts so long at the most, so that progress is shown and Ctrl-C is heard.
CALL_SECONDS = 0.25
# on_call is called so often at the most.
REPORT_SECONDS = 0.1


def train(
    network: Network,
    train_set: LabelledSamples,
    test: LabelledSamples | None = None,
    validation: LabelledSamples | None = None,
    *,
    epochs: int = 30,
    batch_size: int | None = 10,
    learning_rate: float = 0.5,
    seed: int = 0,
    shuffle: bool = True,
    fused: bool = True,
    on_epoch: Callable[[Epoch], Any] | None = None,
    on_call: Callable[[Progress], Any] | None = None,
) -> History:
    """Train a network in place by gradient descent on mini-batches.

    Each mini-batch of m samples does W ← W - η/m Σ_x ∂C_x/∂W and b ← b - η/m Σ_x ∂C_x/∂b. The last
    one of an epoch holds what is left over and is divided by its own size.

    Parameters
    ----------
    network
        The network; its parameters are changed.
    train_set, test, validation
        Each a :class:`fastnn.Dataset` or a pair (x, class numbers): x (n, sizes[0]) or images (n,
        h, w), uint8 (scaled by 1/255) or floats. The cost and accuracy of each set are measured
        after every epoch.
    epochs
        Passes over the training set, a million at the most. Default 30.
    batch_size
        Samples a mini-batch, 1 for on-line learning, None for the whole set. Default 10.
    learning_rate
        η. Default 0.5.
    seed
        Of the order. Epoch e's is a permutation drawn on the host from (seed, e): the same on every
        device.
    shuffle
        False takes the samples as they lie.
    fused
        False forces the plain step where the device has a faster one of its own.
    on_epoch
        Called with an :class:`Epoch` after each. Training ends if it returns True.
    on_call
        Called with a :class:`Progress` between mini-batches, about ten times a second. Training
        ends there if it returns True; the unfinished epoch is then not in the history.

    Raises
    ------
    ArgumentError
        For a number out of its range.
    DataError
        If a set does not fit the network.
    Diverged
        If after an epoch, or where it is ended, the parameters or a cost are not finite.
    """
    epochs = whole_number("epochs", epochs, 1, MOST_EPOCHS)
    rate = positive_number("learning_rate", learning_rate)
    seed = whole_number("seed", seed, 0)
    sets = {"train": _fitting(network, "training", train_set)}
    for key, given in (("validation", validation), ("test", test)):
        if given is not None:
            sets[key] = _fitting(network, key, given)
    n = len(sets["train"])
    batch_size = n if batch_size is None else whole_number("batch_size", batch_size, 1)
    if batch_size > n:
        raise ArgumentError(
            f"a batch size of {batch_size} is more than the {n} training samples; "
            "None (--batch-size full) takes all of them"
        )

    backend = network.backend
    scorers = {key: _Scorer(network, data) for key, data in sets.items()}
    samples = scorers["train"].samples
    plan = Plan(
        layers=network.layers,
        sizes=network.sizes,
        cost=network.cost,
        inputs=samples.rows,
        scale=samples.scale,
        targets=backend.asarray(scorers["train"].targets),
        n=n,
        batch_size=batch_size,
    )
    step = (backend.fused_step(plan) if fused else None) or BackpropStep(backend, plan)
    history = History(backend.name, step.name)
    mini_batches = 1  # how many a call takes; found by the clock, below

    # What overflows on the host is found by the check for divergence, and said once.
    with np.errstate(over="ignore", invalid="ignore"):
        for number in range(1, epochs + 1):
            began = reported = perf_counter()
            order = backend.asarray(epoch_order(n, seed, number if shuffle else None))
            start = 0
            while start < n:
                called = perf_counter()
                stop = min(start + batch_size * mini_batches, n)
                step(order, start, stop, rate, 1.0)
                if step.stride > 1:
                    backend.synchronize()
                    seconds = perf_counter() - called
                    mini_batches = _paced(plan, step, stop - start, seconds, mini_batches)
                start, now = stop, perf_counter()
                if on_call is not None and now - reported >= REPORT_SECONDS:
                    reported = now
                    if on_call(Progress(number, stop, n, stop / (now - began))) is True:
                        _check_finite(network, {}, number, rate)
                        return history
            backend.synchronize()
            seconds = max(perf_counter() - began, 1e-9)  # on a coarse clock it could be 0
            scores = {key: scorer() for key, scorer in scorers.items()}
            _check_finite(network, scores, number, rate)
            epoch = Epoch(
                epoch=number,
                seconds=seconds,
                samples_per_second=n / seconds,
                **{f"{key}_cost": score.cost for key, score in scores.items()},
                **{f"{key}_accuracy": score.accuracy for key, score in scores.items()},
            )
            history.epochs.append(epoch)
            if on_epoch is not None and on_epoch(epoch) is True:
                return history
    return history


def evaluate(network: Network, data: LabelledSamples) -> Score:
    """Return the mean cost of a network on a labelled set, and the part of it classified rightly.

    Parameters
    ----------
    network
        The network.
    data
        A :class:`fastnn.Dataset` or a pair (x, class numbers), as in :func:`train`.

    Raises
    ------
    DataError
        If the set does not fit the network, or the cost is beyond all numbers.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        score = _Scorer(network, _fitting(network, "given", data))()
    if not np.isfinite(score.cost):
        raise DataError("the cost is not a finite number: are the samples in their range?")
    return score


class _Scorer:
    """A labelled set on the network's device, to be measured again and again."""

    def __init__(self, network: Network, data: Dataset) -> None:
        self._network, self._labels = network, data.labels
        self.samples = Samples(network.backend, network.sizes, data.x)
        # One-hot, as bytes: a row a sample, with a 1 at its class.
        self.targets: NDArray[np.uint8] = np.zeros((len(data), network.sizes[-1]), np.uint8)
        self.targets[np.arange(len(data)), data.labels] = 1

    def __call__(self) -> Score:
        outputs = self.samples.outputs(self._network.layers)
        return Score(
            cost=mean_cost(self._network.cost, outputs, self.targets),
            accuracy=float(np.mean(outputs.argmax(axis=1) == self._labels)),
        )


def _fitting(network: Network, what: str, data: LabelledSamples) -> Dataset:
    """Return the data as a Dataset whose samples and labels fit the network."""
    dataset = Dataset.of(data)
    n_in, n_out = network.sizes[0], network.sizes[-1]
    if dataset.features != n_in:
        raise DataError(
            f"the {what} set's samples have {dataset.features} numbers each; "
            f"the network takes {n_in}"
        )
    if (largest := int(dataset.labels.max())) >= n_out:
        raise DataError(
            f"the {what} set has the class number {largest}; the network's {n_out} outputs "
            f"stand for 0 to {n_out - 1}"
        )
    return dataset


def epoch_order(n: int, seed: int, epoch: int | None) -> NDArray[np.int32]:
    """The order of an epoch: a permutation from a stream of its own; for None, as they lie."""
    if epoch is None:
        return np.arange(n, dtype=np.int32)
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    return stream.permutation(n).astype(np.int32)


def _paced(plan: Plan, step: Step, samples: int, seconds: float, before: int) -> int:
    """How many mini-batches the next call takes, when one with so many samples took so long."""
    in_time = int(samples * CALL_SECONDS / max(seconds, 1e-9)) // plan.batch_size
    return max(1, min(in_time, 2 * before, step.stride))


def _check_finite(network: Network, scores: dict[str, Score], epoch: int, rate: float) -> None:
    parameters = network.backend.to_numpy(network.buffer)
    if (
        np.isfinite([score.cost for score in scores.values()]).all()
        and np.isfinite(parameters).all()
    ):
        return
    raise Diverged(
        f"training diverged in epoch {epoch}: weights or costs grew beyond all numbers at a "
        f"learning rate of {rate:g}. Try a smaller one, such as {rate / 10:g}."
    )
