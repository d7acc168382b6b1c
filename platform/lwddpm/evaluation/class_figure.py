"""The confusion of classes, of drawings beside real slices, as one figure."""

import numpy as np
from matplotlib.figure import Figure

from lwddpm.evaluation.figure_style import TEXT_PT, TITLE_PT, new_figure
from lwddpm.evaluation.result import Confusion


def confusion_matrices(confusion: Confusion) -> Figure:
    """Rows are what was asked for (or is real), columns what a classifier of real slices says; shares of a row."""
    figure = new_figure(0.5 + 0.32 * len(confusion.classes))
    for axes, matrix, title in zip(
        figure.subplots(1, 2, sharey=True),
        (confusion.generated, confusion.real),
        ("synthetic, asked for", "real, not seen"),
        strict=True,
    ):
        shares = np.array(matrix)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            color = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=TEXT_PT, color=color)
        axes.set_title(title, fontsize=TITLE_PT)
        names = [name.replace("_", " ") for name in confusion.classes]
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=TEXT_PT)
        axes.set_yticks(range(len(names)), names, fontsize=TEXT_PT)
        axes.set_xlabel("comes out as", fontsize=TEXT_PT)
    return figure
