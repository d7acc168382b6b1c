"""The confusion of classes, of drawings beside real slices, as one figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lwddpm.evaluation.figure_style import SMALL_PT, TEXT_PT, TITLE_PT, new_figure
from lwddpm.evaluation.result import Confusion

WRITTEN = 10  # classes at most whose shares are written out
_CELL_IN, _LABELS_IN = 0.5, 1.3  # of a class, and of all that stands above and below
_TALLEST_IN = 7.0
_LETTER, _PT_PER_IN = 0.62, 72  # how wide a letter is for its size, with room beside the word


def confusion_matrices(confusion: Confusion) -> Figure:
    """Rows are what was asked for (or is real), columns what a classifier of real slices says; shares of a row."""
    figure = new_figure(min(_LABELS_IN + _CELL_IN * len(confusion.classes), _TALLEST_IN))
    names = [name.replace("_", " ") for name in confusion.classes]
    for axes, matrix, title, rows in zip(
        figure.subplots(1, 2, sharey=True),
        (confusion.generated, confusion.real),
        ("synthetic", "real, not seen by the judge"),
        ("asked for", "really"),
        strict=True,
    ):
        draw_matrix(axes, np.array(matrix), names)
        axes.set_title(title, fontsize=TITLE_PT)
        axes.set_xlabel("comes out as", fontsize=TEXT_PT)
        axes.set_ylabel(rows, fontsize=TEXT_PT)
    return figure


def draw_matrix(axes: Axes, shares: np.ndarray, names: Sequence[str]) -> None:
    """One matrix of shares [classes, classes], with the names of the classes; written out where there are few."""
    count = len(names)
    small = SMALL_PT if count <= WRITTEN else SMALL_PT / 2
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares) if count <= WRITTEN else ():
        color = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=SMALL_PT, color=color)
    words = [word for name in names for word in name.split(" ")]
    cell_in = axes.get_window_extent().width / axes.figure.dpi / count
    if max(map(len, words)) * small * _LETTER / _PT_PER_IN <= cell_in:
        axes.set_xticks(range(count), [name.replace(" ", "\n") for name in names], fontsize=small)
    else:
        axes.set_xticks(range(count), names, fontsize=small, rotation=90)
    axes.set_yticks(range(count), names, fontsize=small)
    axes.tick_params(length=0)
    axes.grid(visible=False)
