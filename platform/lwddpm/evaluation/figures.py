"""Figures of a run: slices, samples emerging from noise, losses.

Slices are shown with one grey scale, 0 to 255, never stretched one by one.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lwddpm.evaluation.figure_style import (
    LIGHT,
    TEXT_PT,
    TITLE_PT,
    WIDTH_IN,
    log_scale_if_wide,
    new_figure,
    style_axes,
)

_BINS = 32
GAP = 2  # white pixels between tiles
Curve = Sequence[tuple[float, float]]


def tile(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Lay slices out in a grid, pixel for pixel, for a lossless PNG.

    Args:
        images: uint8 [N, S, S], N >= 1, filled row by row.
        columns: default: the squarest grid that is at least as wide as high.

    Returns:
        uint8 [H, W]; gaps and empty places are white.

    Raises:
        ValueError: no images, or not uint8 [N, S, S].
    """
    if images.ndim != 3 or len(images) == 0 or images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 [N >= 1, S, S], got {images.dtype} {images.shape}")
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height, width = images.shape[1:]
    grid = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + GAP), index % columns * (width + GAP)
        grid[top : top + height, left : left + width] = image
    return grid


def image_grid(images: np.ndarray, title: str, columns: int | None = None) -> Figure:
    """Slices, uint8 [N, S, S], in a grid under a title such as "Epoch 40"; n and the size are added."""
    grid = tile(images, columns)
    figure = new_figure(WIDTH_IN * grid.shape[0] / grid.shape[1] + 0.22)
    axes = figure.subplots()
    _show(axes, grid)
    axes.set_title(f"{title}  ({_size(images)})", fontsize=TITLE_PT)
    return figure


def real_beside_synthetic(real: np.ndarray, generated: np.ndarray, *, simulated: bool = False, rows: int = 6) -> Figure:
    """Two square grids of equally many slices, unselected: the first ones given.

    Args:
        real, generated: uint8 [N, S, S]; grids have as many rows as both can fill, at most `rows`.
        simulated: the dataset itself is a phantom, which the figure then says.
    """
    rows = max(1, min(rows, math.isqrt(min(len(real), len(generated)))))
    shown = rows * rows
    figure = new_figure(WIDTH_IN / 2 + 0.42)
    figure.set_layout_engine("constrained", wspace=0.04)
    left, right = figure.subplots(1, 2)
    for axes, images, title in (
        (left, real, "Simulated phantoms" if simulated else "Real"),
        (right, generated, "Synthetic, learnt from phantoms" if simulated else "Synthetic"),
    ):
        _show(axes, tile(images[:shown], rows))
        axes.set_title(f"{title}\n{_size(images[:shown])}", fontsize=TITLE_PT)
    return figure


def denoising_strip(frames: np.ndarray, timesteps: Sequence[int]) -> Figure:
    """How samples emerge: a row for each sample, a column for each timestep.

    Args:
        frames: uint8 [N, F, S, S], from noise to slice.
        timesteps: F noising steps still in the frames of a column, falling to 0.

    Raises:
        ValueError: the numbers of frames and timesteps differ.
    """
    num_samples, num_frames, size = frames.shape[:3]
    if num_frames != len(timesteps):
        raise ValueError(f"every frame needs its timestep, got {num_frames} frames and {len(timesteps)} timesteps")
    grid = tile(frames.reshape(-1, size, size), num_frames)
    figure = new_figure(WIDTH_IN * grid.shape[0] / grid.shape[1] + 0.3)
    axes = figure.subplots()
    _show(axes, grid)
    centres = np.arange(max(num_samples, num_frames)) * (size + GAP) + (size - 1) / 2
    axes.set_xticks(centres[:num_frames], [f"t = {t}" for t in timesteps], fontsize=TEXT_PT)
    axes.set_yticks(centres[:num_samples], [str(i + 1) for i in range(num_samples)], fontsize=TEXT_PT)
    axes.tick_params(length=0)
    axes.set_xlabel("noising steps left", fontsize=TEXT_PT)
    axes.set_ylabel("sample", fontsize=TEXT_PT)
    return figure


def intensity_histograms(real: np.ndarray, generated: np.ndarray, *, simulated: bool = False) -> Figure:
    """How bright pixels and slices are and how much contrast slices have, real against generated: shares of each set.

    Args:
        real, generated: uint8 [N, S, S] and [M, S, S].
        simulated: the dataset itself is a phantom, which the figure then says.
    """
    names = ("phantoms" if simulated else "real", "generated")
    figure = new_figure(WIDTH_IN / 2.6)
    panels = figure.subplots(1, 3)
    flat = [images.reshape(len(images), -1) for images in (real, generated)]
    quantities = (
        ("intensity of a pixel", [values.ravel() for values in flat], True),
        ("mean of a slice", [values.mean(1) for values in flat], False),
        ("standard deviation of a slice", [values.std(1) for values in flat], False),
    )
    for axes, (label, (of_real, of_generated), logarithmic) in zip(panels, quantities, strict=True):
        low, high = (0, 255) if logarithmic else (of_real.min(), of_real.max())
        edges = np.linspace(min(low, of_generated.min()), max(high, of_generated.max()) + 1e-6, _BINS + 1)
        for values, color, name, filled in (
            (of_real, LIGHT.faint, names[0], True),
            (of_generated, LIGHT.cycle[0], names[1], False),
        ):
            shares = np.histogram(values, edges)[0] / len(values)
            axes.stairs(shares, edges, color=color, fill=filled, linewidth=1.2, label=name)
        if logarithmic:
            axes.set_yscale("log")
        axes.set_xlabel(label)
        style_axes(axes)
    panels[0].set_ylabel("share")
    panels[-1].legend(
        fontsize=TEXT_PT, frameon=False, title=f"n = {len(real)}, {len(generated)}", title_fontsize=TEXT_PT
    )
    return figure


def loss_curve(train: Curve, validation: Curve = (), label: str = "loss") -> Figure:
    """Training and validation loss.

    Args:
        train, validation: (optimizer step, loss) in order of steps; either may be empty.
        label: of the vertical axis. It is logarithmic where the losses span more than a decade.
    """
    figure, axes = _loss_axes(label)
    drawn: list[np.ndarray] = []
    if len(train):
        drawn.append(_draw_losses(axes, train, "training", 0))
    if len(validation):
        steps, losses = np.array(validation, dtype=float).T
        axes.plot(steps, losses, color=LIGHT.cycle[1], linewidth=1.2, marker="o", markersize=3.5, label="validation")
        drawn.append(losses)
    if drawn:
        log_scale_if_wide(axes, np.concatenate(drawn), span=10)
        axes.legend(fontsize=TEXT_PT, frameon=False)
    return figure


def adversarial_losses(generator: Curve, discriminator: Curve, family: str) -> Figure:
    """Losses of a GAN's two sides, on a linear axis: a Wasserstein loss may be negative.

    Args:
        generator, discriminator: (optimizer step, loss) in order of steps; either may be empty.
        family: names the loss.
    """
    figure, axes = _loss_axes(f"{family} loss")
    for index, (curve, name) in enumerate(((generator, "generator"), (discriminator, "discriminator"))):
        if len(curve):
            _draw_losses(axes, curve, name, index)
    if axes.lines:
        axes.legend(fontsize=TEXT_PT, frameon=False)
    return figure


def _loss_axes(label: str) -> tuple[Figure, Axes]:
    figure = new_figure(WIDTH_IN / 2)
    axes = figure.subplots()
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(label)
    style_axes(axes)
    return figure, axes


def _draw_losses(axes: Axes, curve: Curve, name: str, color_index: int) -> np.ndarray:
    """Losses as logged, pale, and their moving mean; returns the losses."""
    color, pale = LIGHT.cycle[color_index], LIGHT.pale[color_index]
    steps, losses = np.array(curve, dtype=float).T
    smooth, window = _smoothed(losses)
    if window > 1:
        axes.plot(steps, losses, color=pale, linewidth=0.8, label=f"{name}, as logged")
    axes.plot(
        steps, smooth, color=color, linewidth=1.6, label=f"{name}, mean of {window} points" if window > 1 else name
    )
    return losses


def _show(axes: Axes, grid: np.ndarray) -> None:
    axes.imshow(grid, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _size(images: np.ndarray) -> str:
    return f"n = {len(images)}, {images.shape[2]} x {images.shape[1]} px"


def _smoothed(losses: np.ndarray) -> tuple[np.ndarray, int]:
    """Centred moving mean over about 1/20 of the points, fewer at the ends; the curve does not lag."""
    window = len(losses) // 20 // 2 * 2 + 1
    ones = np.ones(window)
    return np.convolve(losses, ones, "same") / np.convolve(np.ones_like(losses), ones, "same"), window
