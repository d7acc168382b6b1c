"""How a report's figures look: for print and screen, light and dark; one colour, mark and line for each system."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lwddpm.evaluation.figures import tile
from lwddpm.report.published import NAMES, VARIANTS

WIDTH_IN, DPI = 7.0, 200
TEXT_PT, SMALL_PT = 9, 8
MARKS = {"lw_ddpm": "o", "ddpm": "s", "ddim": "D", "gan": "^", "wgan": "v", "lsgan": "P"}
DASHES = {"lw_ddpm": "-", "ddpm": "--", "ddim": ":", "gan": "-", "wgan": "--", "lsgan": "-."}


@dataclass(frozen=True)
class Theme:
    """Colours of paper, ink and systems; those of the systems differ in brightness too, and survive colour blindness.

    Attributes:
        real: of what real slices score.
    """

    name: str
    paper: str
    ink: str
    faint: str
    real: str
    systems: dict[str, str]
    cycle: tuple[str, ...]


LIGHT = Theme(
    "light",
    paper="#ffffff",
    ink="#1b1b1b",
    faint="#dcdcdc",
    real="#6b6b6b",
    systems={
        "lw_ddpm": "#0b5fa5",
        "ddpm": "#d1600b",
        "ddim": "#7a3e9d",
        "gan": "#2a7d4f",
        "wgan": "#8a6d00",
        "lsgan": "#b3253a",
    },
    cycle=("#0b5fa5", "#d1600b", "#2a7d4f", "#7a3e9d"),
)
DARK = Theme(
    "dark",
    paper="#15181c",
    ink="#e6e6e6",
    faint="#3a3f46",
    real="#a8a8a8",
    systems={
        "lw_ddpm": "#6cb6ff",
        "ddpm": "#ff9d57",
        "ddim": "#cf9bee",
        "gan": "#63cf97",
        "wgan": "#e0c04a",
        "lsgan": "#ff7f8e",
    },
    cycle=("#6cb6ff", "#ff9d57", "#63cf97", "#cf9bee"),
)
THEMES = (LIGHT, DARK)


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    return Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")


def render(draw: Callable[[Theme], Figure], theme: Theme, ending: str = "png") -> bytes:
    """The file of a figure; the same bytes for the same data and versions."""
    settings: Any = {
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.ink,
        "axes.facecolor": theme.paper,
        "axes.titlesize": TEXT_PT,
        "axes.labelsize": TEXT_PT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.faint,
        "grid.linewidth": 0.6,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "xtick.labelsize": SMALL_PT,
        "ytick.labelsize": SMALL_PT,
        "legend.fontsize": SMALL_PT,
        "legend.frameon": False,
        "figure.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "pdf.fonttype": 42,
    }
    stream = io.BytesIO()
    with matplotlib.rc_context(settings):
        metadata = {"pdf": {"CreationDate": None, "ModDate": None}, "png": {"Software": None}}[ending]
        draw(theme).savefig(stream, format=ending, metadata=metadata)
    return stream.getvalue()


def display_name(label: str) -> str:
    """A system's or sampler's or variant's name as people write it."""
    samplers = {"dpmsolver++": "DPM-Solver++", "sde-dpmsolver++": "SDE-DPM-Solver++"}
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
    pitch = size + 2
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
