import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lwddpm.evaluation.figures import (
    GAP,
    adversarial_losses,
    denoising_strip,
    image_grid,
    intensity_histograms,
    loss_curve,
    real_beside_synthetic,
    tile,
)


@pytest.fixture
def slices():
    return np.random.default_rng(0).integers(0, 255, (7, 16, 16), dtype=np.uint8)


def drawn(figure):
    """The figure as pixels; also shows that it draws without a display."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_tiles_are_the_slices_pixel_for_pixel(slices):
    grid = tile(slices, columns=3)
    assert grid.shape == (3 * 16 + 2 * GAP, 3 * 16 + 2 * GAP)
    for index, image in enumerate(slices):
        row, column = divmod(index, 3)
        top, left = row * (16 + GAP), column * (16 + GAP)
        assert np.array_equal(grid[top : top + 16, left : left + 16], image)
    assert (grid[-16:, 16 + GAP :] == 255).all()
    assert (grid[16 : 16 + GAP] == 255).all()


@pytest.mark.parametrize(("num", "rows", "columns"), [(1, 1, 1), (4, 2, 2), (6, 2, 3), (64, 8, 8)])
def test_tiles_are_as_square_as_can_be(num, rows, columns):
    height, width = tile(np.zeros((num, 16, 16), np.uint8)).shape
    assert (height + GAP, width + GAP) == (rows * (16 + GAP), columns * (16 + GAP))


@pytest.mark.parametrize(
    "images", [np.zeros((0, 16, 16), np.uint8), np.zeros((2, 16, 16)), np.zeros((16, 16), np.uint8)]
)
def test_what_cannot_be_tiled_is_refused(images):
    with pytest.raises(ValueError, match="uint8"):
        tile(images)


def test_grid_names_its_epoch_number_and_size(slices):
    figure = image_grid(slices, "Epoch 40")
    assert titles(figure) == ["Epoch 40  (n = 7, 16 x 16 px)"]
    assert drawn(figure).min() == 0


def test_grey_levels_are_not_stretched():
    pixels = drawn(image_grid(np.full((1, 32, 32), 100, np.uint8), ""))
    assert (pixels[pixels.shape[0] // 2, pixels.shape[1] // 2, :3] == 100).all()


def test_both_sides_show_equally_many_slices(slices):
    figure = real_beside_synthetic(slices, slices[:5])
    assert [title.splitlines() for title in titles(figure)] == [
        ["Real", "n = 4, 16 x 16 px"],
        ["Synthetic", "n = 4, 16 x 16 px"],
    ]
    left, right = (axes.images[0].get_array() for axes in figure.axes)
    assert np.array_equal(left, tile(slices[:4], 2))
    assert np.array_equal(right, left)


def test_simulated_data_is_never_called_real(slices):
    figure = real_beside_synthetic(slices, slices, simulated=True)
    assert not any("Real" in title for title in titles(figure))
    assert all("phantoms" in title for title in titles(figure))


def test_strip_labels_every_column_with_its_timestep(slices):
    figure = denoising_strip(np.stack([slices[:3], slices[3:6]]), [1000, 500, 0])
    drawn(figure)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["t = 1000", "t = 500", "t = 0"]
    assert np.array_equal(axes.images[0].get_array(), tile(slices[:6], 3))
    with pytest.raises(ValueError, match="3 frames and 2"):
        denoising_strip(np.stack([slices[:3]]), [1, 0])


def test_histograms_are_shares_of_each_set(slices):
    brighter = np.minimum(slices[:4].astype(int) + 60, 255).astype(np.uint8)
    figure = intensity_histograms(slices, brighter)
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "intensity of a pixel",
        "mean of a slice",
        "standard deviation of a slice",
    ]
    for axes in figure.axes:
        for stairs in axes.patches:
            assert stairs.get_data().values.sum() == pytest.approx(1)
    means = [np.average(s.get_data().edges[:-1], weights=s.get_data().values) for s in figure.axes[1].patches]
    assert means[1] > means[0] + 30
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == ["real", "generated"]
    phantoms = intensity_histograms(slices, slices, simulated=True)
    assert phantoms.axes[-1].get_legend().get_texts()[0].get_text() == "phantoms"


def test_loss_curve_smooths_without_lag_and_keeps_constants():
    steps = range(20, 4020, 20)
    figure = loss_curve([(s, 0.5) for s in steps], [(400, 0.6), (800, 0.4)], "smooth L1")
    drawn(figure)
    (axes,) = figure.axes
    raw, smooth, validation = axes.lines
    assert np.allclose(smooth.get_ydata(), 0.5)
    assert np.array_equal(smooth.get_xdata(), raw.get_xdata())
    assert list(validation.get_ydata()) == [0.6, 0.4]
    assert (axes.get_ylabel(), axes.get_xlabel(), axes.get_yscale()) == ("smooth L1", "optimizer steps", "linear")
    symmetric = np.abs(np.arange(-100.0, 101))
    (axes,) = loss_curve(list(enumerate(symmetric))).axes
    assert np.argmin(axes.lines[1].get_ydata()) == 100


def test_loss_over_more_than_a_decade_is_logarithmic():
    figure = loss_curve([(s, 1 / s) for s in range(1, 50)])
    drawn(figure)
    assert figure.axes[0].get_yscale() == "log"


def test_both_sides_of_a_gan_are_drawn_and_may_be_negative():
    steps = range(1, 101)
    figure = adversarial_losses([(s, -0.1 * s) for s in steps], [(s, 5.0) for s in steps], "wgan")
    drawn(figure)
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [name.partition(",")[0] for name in names] == ["generator"] * 2 + ["discriminator"] * 2
    assert axes.get_yscale() == "linear"
    assert np.allclose(axes.lines[3].get_ydata(), 5)
    assert axes.lines[0].get_color() != axes.lines[2].get_color()
    drawn(adversarial_losses([], [], "gan"))


@pytest.mark.parametrize("losses", [[], [(1, 0.5)], [(1, 0.0), (2, float("nan"))]])
def test_short_and_broken_histories_are_drawn_too(losses):
    drawn(loss_curve(losses))


def test_figures_need_no_pyplot():
    code = "import sys, lwddpm.evaluation.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
