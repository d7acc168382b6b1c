"""Figures of edits: what was given beside what a model drew, pixel for pixel, in one grey scale."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lwddpm.evaluation.figure_style import LIGHT, TEXT_PT, TITLE_PT, WIDTH_IN, new_figure

FIGURE_FILE = "figure.png"  # beside the slices: shows several, and is none
_COLUMNS = 8
_MOST_ROWS = 2  # of results


def inpainting_figure(source: np.ndarray, mask: np.ndarray, images: np.ndarray) -> Figure:
    """The source, the region of the mask outlined, how much the results differ, and the first results.

    Args:
        source: uint8 [S, S].
        mask: True where drawn anew, bool [S, S].
        images: results, uint8 [N, S, S].
    """
    shown = images[: _COLUMNS * _MOST_ROWS - 3]
    figure, panels = _panels(len(shown) + 3)
    for axes, title in zip(panels, ("source", "region", "spread"), strict=False):
        axes.set_title(title, fontsize=TEXT_PT)
    _show(panels[0], source)
    _show(panels[1], source)
    spread = images.astype(float).std(0)
    panels[2].imshow(spread, cmap="magma", vmin=0, vmax=max(float(spread.max()), 1.0))
    for axes in (panels[1], panels[2]):
        _outline(axes, mask)
    for number, (axes, image) in enumerate(zip(panels[3:], shown, strict=False)):
        _show(axes, image)
        axes.set_title(f"{number}", fontsize=TEXT_PT)
    figure.suptitle(_title("Region drawn anew", images), fontsize=TITLE_PT)
    return figure


def variations_figure(source: np.ndarray, by_strength: Mapping[float, np.ndarray]) -> Figure:
    """A row for each strength: the source, then its first variations.

    Args:
        source: uint8 [S, S].
        by_strength: uint8 [N, S, S] of each strength.
    """
    num = min(_COLUMNS - 1, max(len(images) for images in by_strength.values()))
    figure, panels = _panels(len(by_strength) * (num + 1), num + 1, title_in=0.08)
    for row, (strength, images) in enumerate(sorted(by_strength.items())):
        first, *others = panels[row * (num + 1) : (row + 1) * (num + 1)]
        _show(first, source)
        first.set_ylabel(f"strength {strength:g}", fontsize=TEXT_PT)
        for axes, image in zip(others, images, strict=False):
            _show(axes, image)
    panels[0].set_title("source", fontsize=TEXT_PT)
    for number, axes in enumerate(panels[1 : num + 1]):
        axes.set_title(f"{number}", fontsize=TEXT_PT)
    figure.suptitle(_title("Variations", next(iter(by_strength.values()))), fontsize=TITLE_PT)
    return figure


def way_figure(frames: np.ndarray, seeds: tuple[int, int]) -> Figure:
    """A strip of the frames between two drawings, in rows of eight, uint8 [N, S, S]."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), 4 * _COLUMNS)).round().astype(int))
    figure, panels = _panels(len(chosen))
    for axes, index in zip(panels, chosen, strict=False):
        _show(axes, frames[index])
        axes.set_title(f"{index / (len(frames) - 1):.2f}", fontsize=TEXT_PT)
    figure.suptitle(_title(f"From seed {seeds[0]} (0) to seed {seeds[1]} (1)", frames), fontsize=TITLE_PT)
    return figure


def _panels(num: int, columns: int = _COLUMNS, title_in: float = 0.22) -> tuple[Figure, list[Axes]]:
    """Panels in rows, those that are left over empty; `title_in`: inches for the title of each row."""
    columns = min(columns, num)
    rows = -(-num // columns)
    side = WIDTH_IN / _COLUMNS
    figure = new_figure(rows * (side + title_in) + 0.3, max(columns * side, WIDTH_IN / 2))
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.grid(False)
    return figure, panels


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)


def _outline(axes: Axes, mask: np.ndarray) -> None:
    """The edges between pixels inside and outside of the mask."""
    height, width = mask.shape
    padded = np.pad(mask, 1)
    down = padded[1:-1, 1:] != padded[1:-1, :-1]  # edges to the left of each column
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]
    for y, x in zip(*np.nonzero(down), strict=True):
        axes.plot([x - 0.5] * 2, [y - 0.5, y + 0.5], color=LIGHT.cycle[1], linewidth=1)
    for y, x in zip(*np.nonzero(across), strict=True):
        axes.plot([x - 0.5, x + 0.5], [y - 0.5] * 2, color=LIGHT.cycle[1], linewidth=1)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _title(what: str, images: np.ndarray) -> str:
    return f"{what}  (n = {len(images)}, {images.shape[2]} x {images.shape[1]} px)"
