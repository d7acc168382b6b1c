"""How the platform's figures look: sizes, colours, axes; for screen and print, light and dark.

Matplotlib's object API throughout: no display is needed, and nothing global is changed for longer than a drawing.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lwddpm.marks.mark import FIGURE

WIDTH_IN, DPI = 7.0, 200  # the width of a printed page's text
TITLE_PT, TEXT_PT, SMALL_PT = 10, 9, 8


@dataclass(frozen=True)
class Theme:
    """Colours; those of the systems differ in brightness too, so that they differ for the colour-blind.

    Attributes:
        faint: of grids, and of what is in the background.
        real: of what real slices score.
        systems: by name of the system.
        cycle: of other curves, in order.
        pale: the first two of `cycle`, for the raw values behind a smoothed curve.
    """

    name: str
    paper: str
    ink: str
    faint: str
    real: str
    systems: dict[str, str]
    cycle: tuple[str, ...]
    pale: tuple[str, str]


LIGHT = Theme(
    "light",
    paper="#ffffff",
    ink="#1b1b1b",
    faint="#dcdcdc",
    real="#6b6b6b",
    systems={
        "lw_ddpm": "#0b5fa5",
        "recipe": "#008a9a",
        "ddpm": "#d1600b",
        "ddim": "#7a3e9d",
        "gan": "#2a7d4f",
        "wgan": "#8a6d00",
        "lsgan": "#b3253a",
        "gaussian": "#3d3d3d",
    },
    cycle=("#0b5fa5", "#d1600b", "#2a7d4f", "#7a3e9d"),
    pale=("#b9cfe6", "#f0cdb4"),
)
DARK = Theme(
    "dark",
    paper="#15181c",
    ink="#e6e6e6",
    faint="#3a3f46",
    real="#a8a8a8",
    systems={
        "lw_ddpm": "#6cb6ff",
        "recipe": "#4fd8e0",
        "ddpm": "#ff9d57",
        "ddim": "#cf9bee",
        "gan": "#63cf97",
        "wgan": "#e0c04a",
        "lsgan": "#ff7f8e",
        "gaussian": "#cfcfcf",
    },
    cycle=("#6cb6ff", "#ff9d57", "#63cf97", "#cf9bee"),
    pale=("#2f4d68", "#69482f"),
)
THEMES = (LIGHT, DARK)


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """A figure across the page, whose parts do not overlap."""
    return Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")


def render(draw: Callable[[Theme], Figure], theme: Theme, ending: str = "png") -> bytes:
    """The file of a figure in a theme; the same bytes for the same data and versions."""
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
    metadata = {
        "pdf": {"CreationDate": None, "ModDate": None, "Subject": FIGURE},
        "png": {"Software": None, "Description": FIGURE},
    }[ending]
    stream = io.BytesIO()
    with matplotlib.rc_context(settings):
        draw(theme).savefig(stream, format=ending, metadata=metadata)
    return stream.getvalue()


def style_axes(axes: Axes) -> None:
    """The look of `render` for axes of a figure that others save: set on the axes, where it stays."""
    axes.tick_params(which="both", labelsize=SMALL_PT)
    axes.grid(which="major", color=LIGHT.faint, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.label.set_fontsize(TEXT_PT)
    axes.yaxis.label.set_fontsize(TEXT_PT)
    axes.title.set_fontsize(TITLE_PT)


def log_scale_if_wide(axes: Axes, values: np.ndarray, span: float) -> None:
    """A logarithmic y axis, with ticks at 1, 2 and 5, where positive values span more than a factor.

    Args:
        values: all that is drawn; what is not finite does not count.
    """
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > span * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
