"""Update rules: against PyTorch's, the mathematics, and the slope of the cost with penalties."""

import numpy as np
import pytest

import fastnn
from fastnn import SGD, Adam, AdamW, ArgumentError, Network, train
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.backprop import BackpropStep
from fastnn.optimisers import OPTIMISERS, Turn, Update, optimiser_of
from fastnn.testing import StrictBackend
from fastnn.testing.plans import plan_for

START = [0.5, -1.5, 2.0, 0.0]
GRADIENTS = [
    [0.3, -0.2, 1.0, 0.0],
    [-0.1, 0.4, 0.5, 2.0],
    [0.2, 0.2, -3.0, -1.0],
    [1.0, 0.0, 0.1, 0.5],
]
RATE, DECAY = 0.1, 0.3
TORCH = {
    # In float64, by PyTorch 2.13.0; test_the_table_is_pytorchs makes it anew.
    "sgd": [0.36, -1.54, 2.14, -0.15000000000000002],
    "sgd, decay": [0.305275215, -1.366721755, 1.9132733200000003, -0.14118],
    "momentum": [0.28592999999999996, -1.57762, 2.0806, -0.4020000000000001],
    "momentum, decay": [0.163771365, -1.189007305, 1.58542852, -0.38238000000000005],
    "nesterov": [0.16733699999999999, -1.609858, 2.21254, -0.5118],
    "nesterov, decay": [0.016863626851499978, -1.1057047567854998, 1.585015398472, -0.46207662],
    "adam": [0.22793980426466467, -1.5310674827771078, 1.868117583253939, -0.12824653889803206],
    "adam, decay": [
        0.1682164749319065,
        -1.1889020251098403,
        1.8128963760531989,
        -0.12331932862565739,
    ],
    "adamw, decay": [
        0.18349346001858327,
        -1.3640180031705331,
        1.6519034142470355,
        -0.12316276917986785,
    ],
}


def stepped(optimiser, decay=0.0):
    """Parameters that start at START, after each of the gradients."""
    backend = NumpyBackend(dtype="float64")
    w = np.array(START)
    kept = [np.zeros(4) for _ in range(optimiser.buffers)]
    beside = decay if optimiser.decoupled else 0.0
    courses = []
    for taken, gradient in enumerate(GRADIENTS, start=1):
        within = decay - beside
        how = RATE, taken, 0.0, within, 1 - RATE * beside
        optimiser.update(backend, w, np.array(gradient), kept, Turn(*how))
        courses.append(w.copy())
    return courses


CASES = {
    "sgd": (SGD(), 0.0),
    "sgd, decay": (SGD(), DECAY),
    "momentum": (SGD(0.9), 0.0),
    "momentum, decay": (SGD(0.9), DECAY),
    "nesterov": (SGD(0.9, nesterov=True), 0.0),
    "nesterov, decay": (SGD(0.9, nesterov=True), DECAY),
    "adam": (Adam(), 0.0),
    "adam, decay": (Adam(0.8, 0.95, 1e-3), DECAY),
    "adamw, decay": (AdamW(), DECAY),
}


def by_pytorch(name):
    torch = pytest.importorskip("torch")
    optimiser, decay = CASES[name]
    w = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    if isinstance(optimiser, SGD):
        how = {"momentum": optimiser.momentum, "nesterov": optimiser.nesterov}
        theirs = torch.optim.SGD([w], lr=RATE, weight_decay=decay, **how)
    else:
        make = torch.optim.AdamW if isinstance(optimiser, AdamW) else torch.optim.Adam
        how = {"betas": (optimiser.beta1, optimiser.beta2), "eps": optimiser.epsilon}
        theirs = make([w], lr=RATE, weight_decay=decay, **how)
    for gradient in GRADIENTS:
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        theirs.step()
    return w.detach().numpy()


@pytest.mark.parametrize("name", CASES)
def test_after_four_gradients_parameters_are_pytorchs(name):
    np.testing.assert_allclose(stepped(*CASES[name])[-1], TORCH[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_the_table_is_pytorchs(name):
    np.testing.assert_allclose(TORCH[name], by_pytorch(name), rtol=1e-13, atol=1e-15)


def test_momentum_is_a_sum_of_all_gradients_each_counted_less_by_mu():
    """v_t = -η Σ_s μ^{t-s} g_s, and w moves by v."""
    w = np.array(START)
    for t, moved in enumerate(stepped(SGD(0.75))):
        v = -RATE * sum(0.75 ** (t - s) * np.array(GRADIENTS[s]) for s in range(t + 1))
        w = w + v
        np.testing.assert_allclose(moved, w, rtol=1e-13, atol=1e-15)


def test_nesterov_looks_ahead():
    """With w̃ = w - μv it is momentum whose gradient is taken at the place it is going to."""
    mu, curvature = 0.8, np.array([1.0, 3.0])
    ahead, behind = np.array([1.0, -2.0]), np.array([1.0, -2.0])
    velocity, v = [np.zeros(2)], np.zeros(2)
    backend, optimiser = NumpyBackend(dtype="float64"), SGD(mu, nesterov=True)
    for _ in range(6):
        by = Turn(RATE, 1, 0.0, 0.0, 1.0)
        optimiser.update(backend, ahead, curvature * ahead, velocity, by)
        v = mu * v - RATE * curvature * (behind + mu * v)
        behind = behind + v
        np.testing.assert_allclose(ahead, behind + mu * v, rtol=1e-13)


def test_adam_moves_each_parameter_by_the_rate_at_first():
    """m̂ / √ŝ = g / |g| after one gradient, whatever its size; a zero gradient moves nothing."""
    moved = stepped(Adam())[0] - START
    np.testing.assert_allclose(moved, [-RATE, RATE, -RATE, 0], rtol=1e-6)


# In a network
# ----------------------------------------------------------------------------------------------


def make_set(n=23, features=5, classes=3):
    rng = np.random.default_rng(7)
    return rng.normal(size=(n, features)), rng.integers(0, classes, n)


def penalised(network, data, l1, l2):
    """C + λ₁/n Σ|w| + λ₂/2n Σw², of all samples."""
    weights = network.weights
    n = len(data[1])
    penalty = sum(l1 * np.abs(w).sum() + l2 / 2 * np.square(w).sum() for w in weights) / n
    return fastnn.evaluate(network, data).cost + penalty


@pytest.mark.parametrize("optimiser", [SGD(), SGD(0.9), Adam()], ids=str)
@pytest.mark.parametrize(("l1", "l2"), [(0.0, 2.0), (1.5, 0.0), (1.5, 2.0)])
def test_what_is_descended_is_the_penalised_cost(optimiser, l1, l2):
    """The first update, by all samples, against central differences of the cost with penalties."""
    data, rate = make_set(), 1e-3
    network = Network([5, 4, 3], device="numpy", dtype="float64")
    start = [*network.weights, *network.biases]
    how = {"epochs": 1, "batch_size": None, "learning_rate": rate, "optimiser": optimiser}
    train(network, data, l1=l1, l2=l2, **how)
    h = 1e-6
    for i, (old, new) in enumerate(zip(start, [*network.weights, *network.biases], strict=True)):
        slope = np.empty_like(old)
        for at in np.ndindex(old.shape):
            costs = []
            for sign in (1, -1):
                moved = [array.copy() for array in start]
                moved[i][at] += sign * h
                there = Network.from_parameters(
                    moved[:2], moved[2:], device="numpy", dtype="float64"
                )
                costs.append(penalised(there, data, l1, l2))
            slope[at] = (costs[0] - costs[1]) / (2 * h)
        expected = rate * (np.sign(slope) if isinstance(optimiser, Adam) else slope)
        np.testing.assert_allclose(old - new, expected, rtol=1e-4, atol=1e-9)


def test_adamw_shrinks_beside_the_update_and_leaves_biases():
    data = make_set()
    plain, shrunk = (Network([5, 4, 3], device="numpy", dtype="float64") for _ in range(2))
    start = plain.weights
    how = {"epochs": 1, "batch_size": None, "optimiser": "adamw", "learning_rate": 0.1}
    train(plain, data, **how)
    train(shrunk, data, l2=4.6, **how)  # 4.6 / 23 samples · 0.1 is 2 in a hundred
    for w, w_plain, w_shrunk in zip(start, plain.weights, shrunk.weights, strict=True):
        np.testing.assert_allclose(w_plain - w_shrunk, 0.02 * w, rtol=1e-9)
    for b_plain, b_shrunk in zip(plain.biases, shrunk.biases, strict=True):
        np.testing.assert_array_equal(b_plain, b_shrunk)


@pytest.mark.parametrize("clip_norm", [0.01, 1e6])
def test_a_gradient_is_no_longer_than_it_may_be(clip_norm):
    data = make_set()
    network = Network([5, 4, 3], device="numpy", dtype="float64")
    free = Network([5, 4, 3], device="numpy", dtype="float64")
    start = np.concatenate([each.ravel() for each in (*network.weights, *network.biases)])
    how = {"epochs": 1, "batch_size": None, "learning_rate": 0.5}
    train(network, data, clip_norm=clip_norm, **how)
    train(free, data, **how)
    moved, freely = (
        np.concatenate([each.ravel() for each in (*one.weights, *one.biases)]) - start
        for one in (network, free)
    )
    length = np.linalg.norm(freely) / 0.5
    np.testing.assert_allclose(moved, freely * min(1, clip_norm / length), rtol=1e-10)


@pytest.mark.parametrize("optimiser", [SGD(0.9), Adam()], ids=str)
def test_a_mini_batch_in_portions_gives_the_same(optimiser, monkeypatch):
    data = make_set(n=50)
    networks = [Network([5, 4, 3], device="numpy", dtype="float64") for _ in range(2)]
    how = {"epochs": 3, "batch_size": 20, "optimiser": optimiser, "l2": 1.0, "clip_norm": 0.1}
    train(networks[0], data, **how)
    monkeypatch.setattr("fastnn.backprop.PORTION", 5 * 7)  # seven samples
    train(networks[1], data, **how)
    for one, other in zip(networks[0].weights, networks[1].weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)


def test_a_device_without_such_kernels_takes_the_host(monkeypatch):
    """Right, if slow: the strict device has none."""
    data = make_set()
    ends = []
    for backend in (StrictBackend(dtype="float64"), NumpyBackend(dtype="float64")):
        network = Network([5, 4, 3], device=backend)
        train(network, data, epochs=2, optimiser=SGD(0.9), l1=0.1, clip_norm=0.5)
        ends.append([*network.weights, *network.biases])
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)


def test_plain_descent_has_no_update_and_others_have_one():
    network = Network([5, 4, 3], device="numpy")
    data = fastnn.Dataset(*make_set())
    assert plan_for(network, data, 5).update is None
    assert plan_for(network, data, 5, l2=3.0).update is None
    for how in ({"optimiser": SGD(0.5)}, {"optimiser": "adam"}, {"l1": 1.0}, {"clip_norm": 1.0}):
        plan = plan_for(network, data, 5, **how)
        assert isinstance(plan.update, Update)
        BackpropStep(network.backend, plan)


def test_numba_says_why_it_takes_the_plain_step():
    network = Network([5, 4, 3], device="numba")
    history = train(network, make_set(), epochs=1, optimiser="adam")
    assert history.step == "plain"
    assert history.why.startswith("plain: no epoch step, since it is for gradient descent")


# What is refused
# ----------------------------------------------------------------------------------------------


def test_names_are_found_and_others_refused():
    assert [optimiser_of(name) for name in OPTIMISERS] == [SGD(), Adam(), AdamW()]
    assert optimiser_of(SGD(0.5)) == SGD(0.5)
    with pytest.raises(ArgumentError, match="Did you mean 'adam'"):
        optimiser_of("adma")
    with pytest.raises(ArgumentError, match=r"must be a name or a fastnn\.SGD"):
        optimiser_of(3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SGD(1.0), "momentum must be a number, from 0 to below 1, not 1.0"),
        (lambda: SGD(-0.1), "momentum must be a number"),
        (lambda: SGD(0.9, nesterov="yes"), "nesterov must be True or False, not 'yes'"),
        (lambda: SGD(float("nan")), "momentum must be a number"),
        (lambda: SGD("0.9"), "momentum must be a number"),
        (lambda: SGD(nesterov=True), "needs a momentum above 0"),
        (lambda: Adam(beta1=1), "beta1 must be a number"),
        (lambda: Adam(beta2=-1), "beta2 must be a number"),
        (lambda: AdamW(epsilon=0), "epsilon must be a number, 1e-30 or more"),
        (lambda: Adam(epsilon=float("inf")), "epsilon must be a number, 1e-30 or more"),
    ],
)
def test_a_number_out_of_its_range_is_refused(make, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"l1": -1}, "l1 must be a number, 0 or more, not -1"),
        ({"l2": float("nan")}, "l2 must be a number"),
        ({"l2": True}, "l2 must be a number"),
        ({"clip_norm": 0}, "clip_norm must be a number above 0"),
        ({"l2": 46.0}, "shrinks the weights to nothing"),
        ({"optimiser": "sdg"}, "unknown optimiser"),
    ],
)
def test_train_refuses_what_makes_no_sense(how, sentence):
    network = Network([5, 4, 3], device="numpy")
    before = network.weights[0].copy()
    with pytest.raises(ArgumentError, match=sentence):
        train(network, make_set(), epochs=1, batch_size=5, learning_rate=0.5, **how)
    np.testing.assert_array_equal(network.weights[0], before)


def test_a_numpy_number_changes_no_bit():
    ends = []
    for momentum in (0.9, np.float64(0.9)):
        network = Network([5, 4, 3], device="numpy")
        train(network, make_set(), epochs=2, optimiser=SGD(momentum))
        ends.append(network.buffer)
    assert ends[1].dtype == np.float32
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_a_rule_of_someone_elses_is_asked_on_every_device(device):
    class Still(SGD):
        def update(self, *_):
            pass

    network = Network([5, 4, 3], device=device)
    before = network.buffer.copy()
    assert train(network, make_set(), epochs=1, optimiser=Still(0.9)).step == "plain"
    np.testing.assert_array_equal(network.buffer, before)
