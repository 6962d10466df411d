import dataclasses
import itertools

import numpy as np
import pytest

import fastnn.training
from fastnn import ArgumentError, DataError, Dataset, Diverged, Network, evaluate, train
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.backprop import BackpropStep
from fastnn.testing import StrictBackend
from fastnn.training import epoch_order


def make_set(n=103, features=8, classes=3, seed=0):
    """Pixels of noisy prototypes: easy to learn, and no two samples alike."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    prototypes = np.random.default_rng(99).integers(40, 216, (classes, features))
    return (prototypes[labels] + rng.integers(-40, 40, (n, features))).astype(np.uint8), labels


TRAIN, VALIDATION, TEST = make_set(103, seed=0), make_set(41, seed=1), make_set(57, seed=2)


def make_network(device="numpy", dtype="float64", **options):
    if isinstance(device, type):
        device = device(dtype=dtype)
    return Network([8, 6, 3], device=device, dtype=dtype, **options)


def parameters(network):
    return np.concatenate([a.ravel() for a in (*network.weights, *network.biases)])


class Recording(NumpyBackend):
    """Takes over with the plain step at a stride of its own, and keeps what it was called with."""

    def __init__(self, stride=1, dtype="float64"):
        super().__init__(dtype=dtype)
        self.stride, self.calls = stride, []

    def fused_step(self, plan):
        plain = BackpropStep(self, plan, stride=self.stride)

        class Step:
            name, stride = "recording", self.stride

            def __call__(_, order, start, stop, rate, shrink):
                self.calls.append((self.to_numpy(order), start, stop, rate, shrink))
                plain(order, start, stop, rate, shrink)

        return Step()

    @property
    def orders(self):
        return [order for order, start, *_ in self.calls if start == 0]


# The weights that come out
# --------------------------------------------------------------------------------


def by_hand(network, x, labels, orders, batch_size, eta):
    """The loop of the texts, the samples of a mini-batch as columns: sigmoid and cross-entropy."""
    (w1, w2), (b1, b2) = (
        [array.copy() for array in each] for each in (network.weights, network.biases)
    )
    b1, b2 = b1[:, np.newaxis], b2[:, np.newaxis]
    targets = np.eye(3)[labels]
    for order in orders:
        for first in range(0, len(x), batch_size):
            batch = order[first : first + batch_size]
            a0, y, m = x[batch].T / 255, targets[batch].T, len(batch)
            a1 = 1 / (1 + np.exp(-(w1 @ a0 + b1)))
            a2 = 1 / (1 + np.exp(-(w2 @ a1 + b2)))
            d2 = a2 - y
            d1 = (w2.T @ d2) * a1 * (1 - a1)
            w1, w2 = w1 - eta / m * d1 @ a0.T, w2 - eta / m * d2 @ a1.T
            b1 = b1 - eta / m * d1.sum(axis=1, keepdims=True)
            b2 = b2 - eta / m * d2.sum(axis=1, keepdims=True)
    return np.concatenate([array.ravel() for array in (w1, w2, b1, b2)])


@pytest.mark.parametrize("batch_size", [1, 10, 50, 102, 103, None])
def test_it_is_the_loop_of_the_texts_with_a_tail_divided_by_its_own_size(batch_size):
    """103 samples leave tails of 3, 3, 1 and none; None is one step over all of them."""
    network = make_network(Recording())
    start = make_network()
    train(network, TRAIN, epochs=3, batch_size=batch_size, learning_rate=0.7)
    expected = by_hand(start, *TRAIN, network.backend.orders, batch_size or 103, 0.7)
    np.testing.assert_allclose(parameters(network), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 4, 11, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_stride_gives_the_same_bits(stride, dtype):
    plain, strided = make_network(dtype=dtype), make_network(Recording(stride, dtype), dtype)
    for network in (plain, strided):
        train(network, TRAIN, epochs=5, batch_size=10)
    np.testing.assert_array_equal(parameters(strided), parameters(plain))
    assert max(stop - start for _, start, stop, *_ in strided.backend.calls) == min(
        10 * stride, 103
    )


@pytest.mark.parametrize(
    ("output", "cost"),
    [("sigmoid", "cross-entropy"), ("softmax", "log-likelihood"), ("tanh", "squared-error")],
)
@pytest.mark.parametrize("x", [TRAIN[0], TRAIN[0] / 200], ids=["bytes", "floats"])
def test_a_device_with_opaque_arrays_gives_the_same(x, output, cost):
    runs = []
    for device in (NumpyBackend, StrictBackend):
        network = make_network(device, output=output, cost=cost)
        history = train(network, (x, TRAIN[1]), TEST, epochs=3, learning_rate=0.1)
        runs.append((parameters(network), [epoch.test_cost for epoch in history.epochs]))
    (ours, our_costs), (theirs, their_costs) = runs
    np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(their_costs, our_costs, rtol=1e-9)


def test_it_learns():
    history = train(make_network(dtype="float32"), TRAIN, test=TEST, epochs=30, learning_rate=1)
    assert history.epochs[-1].test_accuracy > 0.95
    assert history.epochs[-1].train_cost < history.epochs[0].train_cost


@pytest.mark.parametrize("as_given", [tuple, list, lambda pair: Dataset(*pair)])
def test_a_set_is_a_dataset_or_a_pair_and_is_not_written(as_given):
    x, labels = (array.copy() for array in TRAIN)
    x.flags.writeable = labels.flags.writeable = False
    network, expected = make_network(), make_network()
    train(network, as_given((x, labels)), epochs=1)
    train(expected, (TRAIN[0].reshape(103, 2, 4), list(TRAIN[1])), epochs=1)
    np.testing.assert_array_equal(parameters(network), parameters(expected))


def test_training_goes_on_from_where_the_network_is():
    once, twice = make_network(), make_network()
    train(once, TRAIN, epochs=2, shuffle=False)
    for _ in range(2):
        train(twice, TRAIN, epochs=1, shuffle=False)
    np.testing.assert_array_equal(parameters(once), parameters(twice))


# The order
# ----------------------------------------------------------------------------------------


def test_each_epoch_of_each_seed_has_a_permutation_of_its_own():
    orders = [
        epoch_order(50, seed, epoch) for seed, epoch in itertools.product(range(5), range(1, 6))
    ]
    for order in orders:
        assert order.dtype == np.int32
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    assert len({order.tobytes() for order in orders}) == len(orders)
    np.testing.assert_array_equal(epoch_order(50, 3, 2), epoch_order(50, 3, 2))


def test_all_orders_are_equally_likely():
    first = [epoch_order(4, 1, epoch)[0] for epoch in range(1, 2001)]
    # 500 each; the standard deviation is 19
    assert all(400 < count < 600 for count in np.bincount(first, minlength=4))


def test_the_same_seed_gives_the_same_run_and_another_another():
    runs = {}
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        network = make_network()
        train(network, TRAIN, epochs=2, seed=seed)
        runs[name] = parameters(network)
    np.testing.assert_array_equal(runs["one"], runs["same"])
    assert not np.array_equal(runs["one"], runs["other"])


def test_the_order_does_not_depend_on_device_batch_or_precision():
    recordings = []
    for stride, batch_size, dtype in ((1, 10, "float64"), (3, 7, "float32"), (1, None, "float64")):
        network = make_network(Recording(stride, dtype), dtype)
        train(network, TRAIN, epochs=3, batch_size=batch_size, seed=8)
        recordings.append(network.backend.orders)
    for orders in recordings:
        np.testing.assert_array_equal(orders, [epoch_order(103, 8, epoch) for epoch in (1, 2, 3)])


def test_without_shuffle_the_samples_are_taken_as_they_lie():
    network = make_network(Recording())
    train(network, TRAIN, epochs=2, shuffle=False)
    np.testing.assert_array_equal(network.backend.orders, [np.arange(103)] * 2)


# Which step, and what it is asked
# --------------------------------------------------------------------------------


def test_a_take_over_is_used_and_reported_and_can_be_refused():
    assert train(make_network(Recording()), TRAIN, epochs=1).step == "recording"
    network = make_network(Recording())
    history = train(network, TRAIN, epochs=1, fused=False)
    assert (history.step, history.device) == ("plain", "numpy")
    assert not network.backend.calls


def test_a_device_may_decline_to_take_over():
    class Declining(NumpyBackend):
        name = "declining"

        def fused_step(self, plan):
            return None

    history = train(make_network(Declining), TRAIN, epochs=1)
    assert (history.step, history.device) == ("plain", "declining")


class Clock:
    """A perf_counter that goes forward by training only."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(fastnn.training, "perf_counter", clock)
    return clock


class Timed(NumpyBackend):
    """Its step trains nothing, and takes ``pace(now)`` seconds for each mini-batch.

    As on a GPU a call only enqueues the work, and the time is spent when someone waits for it.
    """

    def __init__(self, clock, pace, stride):
        super().__init__()
        self.clock, self.pace, self.stride = clock, pace, stride
        self.calls, self.enqueued = [], 0.0

    def synchronize(self):
        self.clock.now += self.enqueued
        self.enqueued = 0.0

    def fused_step(self, plan):
        class Step:
            name, stride = "timed", self.stride

            def __call__(_, order, start, stop, rate, shrink):
                mini_batches = -(-(stop - start) // plan.batch_size)
                took = mini_batches * self.pace(self.clock.now)
                self.calls.append((start, stop, took))
                self.enqueued += took

        return Step()


def run_timed(clock, n, batch_size, pace, epochs=4, stride=10**6, **options):
    """Return the calls of the step, (start, stop, seconds) each, and the history."""
    backend = Timed(clock, pace if callable(pace) else lambda now: pace, stride)
    samples = np.zeros((n, 2), np.uint8), np.zeros(n, int)
    network = Network([2, 2], device=backend)
    history = train(network, samples, epochs=epochs, batch_size=batch_size, **options)
    return backend.calls, history


# (samples, batch size, seconds a mini-batch): an epoch that is one call; tails; borders that the
# pace does not meet; mini-batches that take a quarter second and more by themselves
TIMINGS = [
    (1000, 10, 1e-5),
    (1003, 10, 1e-3),
    (1003, 10, 0.01),
    (1000, 10, 0.02),
    (170, 10, 0.01),
    (330, 10, 0.01),
    (95, 10, 0.06),
    (57, 10, 0.13),
    (45, 10, 0.3),
    (20_000, 1, 1e-4),
    (64, 64, 0.5),
]


@pytest.mark.parametrize(("n", "batch_size", "seconds"), TIMINGS)
def test_the_calls_of_an_epoch_take_each_sample_once_and_cut_between_mini_batches(
    clock, n, batch_size, seconds
):
    calls, _ = run_timed(clock, n, batch_size, seconds)
    stops = [stop for _, stop, _ in calls]
    assert [start for start, *_ in calls] == [0, *(stop % n for stop in stops[:-1])]
    assert stops[-1] == n
    assert stops.count(n) == 4
    assert all(stop % batch_size == 0 or stop == n for stop in stops)


@pytest.mark.parametrize(("n", "batch_size", "seconds"), TIMINGS)
def test_a_call_takes_a_quarter_second_at_the_most_or_a_single_mini_batch(
    clock, n, batch_size, seconds
):
    calls, _ = run_timed(clock, n, batch_size, seconds, epochs=6)
    assert max(took for *_, took in calls) <= max(0.25, seconds) + 1e-9


def test_a_call_takes_no_more_mini_batches_than_the_stride(clock):
    calls, _ = run_timed(clock, 1000, 10, 1e-6, stride=7)
    assert max(stop - start for start, stop, _ in calls) == 70


def test_the_pace_is_found_soon(clock):
    calls, _ = run_timed(clock, 100_000, 10, 1e-3, epochs=1)
    assert calls[0][1] == 10  # nothing is known before the first mini-batch
    assert all(took >= 0.1 for *_, took in calls[10:-1])


def test_a_device_that_becomes_slow_is_soon_given_less(clock):
    def pace(now):
        return 1e-4 if now < Clock.now + 1 else 5e-3  # from the second second on

    calls, _ = run_timed(clock, 200_000, 10, pace, epochs=1)
    took = [seconds for *_, seconds in calls]
    slow = next(i for i, seconds in enumerate(took) if seconds > 0.25)
    assert all(seconds <= 0.25 for seconds in took[slow + 6 :])


# What is reported
# ----------------------------------------------------------------------------------------


def test_the_history(clock):
    _, history = run_timed(clock, 100, 10, 0.05, epochs=3)
    assert (history.device, history.step) == ("numpy", "timed")
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3]
    for epoch in history.epochs:  # measuring does not move this clock, training does
        assert epoch.seconds == pytest.approx(0.5)
        assert epoch.samples_per_second == pytest.approx(200)
    assert history.samples_per_second == pytest.approx(200)


def test_the_samples_per_second_of_a_history_are_the_median():
    history = train(make_network(), TRAIN, epochs=3)
    assert all(epoch.seconds > 0 for epoch in history.epochs)
    rates = sorted(epoch.samples_per_second for epoch in history.epochs)
    assert history.samples_per_second == rates[1]
    assert fastnn.History("numpy", "plain").samples_per_second is None


@pytest.mark.parametrize(
    ("output", "cost"), [("sigmoid", "cross-entropy"), ("softmax", "log-likelihood")]
)
def test_costs_and_accuracies_are_those_of_the_weights_at_the_epochs_end(output, cost):
    network = make_network(output=output, cost=cost)

    def measure(x, labels):
        (w1, w2), (b1, b2) = network.weights, network.biases
        hidden = 1 / (1 + np.exp(-(w1 @ x.T / 255 + b1[:, np.newaxis])))
        z, y = w2 @ hidden + b2[:, np.newaxis], np.eye(3)[labels].T
        if output == "softmax":
            total = -np.sum(y * (z - np.log(np.exp(z).sum(axis=0))))
        else:  # ln σ(z) = -ln(1 + e^-z), ln(1 - σ(z)) = -ln(1 + e^z)
            total = np.sum(y * np.log1p(np.exp(-z)) + (1 - y) * np.log1p(np.exp(z)))
        return total / len(x), (z.argmax(axis=0) == labels).mean()

    def compare(epoch):
        for name, data in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
            found = getattr(epoch, f"{name}_cost"), getattr(epoch, f"{name}_accuracy")
            np.testing.assert_allclose(found, measure(*data), rtol=1e-11)
            np.testing.assert_allclose(evaluate(network, data), found, rtol=1e-13)
        seen.append(epoch)

    seen = []
    history = train(network, TRAIN, TEST, VALIDATION, epochs=2, on_epoch=compare)
    assert seen == history.epochs
    assert len(seen) == 2


def test_only_what_is_given_is_measured():
    (epoch,) = train(make_network(), TRAIN, epochs=1).epochs
    measured = {name for name, value in dataclasses.asdict(epoch).items() if value is not None}
    assert measured == {"epoch", "seconds", "samples_per_second", "train_cost", "train_accuracy"}
    (epoch,) = train(make_network(), TRAIN, validation=VALIDATION, epochs=1).epochs
    assert epoch.test_cost is None
    assert 0 <= epoch.validation_accuracy <= 1


def test_measuring_changes_nothing():
    unwatched, watched = make_network(), make_network()
    train(unwatched, TRAIN, epochs=2)
    train(watched, TRAIN, TEST, VALIDATION, epochs=2, on_epoch=lambda _: evaluate(watched, TEST))
    np.testing.assert_array_equal(parameters(watched), parameters(unwatched))


def test_evaluate_by_hand():
    """Of the outputs (1, 0), (1, 0) one is right: half of the samples cost 1/2 (1 + 1) = 1."""
    network = Network.from_parameters(
        [[[1], [0]]], [[0, 0]], output="identity", cost="quadratic", dtype="float64"
    )
    assert evaluate(network, (np.ones((2, 1)), [0, 1])) == (0.5, 0.5)
    assert evaluate(network, (np.full((2, 1), 255, np.uint8), [0, 1])).cost == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("answer", "epochs"),
    [(True, 1), (np.True_, 1), (False, 3), (np.False_, 3), (None, 3), (1, 3), ("yes", 3)],
)
@pytest.mark.parametrize("callback", ["on_epoch", "on_call"])
def test_only_true_ends_the_training(callback, answer, epochs):
    history = train(make_network(), TRAIN, epochs=3, **{callback: lambda _: answer})
    assert len(history.epochs) == (epochs if callback == "on_epoch" or epochs == 3 else 0)


def test_on_epoch_ends_the_training_by_true():
    seen = []

    def stop(epoch):
        seen.append(epoch)
        return epoch.epoch == 2

    history = train(make_network(), TRAIN, epochs=9, on_epoch=stop)
    assert history.epochs == seen
    assert len(seen) == 2


def test_on_call_is_told_where_the_training_is(clock):
    reports = []
    _, history = run_timed(clock, 1000, 10, 0.02, epochs=2, on_call=reports.append)
    assert len(history.epochs) == 2
    assert {report.epoch for report in reports} == {1, 2}
    assert all(report.total == 1000 for report in reports)
    assert all(0 < report.samples <= 1000 for report in reports)
    assert [(r.epoch, r.samples) for r in reports] == sorted(
        {(r.epoch, r.samples) for r in reports}
    )
    assert all(report.samples_per_second == pytest.approx(500) for report in reports)
    # about ten times a second: of 2 × 2 seconds, and no call takes longer than a quarter second
    assert 16 <= len(reports) <= 40


def test_on_call_is_called_between_the_mini_batches_of_the_plain_step(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(fastnn.training, "perf_counter", lambda: 0.05 * next(ticks))
    reports = []
    train(make_network(), TRAIN, epochs=1, on_call=reports.append)
    assert all(report.samples % 10 == 0 or report.samples == 103 for report in reports)
    assert len(reports) > 3


def test_on_call_ends_the_training_in_the_middle_of_an_epoch(clock):
    calls, history = run_timed(
        clock, 1000, 10, 0.02, on_call=lambda progress: progress[:2] >= (2, 500)
    )
    assert [epoch.epoch for epoch in history.epochs] == [1]
    assert 500 <= calls[-1][1] < 1000


def test_what_a_callback_raises_comes_through():
    def interrupt(_):
        raise KeyboardInterrupt

    network = make_network()
    with pytest.raises(KeyboardInterrupt):
        train(network, TRAIN, epochs=2, on_epoch=interrupt)
    assert network.forward(TRAIN[0]).shape == (103, 3)  # and no errstate is left behind
    with pytest.warns(RuntimeWarning, match="overflow"):
        np.float32(1e38) * np.float32(10)


# What cannot be
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [NumpyBackend, StrictBackend])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("output", "cost", "rate"),
    [
        ("identity", "quadratic", 100),
        ("identity", "squared-error", 1e300),
        ("softmax", "log-likelihood", 1e300),
    ],
)
def test_divergence_is_said_once_and_without_warnings(device, dtype, output, cost, rate):
    network = make_network(
        device, dtype, activation="relu", output=output, cost=cost, init="normal"
    )
    finite = []
    with pytest.raises(
        Diverged, match=r"diverged in epoch \d+: .* Try a smaller .*lr-find"
    ) as error:
        train(network, TRAIN, TEST, learning_rate=rate, on_epoch=finite.append)
    assert error.value.exit_code == 5
    assert f"diverged in epoch {len(finite) + 1}" in str(error.value)
    assert all(np.isfinite(epoch.train_cost) for epoch in finite)


@pytest.mark.parametrize("device", ["numpy", "numba", StrictBackend])
@pytest.mark.parametrize("sizes", [[8, 6, 3], [8, 200, 3]])  # fewer than a row of sums, and more
def test_it_is_noticed_at_the_end_of_the_call_in_which_it_happens(device, sizes, monkeypatch):
    monkeypatch.setattr(fastnn.training, "ROUND_SECONDS", 0.0)  # calls of one mini-batch
    device = device(dtype="float32") if isinstance(device, type) else device
    network = Network(sizes, activation="relu", output="identity", cost="quadratic", device=device)
    seen = []
    with pytest.raises(Diverged, match="epoch 1"):
        train(network, TRAIN, learning_rate=1e30, on_call=lambda progress: seen.append(progress))
    assert len(seen) <= 3
    assert not np.isfinite(parameters(network)).all()


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_cost_that_is_beyond_all_numbers_on_any_set_is_divergence(name):
    far = np.full((2, 8), 3e38, np.float32), [0, 1]
    network = make_network(
        dtype="float32", activation="identity", output="identity", cost="quadratic"
    )
    with pytest.raises(Diverged, match="epoch 1"):
        train(network, TRAIN, **{name: far}, learning_rate=1e-3)


def test_a_training_that_diverged_is_not_ended_as_if_nothing_were(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(fastnn.training, "perf_counter", lambda: float(next(ticks)))
    network = make_network(dtype="float32", output="identity", cost="quadratic")
    with pytest.raises(Diverged):
        train(network, TRAIN, learning_rate=1e30, on_call=lambda progress: progress.samples > 50)


@pytest.mark.parametrize(
    ("option", "values", "says"),
    [
        (
            "epochs",
            (0, -1, 1.5, "3", None, True, 10**7),
            "epochs must be a whole number, 1 to 1,000,000",
        ),
        ("batch_size", (0, -1, 2.0, "10", True), "batch_size must be a whole number, 1 or more"),
        ("threads", (0, -1, 1.5, "2", True, 10**6), "threads must be a whole number, 1 to 1,024"),
        ("batch_size", (104, 10**30), "more than the 103 training samples"),
        ("seed", (-1, 0.5, None, "0"), "seed must be a whole number, 0 or more"),
        ("shuffle", ("no", 0, None), "shuffle must be True or False"),
        ("fused", ("plain", 1, None), "fused must be True or False"),
        ("on_epoch", (3, "print", False), "on_epoch must be a function, or None"),
        ("profile", (3, "trace.json"), r"profile must be a fastnn\.Profile"),
        ("on_call", (3, "print", False), "on_call must be a function, or None"),
        (
            "learning_rate",
            (0, -0.5, float("nan"), float("inf"), "fast", [0.5], 1j, 10**400),
            "learning_rate must be a number above 0",
        ),
    ],
)
def test_arguments_that_cannot_be(option, values, says):
    network = make_network()
    before = parameters(network)
    for value in values:
        with pytest.raises(ArgumentError, match=says):
            train(network, TRAIN, **{"epochs": 1, option: value})
    np.testing.assert_array_equal(parameters(network), before)


@pytest.mark.parametrize("option", ["epochs", "batch_size", "seed", "learning_rate"])
def test_numbers_may_be_numpys(option):
    train(make_network(), TRAIN, **{"epochs": 1, option: np.int64(2)})


X, LABELS = TRAIN
ARGUMENT, DATA = ArgumentError, DataError


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (5, ARGUMENT, "Dataset or a pair"),
        (X, ARGUMENT, "Dataset or a pair"),
        ((X,), ARGUMENT, "Dataset or a pair"),
        ((X[:, :7], LABELS), DATA, "{name} set's samples have 7 numbers each; the network takes 8"),
        ((X, LABELS + 1), DATA, "{name} set has the class number 3; .* 3 outputs stand for 0 to 2"),
        ((X, LABELS[:-1]), DATA, "103 samples .* 102 labels"),
        ((X, LABELS - 1), DATA, "class numbers from 0"),
        ((X, LABELS / 1), DATA, "integers"),
        ((X, np.eye(3)[LABELS]), DATA, "class numbers"),
        ((X[:0], LABELS[:0]), DATA, "nothing in it"),
        ((X.astype(int), LABELS), DATA, "uint8"),
        ((X * np.nan, LABELS), DATA, "NaN or inf"),
        ((X * 1e300, LABELS), DATA, "float32"),
    ],
)
@pytest.mark.parametrize("name", ["training", "validation", "test", "given"])
def test_sets_that_cannot_be(name, given, error, says):
    network = make_network(dtype="float32")
    calls = {
        "given": lambda: evaluate(network, given),
        "training": lambda: train(network, given, epochs=1),
        "validation": lambda: train(network, TRAIN, validation=given, epochs=1),
        "test": lambda: train(network, TRAIN, test=given, epochs=1),
    }
    with pytest.raises(error, match=says.format(name=name)):
        calls[name]()


def test_a_cost_beyond_all_numbers_is_a_sentence_and_no_warning():
    network = make_network(dtype="float32", output="identity", cost="quadratic")
    network.layers[-1].w[:] = 1e38
    with pytest.raises(DataError, match="the cost is not a finite number"):
        evaluate(network, TRAIN)


def test_without_a_set_there_is_no_training():
    with pytest.raises(ArgumentError, match="Dataset or a pair"):
        train(make_network(), None)


def test_outputs_beyond_the_memory_are_refused_before_they_are_made():
    wide = Network([1, 1_000_000])
    x, labels = np.zeros((200_000, 1), np.uint8), np.arange(200_000) % 2
    for use in (
        lambda: train(wide, (x, labels)),
        lambda: evaluate(wide, (x, labels)),
        lambda: wide.predict(x),
    ):
        with pytest.raises(ArgumentError, match="the outputs for 200,000 samples would take 800"):
            use()


@pytest.mark.parametrize("network", [None, "numpy", [784, 30, 10]])
def test_what_is_no_network_is_refused(network):
    for use in (train, fastnn.evaluate):
        with pytest.raises(ArgumentError, match=r"must be a fastnn\.Network"):
            use(network, TRAIN)
