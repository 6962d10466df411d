"""Rates by epoch against their formulas, and early stopping on scores that are made up."""

import copy
import math

import numpy as np
import pytest

import fastnn.scoring
from fastnn import (
    SGD,
    ArgumentError,
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseScaling,
    Network,
    ReduceOnPlateau,
    StepDecay,
    train,
)
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.backprop import BackpropStep
from fastnn.schedules import SCHEDULES, Schedule, schedule_of
from fastnn.testing import StrictBackend


def make_set(n, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 5)), rng.integers(0, 3, n)


TRAIN, VALIDATION = make_set(23, 0), make_set(11, 1)


def make_network(device="numpy", dtype="float64"):
    return Network([5, 4, 3], device=device, dtype=dtype)


def parameters(network):
    return network.backend.to_numpy(network.buffer)


class Recording(NumpyBackend):
    """Takes over with the plain step, and keeps the rates and shrinkings it was called with."""

    def fused_step(self, plan):
        plain, self.calls = BackpropStep(self, plan), []

        class Step:
            name, stride = "recording", plain.stride

            def __call__(_, order, start, stop, rate, shrink):
                self.calls.append((rate, shrink))
                plain(order, start, stop, rate, shrink)

        return Step()


@pytest.fixture
def scored(monkeypatch):
    """Make up the accuracies on the validation set, epoch by epoch; the last one stays."""

    def scored(accuracies):
        left, measured = list(accuracies), fastnn.scoring.Scorer.__call__

        def score(self):
            given = measured(self)
            if len(self.targets) != len(VALIDATION[1]):
                return given
            return given._replace(accuracy=left.pop(0) if len(left) > 1 else left[0])

        monkeypatch.setattr(fastnn.scoring.Scorer, "__call__", score)

    return scored


def rates(schedule, epochs, rate=0.8):
    history = train(
        make_network(),
        TRAIN,
        validation=VALIDATION,
        epochs=epochs,
        learning_rate=rate,
        schedule=schedule,
    )
    return history.learning_rates


# The formulas
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        ("constant", lambda e: 0.8),
        (StepDecay(), lambda e: 0.8 * 0.5 ** ((e - 1) // 10)),
        (StepDecay(every=3, factor=0.1), lambda e: 0.8 * 0.1 ** ((e - 1) // 3)),
        (StepDecay(every=100), lambda e: 0.8),
        (ExponentialDecay(), lambda e: 0.8 * 0.95 ** (e - 1)),
        (ExponentialDecay(0.5), lambda e: 0.8 / 2 ** (e - 1)),
        (CosineDecay(), lambda e: 0.4 * (1 + math.cos(math.pi * (e - 1) / 24))),
        (CosineDecay(0.25), lambda e: 0.2 + 0.3 * (1 + math.cos(math.pi * (e - 1) / 24))),
        (InverseScaling(), lambda e: 0.8 / math.sqrt(e)),
        (InverseScaling(2), lambda e: 0.8 / e**2),
    ],
    ids=lambda given: None if callable(given) else str(given),
)
def test_the_rate_of_each_epoch(schedule, formula):
    assert rates(schedule, 24) == pytest.approx([formula(e) for e in range(1, 25)], rel=1e-12)


def test_inverse_scaling_is_scikit_learns():
    optimisers = pytest.importorskip("sklearn.neural_network._stochastic_optimizers")
    theirs = optimisers.SGDOptimizer([], 0.8, "invscaling", power_t=0.3)
    expected = []
    for time in range(12):
        theirs.iteration_ends(time)
        expected.append(theirs.learning_rate)
    assert rates(InverseScaling(0.3), 12) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_grows_evenly_to_the_schedule_which_begins_behind_it(name, scored):
    scored([0.5, 0.9, 0.6, 0.6, 0.6])
    warmed = rates(SCHEDULES[name](warm_up=3), 15)
    assert warmed[:3] == pytest.approx([0.2, 0.4, 0.6])
    scored([0.6])
    assert warmed[3:] == pytest.approx(rates(SCHEDULES[name](), 12))


def test_a_training_may_end_in_its_warm_up():
    assert rates(CosineDecay(warm_up=4), 2) == pytest.approx([0.16, 0.32])


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_rate_is_above_the_one_given(name, scored):
    scored([0.5])
    found = rates(SCHEDULES[name](warm_up=2), 30)
    assert max(found) == found[2] == 0.8
    assert all(0 < rate <= 0.8 for rate in found)


@pytest.mark.parametrize(
    ("schedule", "accuracies", "expected"),
    [
        (ReduceOnPlateau(2), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [1, 1, 1, 1, 1, 1]),
        (ReduceOnPlateau(2), [0.5, 0.4, 0.4, 0.4, 0.4, 0.4], [1, 1, 1, 0.5, 0.5, 0.25]),
        (ReduceOnPlateau(2), [0.5, 0.5, 0.5, 0.5, 0.5, 0.5], [1, 1, 1, 0.5, 0.5, 0.25]),
        (ReduceOnPlateau(2), [0.5, 0.4, 0.6, 0.4, 0.5, 0.7], [1, 1, 1, 1, 1, 0.5]),
        (ReduceOnPlateau(1, 0.1), [0.5, 0.4, 0.6, 0.6, 0.5, 0.7], [1, 1, 0.1, 0.1, 0.01, 1e-3]),
        (ReduceOnPlateau(1, 0.1, 0.05), [0.5] * 6, [1, 1, 0.1, 0.05, 0.05, 0.05]),
        (ReduceOnPlateau(9), [0.5] * 6, [1] * 6),
        (ReduceOnPlateau(1), [0.0] * 6, [1, 1, 0.5, 0.25, 0.125, 0.0625]),
    ],
)
def test_on_a_plateau_the_rate_is_lowered(schedule, accuracies, expected, scored):
    scored(accuracies)
    assert rates(schedule, 6, rate=2.0) == pytest.approx([2 * part for part in expected])


# What is done with them
# ----------------------------------------------------------------------------------------------


def test_every_mini_batch_of_an_epoch_has_its_rate_and_the_shrinking_that_goes_with_it():
    network = make_network(Recording(dtype="float64"))
    how = {"epochs": 3, "batch_size": 10, "learning_rate": 0.8, "l2": 4.6}
    train(network, TRAIN, schedule=ExponentialDecay(0.5), **how)
    expected = [rate for rate in (0.8, 0.4, 0.2) for _ in range(3)]
    found, shrinkings = np.transpose(network.backend.calls)
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    np.testing.assert_allclose(shrinkings, [1 - rate * 4.6 / 23 for rate in expected], rtol=1e-15)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_with_l2_and_momentum_it_is_the_loop_by_hand(device, momentum):
    """v ← μv - η_e (∇C + λ/n w) and w ← w + v with the rate of the epoch; of biases no λ."""
    network = make_network(device)
    w1, b1, w2, b2 = (
        array.copy() for pair in zip(network.weights, network.biases, strict=True) for array in pair
    )
    v = [np.zeros_like(array) for array in (w1, b1, w2, b2)]
    (x, labels), n, l2 = TRAIN, 23, 2.0
    y = np.eye(3)[labels]
    for epoch in range(1, 6):
        eta = 0.6 / epoch
        for first in range(0, n, 10):
            a0, target = x[first : first + 10], y[first : first + 10]
            a1 = 1 / (1 + np.exp(-(a0 @ w1.T + b1)))
            d2 = (1 / (1 + np.exp(-(a1 @ w2.T + b2))) - target) / len(a0)
            d1 = d2 @ w2 * a1 * (1 - a1)
            slopes = d1.T @ a0 + l2 / n * w1, d1.sum(0), d2.T @ a1 + l2 / n * w2, d2.sum(0)
            v = [momentum * each - eta * slope for each, slope in zip(v, slopes, strict=True)]
            w1, b1, w2, b2 = (a + each for a, each in zip((w1, b1, w2, b2), v, strict=True))
    train(
        network,
        TRAIN,
        epochs=5,
        batch_size=10,
        learning_rate=0.6,
        optimiser=SGD(momentum),
        l2=l2,
        schedule=InverseScaling(1),
        shuffle=False,
    )
    expected = np.concatenate([array.ravel() for array in (w1, b1, w2, b2)])
    np.testing.assert_allclose(parameters(network), expected, rtol=1e-11, atol=1e-13)


def test_it_is_as_trainings_of_one_epoch_each_at_its_rate():
    whole, parts = (make_network("numba", "float32") for _ in range(2))
    how = {"batch_size": 10, "shuffle": False}
    history = train(whole, TRAIN, epochs=4, schedule="cosine", **how)
    for rate in history.learning_rates:
        train(parts, TRAIN, epochs=1, learning_rate=rate, **how)
    np.testing.assert_array_equal(parameters(whole), parameters(parts))


def test_an_unfinished_epoch_has_no_rate_in_the_history():
    history = train(make_network(), TRAIN, epochs=5, on_call=lambda progress: progress.epoch == 3)
    assert len(history.epochs) == len(history.learning_rates) == 2


# Stopping
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patience", "accuracies", "epochs", "best"),
    [
        (1, [0.5, 0.6, 0.6, 0.9], 3, 2),  # a tie is no improvement
        (2, [0.5, 0.6, 0.6, 0.7, 0.1, 0.1, 0.9], 6, 4),
        (3, [0.9, 0.1, 0.2, 0.3, 1.0], 4, 1),  # the first is the best
        (3, [0.0, 0.0, 0.0, 0.0, 0.0], 4, 1),
        (3, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 8, 8),
        (8, [0.5, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 8, 2),  # never out of patience
        (100, [0.5, 0.6, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7], 8, 3),
    ],
)
@pytest.mark.parametrize("device", ["numpy", "numba", StrictBackend])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_improvement_it_stops_and_has_the_best_weights(
    device, dtype, patience, accuracies, epochs, best, scored
):
    scored(accuracies)
    network = make_network(device(dtype=dtype) if isinstance(device, type) else device, dtype)
    seen = []
    history = train(
        network,
        TRAIN,
        validation=VALIDATION,
        epochs=8,
        patience=patience,
        on_epoch=lambda epoch: seen.append(parameters(network)),
    )
    assert len(history.epochs) == len(history.learning_rates) == len(seen) == epochs
    assert history.best_epoch == best
    assert parameters(network).tobytes() == seen[best - 1].tobytes()
    assert len({each.tobytes() for each in seen}) == epochs


def test_the_layers_are_the_best_ones_too_and_learn_on():
    """What is put back is in the buffer that the layers are views of."""
    network = make_network(dtype="float32")
    history = train(network, TRAIN, validation=VALIDATION, epochs=60, patience=5)
    best = history.epochs[history.best_epoch - 1]
    score = fastnn.evaluate(network, VALIDATION)
    assert score == (best.validation_cost, best.validation_accuracy)
    assert score.accuracy == max(epoch.validation_accuracy for epoch in history.epochs)
    before = parameters(network)
    train(network, TRAIN, epochs=1)
    assert not np.array_equal(parameters(network), before)


def test_it_is_seen_by_the_validation_set_itself():
    network = make_network()
    history = train(network, TRAIN, validation=VALIDATION, epochs=60, patience=4)
    accuracies = [epoch.validation_accuracy for epoch in history.epochs]
    assert history.best_epoch == 1 + accuracies.index(max(accuracies))
    assert len(accuracies) in (60, history.best_epoch + 4)


@pytest.mark.parametrize("callback", ["on_epoch", "on_call"])
def test_a_training_that_is_ended_has_its_best_weights_too(callback, scored):
    scored([0.1, 0.9, 0.2, 0.3])
    network, kept = make_network(), {}

    def watch(epoch):
        kept[epoch.epoch] = parameters(network)
        return callback == "on_epoch" and epoch.epoch == 4

    history = train(
        network,
        TRAIN,
        validation=VALIDATION,
        patience=9,
        on_epoch=watch,
        on_call=lambda progress: callback == "on_call" and progress.epoch == 5,
    )
    assert (len(history.epochs), history.best_epoch) == (4, 2)
    np.testing.assert_array_equal(parameters(network), kept[2])


def test_one_that_is_ended_before_its_first_epoch_has_none():
    history = train(
        make_network(), TRAIN, validation=VALIDATION, patience=2, on_call=lambda _: True
    )
    assert (history.best_epoch, history.epochs) == (None, [])


def test_without_patience_the_last_weights_stay(scored):
    scored([0.9, 0.1])
    network, last = make_network(), []
    history = train(
        network,
        TRAIN,
        validation=VALIDATION,
        epochs=4,
        on_epoch=lambda _: last.append(parameters(network)),
    )
    assert history.best_epoch is None
    np.testing.assert_array_equal(parameters(network), last[-1])


def test_patience_changes_nothing_before_it_ends(scored):
    scored([0.1, 0.2, 0.3, 0.4])
    free, patient = make_network(), make_network()
    train(free, TRAIN, epochs=4)
    train(patient, TRAIN, validation=VALIDATION, epochs=4, patience=1)
    np.testing.assert_array_equal(parameters(free), parameters(patient))


def test_a_network_copied_after_it_is_whole(scored):
    scored([0.9, 0.1])
    network = make_network()
    train(network, TRAIN, validation=VALIDATION, epochs=4, patience=2)
    np.testing.assert_array_equal(parameters(copy.deepcopy(network)), parameters(network))


# Names, and what is refused
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("constant", Constant()),
        ("step", StepDecay()),
        ("step:5", StepDecay(5)),
        ("step:5,0.1", StepDecay(5, 0.1)),
        ("exponential:0.9", ExponentialDecay(0.9)),
        ("cosine", CosineDecay()),
        ("cosine:0.01", CosineDecay(0.01)),
        ("inverse:1", InverseScaling(1)),
        ("plateau:5,0.5,0.001", ReduceOnPlateau(5, 0.5, 0.001)),
    ],
)
def test_a_name_and_its_numbers(text, schedule):
    assert schedule_of(text) == schedule
    assert schedule_of(schedule) is schedule


def test_all_that_are_there_have_names():
    assert {type(schedule_of(name)) for name in SCHEDULES} == set(Schedule.__subclasses__())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: StepDecay(0), "every must be a whole number, 1 or more, not 0"),
        (lambda: StepDecay(1.5), "every must be a whole number"),
        (lambda: StepDecay(factor=0), "factor must be above 0 and below 1, not 0"),
        (lambda: StepDecay(factor=1), "factor must be a number, from 0 to below 1, not 1"),
        (lambda: ExponentialDecay(float("nan")), "factor must be a number"),
        (lambda: CosineDecay(1), "floor must be a number, from 0 to below 1"),
        (lambda: CosineDecay(-0.1), "floor must be a number"),
        (lambda: InverseScaling(0), "power must be a number above 0"),
        (lambda: ReduceOnPlateau(0), "patience must be a whole number, 1 or more"),
        (lambda: ReduceOnPlateau(factor="half"), "factor must be a number"),
        (lambda: ReduceOnPlateau(floor=2), "floor must be a number"),
        (lambda: Constant(warm_up=-1), "warm_up must be a whole number, 0 or more"),
        (lambda: CosineDecay(warm_up=0.5), "warm_up must be a whole number"),
        (lambda: schedule_of("cosin"), "Did you mean 'cosine'"),
        (lambda: schedule_of("step:"), "'step:' is not of the form step:EVERY,FACTOR, in numbers"),
        (lambda: schedule_of("step:1,2,3"), "is not of the form step:EVERY,FACTOR"),
        (lambda: schedule_of("step:ten"), "is not of the form step:EVERY,FACTOR"),
        (lambda: schedule_of("constant:1"), "'constant:1' is not of the form constant,"),
        (lambda: schedule_of("step:10.0"), "every must be a whole number"),
        (lambda: schedule_of(0.5), "must be a name or a schedule such as"),
        (lambda: schedule_of(None), "must be a name or a schedule such as"),
        (lambda: schedule_of(StepDecay), "must be a name or a schedule such as"),
    ],
)
def test_what_makes_no_sense_is_refused(make, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"patience": 3}, "patience goes by the accuracy on a validation set.*--validation"),
        ({"schedule": "plateau"}, "the schedule 'plateau' goes by .* validation set"),
        ({"schedule": "plateau", "patience": 3, "test": VALIDATION}, "--validation"),
        ({"patience": 0, "validation": VALIDATION}, "patience must be a whole number, 1 or more"),
        ({"patience": 1.5, "validation": VALIDATION}, "patience must be a whole number"),
        ({"schedule": "linear"}, "unknown schedule 'linear'"),
        ({"schedule": Constant(warm_up=9), "l2": 46.0}, "shrinks the weights to nothing"),
    ],
)
def test_train_refuses_what_makes_no_sense(how, sentence):
    network = make_network()
    before = parameters(network)
    with pytest.raises(ArgumentError, match=sentence):
        train(network, TRAIN, learning_rate=0.5, **how)
    np.testing.assert_array_equal(parameters(network), before)
