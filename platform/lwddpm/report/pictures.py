"""Figures made of slices: the paper's 1, 2, 4, 5, 8 and the upper half of 9."""

import numpy as np
from matplotlib.figure import Figure

from lwddpm.evaluation.figure_style import Theme, new_figure
from lwddpm.evaluation.figures import GAP
from lwddpm.report import results
from lwddpm.report.data import ReportData
from lwddpm.report.published import SYSTEMS
from lwddpm.report.style import display_name, height_of, rows_of_slices

PER_EPOCH = 4  # slices a system and epoch in Figure 8


def strip(data: ReportData, name: str, theme: Theme) -> Figure:
    """Figures 1 and 2: `forward` noising, `reverse` recovery; a column for each number of noising steps."""
    frames, steps = data.images[name], data.report.strips[name]
    figure = new_figure(height_of(len(frames), len(steps), 0.4) + 0.55)
    axes = figure.subplots()
    rows = [(str(index + 1), row) for index, row in enumerate(frames)]
    rows_of_slices(axes, rows, theme, [f"{step}" for step in steps])
    axes.set_xlabel("noising steps in the slice")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("slice")
    return figure


def classes(data: ReportData, theme: Theme) -> Figure:
    """Figure 4: real slices by class."""
    rows = [
        (name.removeprefix("class/").replace("_", "\n"), images)
        for name, images in data.images.items()
        if name.startswith("class/")
    ]
    columns = max(len(images) for _, images in rows)
    figure = new_figure(height_of(len(rows), columns, 1.2) + 0.1)
    rows_of_slices(figure.subplots(), rows, theme)
    return figure


def samples(data: ReportData, theme: Theme) -> Figure:
    """Figure 5: the first slices of every method, unselected, with real ones for comparison."""
    real = "simulated" if data.report.simulated else "real"
    rows = [(real, data.images["real"])] if "real" in data.images else []
    rows += [
        (row.name.replace(", ", "\n"), data.images[f"samples/{row.key}"])
        for row in results.rows(data.report)
        if f"samples/{row.key}" in data.images
    ]
    rows = [(label, images[:10]) for label, images in rows]
    figure = new_figure(height_of(len(rows), max(len(images) for _, images in rows), 1.2) + 0.1)
    rows_of_slices(figure.subplots(), rows, theme)
    return figure


def epochs(data: ReportData, theme: Theme) -> Figure:
    """Figure 8: slices from the same noise at the same fractions of every training."""
    rows: list[tuple[str, np.ndarray]] = []
    fractions: list[float] = []
    for name in _ordered(data):
        own = sorted(
            (float(key.rpartition("/")[2]), images)
            for key, images in data.images.items()
            if key.startswith(f"epochs/{name}/")
        )
        if own:
            last = own[-1][0]
            pictures = [images[:PER_EPOCH] for _, images in own]
            if not fractions or len(own) > len(fractions):
                fractions = [epoch / last for epoch, _ in own]
            rows.append((f"{display_name(name)}\n{last:.3g} epochs", np.concatenate(pictures)))
    columns = [f"{fraction:.0%}" for fraction in fractions]
    figure = new_figure(height_of(len(rows), PER_EPOCH * len(columns), 1.1) + 0.45)
    axes = figure.subplots()
    rows_of_slices(axes, rows, theme, columns, group=PER_EPOCH)
    axes.set_xlabel("share of the training")
    axes.xaxis.set_label_position("top")
    pitch = rows[0][1].shape[-1] + GAP
    for column in range(1, len(columns)):
        axes.axvline(column * PER_EPOCH * pitch - 1.5, color=theme.ink, linewidth=0.8)
    return figure


def _ordered(data: ReportData) -> list[str]:
    present = {system.name for system in data.report.systems}
    return [name for name in SYSTEMS if name in present]
