"""The one training loop: mini-batch SGD, on-line learning and gradient descent, on any device.

The loop owns what is done: the order of the samples, the rate, the measuring, the reports. A
:class:`~fastnn.backends.base.Step` owns how: how many mini-batches it takes in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.backends.base import Array, Backend, Plan, Step
from fastnn.backprop import step_for
from fastnn.checkpoint import Checkpoint
from fastnn.checks import (
    MOST_EPOCHS,
    MOST_THREADS,
    function_or_none,
    is_true,
    positive_number,
    whole_number,
    yes_or_no,
)
from fastnn.descent import Descent
from fastnn.errors import ArgumentError, Diverged
from fastnn.history import Epoch, History, Progress, Score
from fastnn.network import Network
from fastnn.optimisers import Optimiser, optimiser_of
from fastnn.profiling import EVALUATE, Profile
from fastnn.schedules import Schedule, schedule_of
from fastnn.scoring import LabelledSamples, Scorer, check_network, fitting
from fastnn.state import State
from fastnn.threads import using

__all__ = ["batch_size_of", "check_validated", "epoch_order", "train"]

# So long a device works at the most before it is waited for: progress is shown, Ctrl-C is heard.
ROUND_SECONDS = 0.25


def train(
    network: Network,
    train_set: LabelledSamples,
    test: LabelledSamples | None = None,
    validation: LabelledSamples | None = None,
    *,
    epochs: int = 30,
    batch_size: int | None = 10,
    learning_rate: float | None = None,
    optimiser: str | Optimiser = "sgd",
    l1: float = 0.0,
    l2: float = 0.0,
    clip_norm: float | None = None,
    dropout: float | Sequence[float] = 0.0,
    class_weights: str | Sequence[float] | None = None,
    schedule: str | Schedule = "constant",
    patience: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
    fused: bool = True,
    threads: int | None = None,
    checkpoint: Checkpoint | None = None,
    profile: Profile | None = None,
    on_epoch: Callable[[Epoch], Any] | None = None,
    on_call: Callable[[Progress], Any] | None = None,
) -> History:
    """Train a network in place by gradient descent on mini-batches.

    Each mini-batch of m samples does W ← W - η/m Σ_x ∂C_x/∂W and b ← b - η/m Σ_x ∂C_x/∂b, or what
    another optimiser does. The last one of an epoch holds what is left over and is divided by its
    own size. Where samples have weights, it is C = 1/m Σ_x w_x C_x that is descended. With
    penalties on the network's weights w, of n training samples, it is C + λ₁/n Σ|w| + λ₂/2n Σw².
    The costs and accuracies that are measured are without either.

    Parameters
    ----------
    network
        The network; its parameters are changed.
    train_set, test, validation
        Each a :class:`fastnn.Dataset` or a pair (x, class numbers): x (n, sizes[0]) or images (n,
        h, w), uint8 (scaled by 1/255) or floats. A third array (n,) has the training samples'
        weights, 0 or more, and is of no matter in the other sets. The cost and accuracy of each
        set are measured after every epoch.
    epochs
        Passes over the training set, a million at the most. Default 30.
    batch_size
        Samples a mini-batch, 1 for on-line learning, None for the whole set. Default 10.
    learning_rate
        η. Default 0.5; for Adam and AdamW 0.001.
    optimiser
        "sgd" (default), "adam" or "adamw", or a :class:`fastnn.SGD`, which has momentum and
        Nesterov's method, :class:`fastnn.Adam` or :class:`fastnn.AdamW`.
    l1, l2
        The book's λ for either penalty, 0 or more; n is the number of training samples. Without
        momentum, and with AdamW, L2 is W ← (1 - ηλ₂/n) W - …; else it is part of the gradient.
        Default 0.
    clip_norm
        The gradient of a mini-batch, without the penalties, is shortened to that Euclidean length,
        above 0, where it is longer. Default None: it is not.
    dropout
        Which part of the hidden layers' units rests, 0 to below 1, or a list of such parts: for the
        input and for each hidden layer. Which units they are is drawn anew for every sample, and
        what is left is divided by 1 - dropout; costs are measured with all units. Default 0.
    class_weights
        What the weight of each training sample, or 1, is multiplied by, by its class: a number for
        each class, 0 or more; or "balanced", n / (k · n_c) for a class of n_c of the n samples,
        with k classes, so that all count alike. Default None: nothing.
    schedule
        How η changes from epoch to epoch: a name, with parameters if wanted, such as "cosine" or
        "step:10,0.5", or an object of :mod:`fastnn.schedules` such as :class:`fastnn.StepDecay`,
        which may have a warm-up. Default "constant".
    patience
        The book's "no improvement in n": training ends after so many epochs in a row, 1 or more,
        whose accuracy on the validation set is not above the best before. However it ends, the
        network then has the weights of the best epoch, the first of equals. Default None: all
        epochs are trained, and the last one's weights stay.
    seed
        Of the order and of dropout. Epoch e's order is a permutation drawn on the host from
        (seed, e), and whether a unit rests is a hash of the seed and its place: the same on every
        device.
    shuffle
        False takes the samples as they lie.
    fused
        False forces the plain step where the device has a faster one of its own.
    threads
        How many threads a device on the CPU uses; None lets it choose by the size of the work.
    checkpoint
        A :class:`fastnn.Checkpoint`, a folder in which the state is kept from epoch to epoch, and
        from which a training that was ended goes on. It does so by the same settings but for
        ``epochs``, ``fused``, ``threads`` and the device; a schedule that goes by ``epochs`` goes
        by the new number from there on. Its callbacks tell of the epochs that are yet to come.
    profile
        A :class:`fastnn.Profile` that is filled with where the time goes; training takes longer.
    on_epoch
        Called with an :class:`fastnn.Epoch` after each. Training ends if it returns True.
    on_call
        Called with a :class:`fastnn.Progress` between mini-batches, four times a second or more.
        Training ends there if it returns True; the unfinished epoch is then not in the history.

    Returns
    -------
    fastnn.History
        What each finished epoch came to, the device, and the step that ran.

    Raises
    ------
    ArgumentError
        For a number out of its range, a set whose outputs are too large for this machine, or if
        there is no validation set where one is needed; if the checkpoint is of another training.
    DataError
        If a set does not fit the network, or is not the checkpoint's; if no training sample's
        weight is above 0.
    OutputError
        If a checkpoint cannot be written, and has no ``on_error``; if another training is at work
        in its folder.
    Diverged
        If a parameter is not finite after a call of the step, four times a second or more, or a
        cost after an epoch.
    """
    check_network(network)
    epochs = whole_number("epochs", epochs, 1, MOST_EPOCHS)
    descent = Descent(optimiser_of(optimiser), l1, l2, clip_norm, dropout, class_weights)
    rate = descent.optimiser.learning_rate
    if learning_rate is not None:
        rate = positive_number("learning_rate", learning_rate)
    seed = whole_number("seed", seed, 0)
    shuffle, fused = yes_or_no("shuffle", shuffle), yes_or_no("fused", fused)
    function_or_none("on_epoch", on_epoch)
    function_or_none("on_call", on_call)
    if threads is not None:
        threads = whole_number("threads", threads, 1, MOST_THREADS)
    schedule = schedule_of(schedule)
    if patience is not None:
        patience = whole_number("patience", patience, 1)
    check_validated(schedule, patience, validation is not None)
    sets = {"train": fitting(network, "training", train_set)}
    for key, given in (("validation", validation), ("test", test)):
        if given is not None:
            sets[key] = fitting(network, key, given)
    n = len(sets["train"])
    batch_size = batch_size_of(batch_size, n)
    backend = network.backend
    scorers = {key: Scorer(network, data) for key, data in sets.items()}
    plan = descent.plan(network, scorers["train"], batch_size, seed)
    decay = descent.decay(n)
    if rate * decay >= 1:  # and no schedule raises it
        raise ArgumentError(
            f"at a learning rate of {rate:g} an l2 of {descent.l2:g} shrinks the weights to "
            f"nothing in one mini-batch; their product must be below the number of samples, {n:,}"
        )

    for name, what, kind in (
        ("checkpoint", checkpoint, Checkpoint),
        ("profile", profile, Profile),
    ):
        if what is not None and not isinstance(what, kind):
            raise ArgumentError(
                f"{name} must be a fastnn.{kind.__name__}, not {type(what).__name__}"
            )

    state = None
    # What overflows on the host is found by the check for divergence, and said once.
    with ExitStack() as stack:
        stack.enter_context(using(threads))
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))
        if checkpoint is not None:
            told = {
                "epochs": epochs,
                "batch_size": batch_size,
                "learning_rate": rate,
                **descent.described(),
                "dropout": None if plan.dropout is None else plan.dropout.rates,
                "schedule": {"name": schedule.name, **asdict(schedule)},
                "patience": patience,
                "seed": seed,
                "shuffle": shuffle,
                "device": backend.spec,
                "precision": backend.precision,
                "fused": fused,
                "threads": threads,
            }
            kept = len(plan.update.kept) if plan.update else 0
            state = checkpoint.begin(network, sets, told, kept)
            stack.callback(checkpoint.write)
        best = _Best(network)
        if state is not None:
            _fill(backend, network.buffer, state.parameters)
            if plan.update is not None:
                for each, values in zip(plan.update.kept, state.kept, strict=True):
                    _fill(backend, each, values)
                plan.update.taken = state.taken
            best.see(state.epochs[state.best_epoch - 1], state.best)
        step = step_for(backend, plan, fused)
        history = History(backend.spec, step.name, backend.explain(plan) if fused else "")
        if state is not None:
            history.epochs += state.epochs
            history.learning_rates += state.learning_rates
            history.best_epoch = None if patience is None else best.epoch
        if profile is not None:
            step = stack.enter_context(profile.watching(backend, step))
        rounds = _Rounds(network, plan, step)
        watch = _Watch(network)
        if patience is not None:  # however it ends
            stack.callback(best.put_back)
        for number in range(len(history.epochs) + 1, epochs + 1):
            if number - 1 - best.epoch == patience:
                break
            eta = schedule.rate(rate, epochs, history.epochs)
            began = perf_counter()
            order = backend.asarray(epoch_order(n, seed, number if shuffle else None))
            if plan.dropout is not None:
                plan.dropout.epoch = number
            for done in rounds(order, eta, 1 - eta * decay):
                seconds = max(perf_counter() - began, 1e-9)  # on a coarse clock it could be 0
                if not watch.finite():
                    _finite_parameters(network, {}, number, eta)
                if on_call is not None and is_true(
                    on_call(Progress(number, done, n, done / seconds))
                ):
                    _finite_parameters(network, {}, number, eta)
                    return history
            with profile.span(EVALUATE, backend) if profile is not None else nullcontext():
                scores = {key: scorer() for key, scorer in scorers.items()}
            parameters = _finite_parameters(network, scores, number, eta)
            epoch = Epoch(
                epoch=number,
                seconds=seconds,
                samples_per_second=n / seconds,
                **{f"{key}_cost": score.cost for key, score in scores.items()},
                **{f"{key}_accuracy": score.accuracy for key, score in scores.items()},
            )
            history.epochs.append(epoch)
            history.learning_rates.append(eta)
            best.see(epoch, parameters)
            if patience is not None:
                history.best_epoch = best.epoch
            ends = on_epoch is not None and is_true(on_epoch(epoch))
            if checkpoint is not None:  # after the log, which no epoch may be missing from
                checkpoint.note(_state(backend, plan, history, parameters, best))
            if ends:
                break
    return history


def check_validated(schedule: Schedule, patience: int | None, there_is_one: bool) -> None:
    """Raise an ArgumentError if a validation set is needed, and there is none.

    The test set does not stand in for it: what was chosen by it, it can no longer judge.
    """
    if not there_is_one and (patience is not None or schedule.by_validation):
        what = "patience" if patience is not None else f"the schedule {schedule.name!r}"
        raise ArgumentError(
            f"{what} goes by the accuracy on a validation set; give one, such as a tenth of the "
            "training samples (--validation 0.1)"
        )


def batch_size_of(given: int | None, n: int) -> int:
    """Return a number of samples in a mini-batch, all n for None, or raise an ArgumentError."""
    batch_size = n if given is None else whole_number("batch_size", given, 1)
    if batch_size > n:
        raise ArgumentError(
            f"a batch size of {batch_size} is more than the {n} training samples; "
            "None (--batch-size full) takes all of them"
        )
    return batch_size


def epoch_order(n: int, seed: int, epoch: int | None) -> NDArray[np.int32]:
    """The order of an epoch: a permutation from a stream of its own; for None, as they lie."""
    if epoch is None:
        return np.arange(n, dtype=np.int32)
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    return stream.permutation(n).astype(np.int32)


class _Rounds:
    """Epochs in rounds of as many mini-batches as take about ROUND_SECONDS.

    Within a round the device is not waited for; after it, it is. How many mini-batches they are is
    found by the clock: one at first, then at most twice as many as before.
    """

    def __init__(self, network: Network, plan: Plan, step: Step) -> None:
        self._backend, self._plan, self._step = network.backend, plan, step
        self._mini_batches = 1

    def __call__(self, order: Array, rate: float, shrink: float) -> Iterator[int]:
        """Train on all samples in their order; yield after each round how many are done."""
        plan, step, start = self._plan, self._step, 0
        span = plan.batch_size * step.stride
        while start < plan.n:
            began = perf_counter()
            stop = min(start + plan.batch_size * self._mini_batches, plan.n)
            for first in range(start, stop, span):
                step(order, first, min(first + span, stop), rate, shrink)
            self._backend.synchronize()
            seconds = max(perf_counter() - began, 1e-9)
            in_time = int((stop - start) * ROUND_SECONDS / seconds) // plan.batch_size
            self._mini_batches = max(1, min(in_time, 2 * self._mini_batches))
            start = stop
            yield stop


class _Best:
    """The epoch with the highest accuracy on the validation set, the first of equals.

    Without that set it is by the accuracy on the test set, and without that by the cost.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._score, self.parameters = -np.inf, np.empty(0)
        self.epoch = 0

    def see(self, epoch: Epoch, parameters: NDArray[Any]) -> None:
        """Keep the parameters, if it is that of all so far."""
        scores = epoch.validation_accuracy, epoch.test_accuracy, -epoch.train_cost
        score = next(score for score in scores if score is not None)
        if score > self._score:
            self._score, self.parameters, self.epoch = score, parameters, epoch.epoch

    def put_back(self) -> None:
        """Give the network its parameters."""
        if self.epoch:
            _fill(self._network.backend, self._network.buffer, self.parameters)


def _fill(backend: Backend, flat: Array, values: NDArray[Any]) -> None:
    """Put values in a flat array, by a kernel that every device has: one row's gather."""
    row = values[np.newaxis]
    first = backend.asarray(np.zeros(1, np.int32))
    (buffer,) = backend.views(flat, [row.shape])
    backend.gather(backend.asarray(row), first, 0, 1, 1.0, buffer)


def _state(
    backend: Backend, plan: Plan, history: History, parameters: NDArray[Any], best: _Best
) -> State:
    """Return where a training is at the end of an epoch."""
    update = plan.update
    return State(
        epochs=list(history.epochs),
        learning_rates=list(history.learning_rates),
        parameters=parameters,
        kept=[] if update is None else [backend.to_numpy(kept) for kept in update.kept],
        taken=0 if update is None else update.taken,
        best_epoch=best.epoch,
        best=best.parameters,
    )


class _Watch:
    """Looks whether all parameters are finite, by their sums in so many columns, on the device."""

    COLUMNS = 1024

    def __init__(self, network: Network) -> None:
        self._backend = backend = network.backend
        rows, rest = divmod(network.parameter_count, self.COLUMNS)
        shapes = [shape for shape in ((rows, self.COLUMNS), (1, rest)) if all(shape)]
        self._pieces = [
            (piece, backend.empty(shape[1:], backend.dtype))
            for piece, shape in zip(backend.views(network.buffer, shapes), shapes, strict=True)
        ]

    def finite(self) -> bool:
        """Whether the sums are; those of large finite numbers may not be."""
        for piece, out in self._pieces:
            self._backend.sum_rows(piece, out)
        return all(np.isfinite(self._backend.to_numpy(out)).all() for _, out in self._pieces)


def _finite_parameters(
    network: Network, scores: dict[str, Score], epoch: int, rate: float
) -> NDArray[Any]:
    """Return a copy of the parameters, or raise Diverged if they or the scores are not finite."""
    parameters: NDArray[Any] = network.backend.to_numpy(network.buffer)
    if (
        np.isfinite([score.cost for score in scores.values()]).all()
        and np.isfinite(parameters).all()
    ):
        return parameters
    raise Diverged(
        f"training diverged in epoch {epoch}: weights or costs grew beyond all numbers at a "
        f"learning rate of {rate:g}. Try a smaller one, such as {min(rate / 10, 0.5):g}, or "
        "the one that `fastnn lr-find` suggests."
    )
