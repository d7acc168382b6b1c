"""What the figures of a report share: one mark, line and name for each system, and rows of slices."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from lwddpm.evaluation.figure_style import WIDTH_IN, Theme
from lwddpm.evaluation.figures import GAP, tile
from lwddpm.report.published import NAMES, VARIANTS

MARKS = {
    "lw_ddpm": "o",
    "ddpm": "s",
    "ddim": "D",
    "gan": "^",
    "wgan": "v",
    "lsgan": "P",
    "gaussian": "X",
    "recipe": "*",
}
DASHES = {"lw_ddpm": "-", "ddpm": "--", "ddim": ":", "gan": "-", "wgan": "--", "lsgan": "-.", "recipe": "-."}


def display_name(label: str) -> str:
    """A system's or sampler's or variant's name as people write it."""
    samplers = {"dpmsolver++": "DPM-Solver++", "sde-dpmsolver++": "SDE-DPM-Solver++", "unipc": "UniPC", "heun": "Heun"}
    return (NAMES | VARIANTS | samplers).get(label, label)


def rows_of_slices(
    axes: Axes, rows: Sequence[tuple[str, np.ndarray]], theme: Theme, columns: Sequence[str] = (), group: int = 1
) -> None:
    """Slices in labelled rows, grey levels 0 to 255.

    Args:
        rows: label and uint8 [N, S, S]; shorter rows are filled up with paper.
        columns: labels above, one for every `group` slices.
    """
    num, size = max(len(images) for _, images in rows), rows[0][1].shape[-1]
    cells = np.concatenate([_filled(images, num) for _, images in rows])
    used = np.concatenate([_filled(np.full_like(images, 1), num) for _, images in rows])
    grid = tile(cells, num).astype(float)[..., None] / 255 * np.ones(3)
    grid[tile(used, num) != 1] = to_rgb(theme.paper)
    axes.imshow(grid, interpolation="nearest")
    pitch = size + GAP
    axes.set_yticks([row * pitch + size / 2 for row in range(len(rows))], [label for label, _ in rows])
    centres = [(column * group + (group - 1) / 2) * pitch + size / 2 for column in range(len(columns))]
    axes.set_xticks(centres, columns)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def _filled(images: np.ndarray, num: int) -> np.ndarray:
    return np.concatenate([images, np.zeros((num - len(images), *images.shape[1:]), images.dtype)])


def height_of(rows: int, columns: int, labels_in: float = 0.9) -> float:
    """Height in inches of rows of square slices across the page, labels beside them."""
    return (WIDTH_IN - labels_in) / columns * rows
