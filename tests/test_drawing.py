"""The pictures: of the right size for every network, legible, and the same each time."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib, the extra 'plot', is not installed")

import fastnn
from fastnn import drawing, inspecting
from fastnn.inspecting import Mistake

GENERATOR = np.random.default_rng(0)
NORMAL = GENERATOR.normal


def wrong(n):
    return [Mistake(i, 1, 2, 0.9) for i in range(n)]


def epoch(number, accuracy, **more):
    return fastnn.Epoch(number, 1.0, 60_000.0, 2.0 / number, accuracy, **more)


FIGURES = {
    "weights": lambda n: drawing.weights(NORMAL(size=(30, n))),
    "activations": lambda n: drawing.activations(
        [NORMAL(size=k) for k in (n, 30, 7, 10)], ["relu", "tanh", "softmax"], 3
    ),
    "confusion": lambda n: drawing.confusion(GENERATOR.integers(0, 9, (n, n))),
    "mistakes": lambda n: drawing.mistakes(NORMAL(size=(30, n)), wrong(30)),
    "no mistakes": lambda n: drawing.mistakes(NORMAL(size=(30, n)), []),
    "saliency": lambda n: drawing.saliency(NORMAL(size=n), NORMAL(size=n), 1, 2),
    "sensitivity": lambda n: drawing.sensitivity([NORMAL(size=(30, n)), NORMAL(size=(10, 30))]),
    "no slopes": lambda n: drawing.sensitivity([np.zeros((30, n)), np.zeros((10, 30))]),
    "curves": lambda n: drawing.curves([epoch(number, 0.5) for number in range(1, n + 1)]),
    "noise": lambda n: drawing.noise(
        NORMAL(size=(9, n)), NORMAL(size=(9, 10)), NORMAL(size=(7, 10))
    ),
}


@pytest.mark.parametrize("n", [1, 12, 64])
@pytest.mark.parametrize("name", FIGURES)
def test_it_is_a_png_of_a_sane_size_that_says_whose_it_is(name, n):
    content = drawing.png(FIGURES[name](n))
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert drawing.MARK in content[:1024]
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert 200 < height < 2400
    assert 400 < width < 2400


def test_the_same_numbers_give_the_same_bytes():
    w = NORMAL(size=(4, 9))
    assert drawing.png(drawing.weights(w)) == drawing.png(drawing.weights(w))


def images(figure):
    return [image for axes in figure.axes for image in axes.images]


@pytest.mark.parametrize("units", [1, 30, 100, 800])
def test_weights_are_images_on_one_scale_around_zero(units):
    w = NORMAL(size=(units, 12 * 12)).astype(np.float32)
    figure = drawing.weights(w)
    shown = images(figure)
    assert len(shown) == min(units, 100)
    for unit, image in enumerate(shown):
        np.testing.assert_array_equal(image.get_array(), w[unit].reshape(12, 12))
    ((low, high),) = {image.get_clim() for image in shown}
    assert low == -high < 0
    what = "units 0 to 99 of 800" if units == 800 else f"{units} units"
    assert figure.get_supxlabel().startswith(what)


def test_what_is_no_square_is_one_row_of_stripes():
    (image,) = images(drawing.weights(NORMAL(size=(1, 12))))
    assert image.get_array().shape == (1, 12)


def test_activations_have_a_cell_a_unit_and_the_range_of_their_function():
    layers = [NORMAL(size=9), np.linspace(0, 1, 7), np.linspace(-0.5, 3, 6), np.eye(4)[2]]
    figure = drawing.activations(layers, ["sigmoid", "leaky-relu", "softmax"], 1)
    _, sigmoid, leaky, *_ = images(figure)
    cells = np.ma.masked_invalid(sigmoid.get_array())
    np.testing.assert_array_equal(cells.compressed(), layers[1])
    assert cells.shape == (3, 3)
    assert (sigmoid.get_clim(), leaky.get_clim()) == ((0, 1), (-3, 3))
    assert "class 1, taken for 2" in figure.get_suptitle()


def test_the_numbers_of_a_confusion_matrix_stand_in_it():
    matrix = np.array([[90, 2, 0], [5, 70, 0], [0, 3, 80]])
    (axes, _) = drawing.confusion(matrix).axes
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {
        (0, 0): "90", (1, 0): "2", (0, 1): "5", (1, 1): "70", (1, 2): "3", (2, 2): "80",
    }  # fmt: skip


def test_no_more_mistakes_are_shown_than_have_room():
    x = NORMAL(size=(30, 16))
    figure = drawing.mistakes(x, wrong(30))
    assert len(images(figure)) == 20
    assert figure.get_supxlabel().startswith("20 of 30")


def test_noise_is_compared_with_samples_by_how_often_each_is_sure():
    outputs = np.array([[0.95, 0.1], [0.2, 0.3]])
    figure = drawing.noise(NORMAL(size=(2, 9)), outputs, np.full((5, 2), inspecting.SURE + 0.05))
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    written = [text.get_text() for text in legend.texts]
    assert written == ["test samples: above 0.9 in 100.0 %", "noise: above 0.9 in 50.0 %"]


def test_curves_have_a_line_for_each_set_that_is_known():
    cost, accuracy = drawing.curves([epoch(1, 0.5), epoch(2, 0.75, test_cost=3.0)]).axes
    assert [line.get_label() for line in cost.lines] == ["training set", "test set"]
    np.testing.assert_array_equal(cost.lines[1].get_xydata(), [[2, 3]])
    (line,) = accuracy.lines
    np.testing.assert_array_equal(line.get_xydata(), [[1, 50], [2, 75]])


def test_pyplot_is_not_asked_for():
    import subprocess
    import sys

    program = (
        "import sys, numpy as np; from fastnn import drawing; "
        "drawing.png(drawing.weights(np.ones((2, 4)))); print('matplotlib.pyplot' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False\n"
