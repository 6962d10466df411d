"""Dropout: who rests, what the others learn, and that it is the same on every device."""

import itertools

import numpy as np
import pytest

import fastnn
from fastnn import ArgumentError, Network, train
from fastnn.dropout import Dropout, layer_rates
from fastnn.kernels import reference
from fastnn.testing import StrictBackend

SIZES = [12, 9, 7, 3]
RATES = [0.2, 0.5, 0.3]
DATA = fastnn.synthetic(60, 1, SIZES[0], SIZES[-1]).train


def trained(device="numpy", *, epochs=3, data=DATA, dtype="float64", **how):
    network = Network(SIZES, device=device, dtype=dtype, seed=1)
    how = {"batch_size": 7, "dropout": RATES, "seed": 5, **how}
    history = train(network, data, epochs=epochs, **how)
    return network.backend.to_numpy(network.buffer), history


# What is drawn
# --------------------------------------------------------------------------------------------------


def test_the_draws_are_splitmix64s():
    # The first numbers of the published generator, seeded with 1234567.
    assert reference.draws(1234567, 0, 5).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("first", [3, 2**32 - 1, 2**64 - 3])
def test_a_part_of_a_stream_is_that_part(first):
    whole = reference.draws(2**63 + 9, first, 10)
    np.testing.assert_array_equal(whole[4:], reference.draws(2**63 + 9, (first + 4) % 2**64, 6))


@pytest.mark.parametrize("rate", [0.01, 0.5, 0.9])
def test_as_many_rest_as_the_rate_says_and_the_mean_stays(rate):
    m, n = 400, 250
    out = reference.drop(np.ones((m, n)), reference.Dropped(77, 10**12, rate))
    assert set(np.unique(out)) == {0, 1 / (1 - rate)}
    rests = out == 0
    # Five standard deviations of the binomial; of the parts by row and by column the most extreme.
    deviation = np.sqrt(rate * (1 - rate))
    assert abs(rests.mean() - rate) < 5 * deviation / np.sqrt(m * n)
    for axis, of in ((0, m), (1, n)):
        assert np.abs(rests.mean(axis) - rate).max() < 5 * deviation / np.sqrt(of)
    # Neighbours know nothing of each other.
    for one, other in ((rests[1:], rests[:-1]), (rests[:, 1:], rests[:, :-1])):
        together = np.mean((one - rate) * (other - rate)) / deviation**2
        assert abs(together) < 5 / np.sqrt(one.size)


def test_layers_epochs_samples_and_seeds_have_draws_of_their_own():
    masks = {}
    for seed, epoch, layer, start in itertools.product((0, 1), (1, 2), (0, 1, 2), (0, 30)):
        dropout = Dropout(fastnn.device("numpy"), [0.5] * 3, [8, 8, 8, 2], 60, seed)
        dropout.epoch = epoch
        out = np.empty((30, 8), np.float32)
        dropout(start, layer, np.ones((30, 8), np.float32), out)
        masks[seed, epoch, layer, start] = out.tobytes()
    assert len(set(masks.values())) == len(masks)


# What is learned
# --------------------------------------------------------------------------------------------------


def test_the_update_is_the_slope_of_the_thinned_network():
    """By finite differences of a forward pass that is written out here, masks and all."""
    rate, start = 1e-3, Network(SIZES, device="numpy", dtype="float64", seed=1)
    x, labels = DATA.x[:20] / 255, DATA.labels[:20]
    y = np.eye(SIZES[-1])[labels]
    after = start.to(start.backend)
    train(
        after,
        (x, labels),
        epochs=1,
        batch_size=None,
        learning_rate=rate,
        dropout=RATES,
        shuffle=False,
        seed=5,
    )
    keys = Dropout(start.backend, RATES, SIZES, 20, 5).keys
    masks = [
        reference.drop(np.ones((20, n)), reference.Dropped(key, 0, part))
        for key, n, part in zip(keys, SIZES, RATES, strict=False)
    ]

    def cost(parameters):
        a, place = x, 0
        for mask, n_in, n_out in zip(masks, SIZES, SIZES[1:], strict=False):
            w = parameters[place : place + n_in * n_out].reshape(n_out, n_in)
            b = parameters[place + n_in * n_out :][:n_out]
            place += (n_in + 1) * n_out
            a = 1 / (1 + np.exp(-((mask * a) @ w.T + b)))
        return -np.mean(np.sum(y * np.log(a) + (1 - y) * np.log(1 - a), axis=1))

    before, h = start.buffer.copy(), 1e-6
    slopes = [
        (cost(before + h * one) - cost(before - h * one)) / (2 * h) for one in np.eye(before.size)
    ]
    np.testing.assert_allclose((before - after.buffer) / rate, slopes, rtol=0, atol=1e-8)
    assert np.sum(np.array(slopes) == 0) < before.size / 2  # most are learned by some sample


@pytest.mark.parametrize(
    "device", ["numba", StrictBackend(dtype="float64")], ids=["numba", "strict"]
)
def test_it_is_the_same_on_every_device(device):
    ours, _ = trained()
    theirs, _ = trained(device) if isinstance(device, str) else trained(device, dtype=None)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-12)


@pytest.mark.parametrize("how", [{}, {"optimiser": fastnn.SGD(0.9), "l2": 0.1}], ids=str)
def test_numba_drops_within_its_epoch_the_same_by_any_threads_and_calls(how, monkeypatch):
    whole, history = trained("numba", **how)
    assert history.step == "epoch"
    plain, _ = trained("numba", fused=False, **how)
    np.testing.assert_allclose(whole, plain, rtol=0, atol=1e-12)
    monkeypatch.setattr("fastnn.backends.numba_step.WORTH_A_THREAD", 1)
    np.testing.assert_array_equal(trained("numba", threads=2, **how)[0], whole)
    monkeypatch.setattr("fastnn.training.ROUND_SECONDS", 0.0)  # calls of one mini-batch
    np.testing.assert_array_equal(trained("numba", **how)[0], whole)


def test_a_unit_that_never_rests_is_scaled_all_the_same():
    """Below 2⁻³² no draw is; what is left is still divided by 1 - rate."""
    plain, whole = (trained("numba", dropout=1e-12, fused=fused)[0] for fused in (False, True))
    np.testing.assert_allclose(whole, plain, rtol=0, atol=1e-12)


def test_portions_change_nothing_that_is_drawn(monkeypatch):
    whole, _ = trained(batch_size=30)
    monkeypatch.setattr("fastnn.backprop.PORTION", 48)  # four samples of the widest layer
    in_portions, _ = trained(batch_size=30)
    np.testing.assert_allclose(in_portions, whole, rtol=0, atol=1e-14)


def test_nothing_dropped_is_no_dropout():
    for nothing in (0, 0.0, [0, 0, 0]):
        dropped, history = trained("numba", dropout=nothing)
        np.testing.assert_array_equal(dropped, trained("numba", dropout=0.0)[0])
        assert history.step == "epoch"


def test_a_number_is_that_of_all_hidden_layers():
    np.testing.assert_array_equal(trained(dropout=0.4)[0], trained(dropout=[0, 0.4, 0.4])[0])


def test_the_seed_draws():
    assert not np.array_equal(trained(seed=5)[0], trained(seed=6)[0])
    seeds = (trained(seed=seed, shuffle=False)[0] for seed in (5, 5, 6))
    first, again, other = seeds
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_costs_and_predictions_are_those_of_all_units():
    network = Network(SIZES, device="numpy", dtype="float64", seed=1)
    history = train(network, DATA, epochs=1, dropout=RATES)
    assert history.epochs[-1].train_cost == fastnn.evaluate(network, DATA).cost


def test_it_goes_on_with_the_draws_that_were_to_come(tmp_path):
    whole, _ = trained(epochs=4)
    trained(epochs=2, checkpoint=fastnn.Checkpoint(tmp_path / "run"))
    resumed, _ = trained(epochs=4, checkpoint=fastnn.Checkpoint(tmp_path / "run", resume=True))
    np.testing.assert_array_equal(resumed, whole)


def test_large_networks_on_few_samples_overfit_less_with_it():
    learned, test = fastnn.load_dataset("digits")
    few = learned.x[:200], learned.labels[:200]
    accuracies = {}
    for dropout in (0.0, 0.5):
        network = Network([64, 200, 10], device="numba", activation="relu", init="he")
        history = train(network, few, test, epochs=60, learning_rate=0.1, dropout=dropout)
        last = history.epochs[-5:]
        accuracies[dropout] = [
            np.mean([getattr(epoch, name) for epoch in last])
            for name in ("train_cost", "test_cost")
        ]
    (learned_without, without), (learned_with, with_it) = accuracies.values()
    assert with_it - learned_with < without - learned_without


# What is refused
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dropout", "says"),
    [
        (1, "dropout must be a number, from 0 to below 1, not 1"),
        (-0.1, "dropout must be a number, from 0 to below 1"),
        (float("nan"), "dropout must be a number"),
        ("0.5", "dropout must be a number"),
        (None, "dropout must be a number"),
        (True, "dropout must be a number"),
        ([0.5], "one part for all hidden layers, or 3, for the input and for each .*; not 1"),
        ([0.5, 0.5, 0.5, 0.5], "or 3, .*; not 4"),
        ([0.5, 2, 0], "dropout must be a number"),
        ([], "or 3, .*; not 0"),
    ],
)
def test_what_is_no_dropout(dropout, says):
    with pytest.raises(ArgumentError, match=says):
        trained(dropout=dropout)


def test_without_hidden_layers_only_the_input_can_be_dropped():
    assert layer_rates([0.3], 0) == (0.3,)
    with pytest.raises(ArgumentError, match=r"dropout 0\.3 is for hidden layers, and .* has none"):
        layer_rates(0.3, 0)
