"""The resident step, its kernel run on the host, against mini-batches written in NumPy."""

from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
from descent import HIDDEN, PAIRS, ROOMY, Case, assert_right, problem, trained
from emulated import build

from fastnn.backends.cuda_resident import tilings

ORDERS = [1, 2, 3]  # beside the ascending one

# Sizes, samples a mini-batch, activations of the hidden layers, samples left over
SHAPES = [
    ((784, 30, 10), 10, ("sigmoid",), 7),  # the book's
    ((784, 16, 16, 10), 32, ("sigmoid",), 5),  # the video's
    ((64, 30, 10), 10, ("relu",), 1),
    ((784, 10), 10, (), 3),
    ((6, 4), 5, (), 2),
    ((13, 7, 5, 3), 4, ("tanh", "leaky-relu"), 3),
    ((1, 1, 1), 3, ("sigmoid",), 2),
    ((9, 70, 3), 6, ("tanh",), 0),  # more units than inputs, and than a warp is wide
    ((21, 9, 8, 7, 6, 5), 3, ("sigmoid", "tanh"), 1),
    ((18, 12, 40, 37), 5, ("leaky-relu", "sigmoid"), 4),  # more labels than lanes
    ((15, 8, 3), 1, ("sigmoid",), 0),
]
CASES = [
    Case(sizes, batch, hidden, "sigmoid", "quadratic", row, dtype, shrink, full, tail)
    for (sizes, batch, hidden, tail), (row, dtype, shrink, full) in product(
        SHAPES,
        [
            ("uint8", "float32", 1.0, 7),
            ("float", "float32", 0.9, 5),
            ("uint8", "float64", 0.9, 5),
            ("float", "float64", 1.0, 7),
        ],
    )
]
UPDATES = [
    {"row": "uint8", "dtype": "float32", "momentum": 0.9, "l2": 0.05},
    {"row": "float", "dtype": "float32", "momentum": 0.6, "nesterov": True, "shrink": 0.97},
    {"row": "uint8", "dtype": "float64", "momentum": 0.9, "nesterov": True, "l1": 0.01, "l2": 0.02},
    {"row": "float", "dtype": "float64", "momentum": 0.8, "l1": 0.02, "shrink": 0.97},
    {"row": "uint8", "dtype": "float64", "l1": 0.02, "l2": 0.05, "shrink": 0.97},
]
UPDATED = [
    Case(sizes, batch, hidden, full=5, tail=tail, **how)
    for (sizes, batch, hidden, tail), how in product(SHAPES, UPDATES)
]
# The sign of a weight that is almost 0 may be another in short precision, but of a few it is not.
UPDATED.append(Case((12, 6, 4), 5, momentum=0.9, l1=0.01, dtype="float32"))
SMALL = Case((11, 9, 7, 4), 6, tail=1, dtype="float64", shrink=0.97)
BY_HIDDEN = [SMALL._replace(hidden=pair) for pair in pairwise([*HIDDEN, HIDDEN[0]])]
SHORT = SMALL._replace(batch_size=16, full=0, tail=5)
BY_COST = [SMALL._replace(cost=cost, output=output) for cost, output in PAIRS]

# A block is cut in every way that is tried, for rows that are read four bytes at a time and others;
# of the numbers of slices a few, the smallest and the largest among them.
TILED = [
    Case((inputs, 11, 3), 7, tail=3, dtype=dtype, shrink=0.97)
    for inputs, dtype in ((53, "float64"), (52, "float32"))
]
SLICE_WARPS = [{1, 3}, {2}]


def cuts():
    """Velocities are shared memory's for none, some or all of the quads of a tile."""
    for number, case in enumerate(TILED):
        for tiling in tilings(*case.sizes[:2]):
            largest = tiling.warps + tiling.unit_warps > 32
            if tiling.slice_warps in SLICE_WARPS[number] or largest:
                place = number + tiling.slice_warps + tiling.units.bit_length()
                buffers, rows = 1 + place % 2, -(-case.batch_size // tiling.warps)
                moving = case._replace(momentum=0.9, nesterov=bool(place % 2), shrink=1.0, l2=0.05)
                for each, shared in ((case, 0), (moving, place % (tiling.quads + 1))):
                    how = each.cut(tiling, buffers, 1 + place % rows, shared)
                    if how.shared_bytes <= ROOMY.shared_memory:
                        yield each, how


CUTS = list(cuts())
# What is looked at access by access: both numbers of buffers, packs of four numbers and of one, a
# warp's rows held and not, softmax, one layer and many
WATCHED = [
    *CUTS[:: len(CUTS) // 25],
    *(
        (case, case.fit())
        for case in (
            CASES[0],
            SMALL,
            BY_COST[-1],
            Case((20, 6, 5, 4, 3), 5),
            Case((8, 5), 3),
            *(Case((784, h, 10), m) for h, m in ((3, 1), (5, 1), (13, 1), (5, 7), (2, 25))),
        )
    ),
]


@pytest.fixture(autouse=True, scope="module")
def _compiled():
    build(
        [
            *(case.built for case in {*CASES, *UPDATED, *BY_HIDDEN, *BY_COST, SHORT}),
            *(partial(case.built, how) for case, how in CUTS),
            *(partial(case.built, how, watched=True) for case, how in WATCHED),
        ]
    )


def name(case):
    how = case.momentum, case.nesterov, case.l1
    return "-".join(map(str, [*case.sizes, case.row, case.dtype, *(how if any(how) else ())]))


def cut_name(given):
    if isinstance(given, Case):
        return name(given)
    return "-".join(map(str, (*given.tiling, given.buffers, given.held, given.shared_quads)))


@pytest.mark.parametrize("case", [*CASES, *UPDATED], ids=name)
def test_it_descends_as_numpy_does_in_any_order_of_threads(case):
    got = trained(case)
    assert_right(case, got)
    for order in ORDERS:
        for ours, theirs in zip(got, trained(case, order=order), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("case", UPDATED[2:5], ids=name)
def test_how_mini_batches_are_cut_into_calls_changes_no_bit(case):
    at_once, one_by_one = (
        assert_right(case._replace(spans=spans), trained(case._replace(spans=spans)))
        for spans in ((case.full + 1,), (1,))
    )
    assert at_once == one_by_one


@pytest.mark.parametrize("case", BY_HIDDEN, ids=lambda case: case.hidden[0])
def test_every_activation(case):
    assert_right(case, trained(case))


@pytest.mark.parametrize("case", BY_COST, ids=lambda case: f"{case.cost}-{case.output}")
def test_every_cost(case):
    assert_right(case, trained(case))


@pytest.mark.parametrize(("case", "how"), CUTS, ids=cut_name)
def test_every_way_to_cut_a_block(case, how):
    assert_right(case, trained(case, how, order=5))


@pytest.mark.parametrize(("case", "how"), WATCHED, ids=cut_name)
def test_no_thread_touches_what_another_is_at_or_no_one_gave(case, how):
    assert_right(case, trained(case, how, watched=True))


def test_a_run_may_be_shorter_than_a_mini_batch_or_empty():
    assert_right(SHORT, trained(SHORT))
    nothing = SHORT._replace(tail=0)
    before = problem(nothing)
    for got, expected in zip(trained(nothing), [*before.w, *before.b], strict=True):
        np.testing.assert_array_equal(got, expected)
