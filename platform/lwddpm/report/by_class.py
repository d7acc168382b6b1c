"""Figures of systems that are told the class: a grid of slices by class, and what comes out as what."""

import numpy as np
from matplotlib.figure import Figure

from lwddpm.evaluation.class_figure import WRITTEN, draw_matrix
from lwddpm.evaluation.figure_style import SMALL_PT, Theme, new_figure
from lwddpm.evaluation.figures import GAP
from lwddpm.report import results
from lwddpm.report.data import ReportData
from lwddpm.report.style import display_name, height_of, rows_of_slices

_MOST_SLICES = 20  # in a row
_IN_A_ROW, _CELL_IN, _LABELS_IN = 3, 0.34, 0.75


def grid(data: ReportData, theme: Theme) -> Figure:
    """A row for each system, its columns by class; real slices above."""
    systems = list(dict.fromkeys(name.split("/")[1] for name in data.images if name.startswith("asked/")))
    labels = list(dict.fromkeys(name.split("/", 2)[2] for name in data.images if name.startswith("asked/")))
    fewest = min(len(images) for name, images in data.images.items() if name.startswith("asked/"))
    each = max(1, min(fewest, _MOST_SLICES // len(labels)))
    real = "simulated" if data.report.simulated else "real"
    sources = [(real, "class/{}"), *((display_name(name), f"asked/{name}/{{}}") for name in systems)]
    size = next(images for name, images in data.images.items() if name.startswith("asked/")).shape[-1]
    rows = [
        (title, np.concatenate([_first(data.images.get(place.format(label)), each, size) for label in labels]))
        for title, place in sources
    ]
    figure = new_figure(height_of(len(rows), each * len(labels), 1.0) + 0.45)
    axes = figure.subplots()
    rows_of_slices(axes, rows, theme, [label.replace("_", "\n") for label in labels], group=each)
    for column in range(1, len(labels)):
        axes.axvline(column * each * (size + GAP) - 1.5, color=theme.ink, linewidth=0.8)
    return figure


def _first(images: np.ndarray | None, count: int, size: int) -> np.ndarray:
    """So many slices; black ones where there is none."""
    there = np.zeros((0, size, size), np.uint8) if images is None else images[:count]
    return np.concatenate([there, np.zeros((count - len(there), size, size), np.uint8)])


def confusions(data: ReportData) -> dict[str, np.ndarray]:
    """Shares [classes, classes] of each row of the table that is told the class: means over its measurements."""
    found = {}
    for row in results.rows(data.report):
        told = [m.confusion.generated for m in results.measured_of(data.report, row.key) if m.confusion is not None]
        if told:
            found[row.name] = np.mean(np.array(told), axis=0)
    return found


def matrices(data: ReportData, theme: Theme) -> Figure:
    """A matrix for each system, and the last one of real slices."""
    own = next(m.confusion for m in data.report.measurements if m.confusion is not None)
    shown = confusions(data) | {"real, not seen by the judge": np.array(own.real)}
    names = [name.replace("_", " ") for name in own.classes]
    rows = -(-len(shown) // _IN_A_ROW)
    cell = _CELL_IN if len(names) <= WRITTEN else _CELL_IN / 2
    figure = new_figure(rows * (cell * len(names) + _LABELS_IN) + 0.3)
    panels = list(figure.subplots(rows, _IN_A_ROW, sharex=True, sharey=True, squeeze=False).flat)
    for (title, shares), axes in zip(shown.items(), panels, strict=False):
        draw_matrix(axes, shares, names)
        axes.set_title(title, fontsize=SMALL_PT, color=theme.ink)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for index in range(len(shown)):  # below a panel that is not there
        if index + _IN_A_ROW >= len(shown):
            panels[index].tick_params(labelbottom=True)
    figure.supxlabel("comes out as", fontsize=SMALL_PT)
    figure.supylabel("asked for", fontsize=SMALL_PT)
    return figure
