"""A trade-off on disk: its data as JSON and CSV, figures, and one HTML page that needs nothing else.

figures/light/KEY.png  figures/dark/KEY.png
tradeoff.json  tradeoff.csv  tradeoff_by_class.csv (of conditional models)  tradeoff.html
"""

import csv
import io
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from lwddpm.evaluation.figure_style import SMALL_PT, THEMES, Theme, new_figure, render
from lwddpm.evaluation.tradeoff import AIMS, DISTANCE, Aim, Tradeoff, Way, front
from lwddpm.files import complete_folder, write_whole
from lwddpm.report import tradeoff_along as along
from lwddpm.report import tradeoff_classes as classes
from lwddpm.report.html_page import html_page
from lwddpm.report.tradeoff_style import (
    CALLS,
    NAMES,
    PLANES,
    VARIED,
    colour_of,
    limits,
    own_of,
    point_of,
    spread_of,
    value_of,
)
from lwddpm.wording import measured as written

HTML, JSON, CSV, CSV_BY_CLASS = "tradeoff.html", "tradeoff.json", "tradeoff.csv", "tradeoff_by_class.csv"


class Drawn(NamedTuple):
    """A figure of the page: its file name, what stands below it, and how it is drawn."""

    key: str
    caption: str
    draw: Callable[[Theme], Figure]


def drawings(measured: Tradeoff) -> list[Drawn]:
    """The figures that there are data for: planes of two figures each, the same by class, and along each setting."""
    hollow = "Hollow marks: other weights, or copies."
    captions = {
        "precision_recall": f"Precision against recall: up is more real, right more varied. {hollow}",
        "density_coverage": f"Density against coverage, which single outliers cannot buy. {hollow}",
        "fd_calls": f"Fréchet distance against network calls a slice. {hollow}",
    }
    figures = [Drawn(key, caption, partial(draw, measured, key)) for key, caption in captions.items()]
    for setting in along.SETTINGS:
        if along.curves(measured, setting):
            caption = (
                f"Along {along.SETTINGS[setting]}: means over samplings, bars their standard deviation; every column "
                "has one scale. Dotted: real held-out slices."
            )
            figures.append(Drawn(f"along_{setting}", caption, partial(along.draw, measured, setting)))
    one_cost = len({way.network_calls for way in measured.ways}) == 1  # of a GAN
    for key in (key for key in PLANES if measured.classes and not (key == "fd_calls" and one_cost)):
        caption = (
            f"{captions[key].partition(hollow)[0]}By class: drawings that were asked for a class against training "
            "slices of that class alone, on one scale; n is that of the class, so a class compares with its own star "
            "(real held-out slices)."
        )
        figures.append(Drawn(f"classes_{key}", caption, partial(classes.draw, measured, key)))
    return figures


def write(measured: Tradeoff, folder: Path) -> Path:
    """Write everything into a folder, replacing what is there.

    Returns:
        The HTML file.
    """
    with complete_folder(folder / "figures") as figures:
        for theme in THEMES:
            (figures / theme.name).mkdir()
            for key, _, drawn in drawings(measured):
                (figures / theme.name / f"{key}.png").write_bytes(render(drawn, theme))
        html = _html(measured, figures)
    write_whole(folder / JSON, measured.model_dump_json(indent=2))
    write_whole(folder / CSV, table(measured))
    (folder / CSV_BY_CLASS).unlink(missing_ok=True)
    if measured.classes:
        write_whole(folder / CSV_BY_CLASS, table_by_class(measured))
    write_whole(folder / HTML, html)
    return folder / HTML


def table(measured: Tradeoff) -> str:
    """CSV: a row for each way, then one for real held-out slices."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    names = measured.metrics
    heads = [f"{name}{suffix}" for name in names for suffix in ("", "_sd")]
    rows.writerow(["way", "sampling", "weights", CALLS, *heads, "nearest", "copies", "recommended", "n", "samplings"])
    for way in measured.ways:
        figures = [f"{figure:.6g}" for name in names for figure in (way.mean(name), way.spread(name))]
        about = [way.label, way.words, way.weights, way.network_calls]
        verdict = [way.copies, " ".join(_aims(measured, way)), measured.n, len(measured.sampling_seeds)]
        rows.writerow([*about, *figures, f"{np.mean(way.nearest):.6g}", *verdict])
    floors = [
        cell for name in names for cell in (f"{measured.floors[name]:.6g}" if name in measured.floors else "", "")
    ]
    rows.writerow(
        ["real held-out slices", "", "", "", *floors, f"{measured.nearest_floor:.6g}", "", "", measured.n, ""]
    )
    return stream.getvalue()


def table_by_class(measured: Tradeoff) -> str:
    """CSV: for each class a row for each way, then one for its real held-out slices."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    names = _told_by_class(measured)
    rows.writerow(["class", "way", CALLS, *(f"{name}{suffix}" for name in names for suffix in ("", "_sd")), "n"])
    for of_class, n in measured.class_n.items():
        for way in measured.ways:
            pairs = [(way.mean(name, of_class), way.spread(name, of_class)) for name in names]
            figures = [f"{figure:.6g}" for pair in pairs for figure in pair]
            rows.writerow([of_class, way.label, way.network_calls, *figures, n])
        floors = [measured.floor(name, of_class) for name in names]
        cells = [cell for floor in floors for cell in ("" if floor is None else f"{floor:.6g}", "")]
        rows.writerow([of_class, "real held-out slices", "", *cells, n])
    return stream.getvalue()


def _told_by_class(measured: Tradeoff) -> list[str]:
    """The metrics that are measured by class, in the order of all."""
    there = {name for way in measured.ways for values in way.by_class.values() for name in values}
    return [name for name in measured.metrics if name in there]


def draw(measured: Tradeoff, key: str, theme: Theme) -> Figure:
    """One of PLANES: all ways, the Pareto front, the recommended ones by name, and what real held-out slices score.

    The axes show the ways that may be recommended; what lies beyond them is told in the legend.
    """
    across, up, higher = PLANES[key]
    figure = new_figure(3.9)
    axes = figure.subplots()
    own = [way for way in measured.ways if way.weights == "model" and not way.copies]
    shown = own_of(measured)
    if across == CALLS:
        _call_ticks(axes, [way.network_calls for way in shown])
    else:
        axes.set_xlim(
            *limits([value_of(way, across) + side * spread_of(way, across) for way in shown for side in (-1, 1)])
        )
    axes.set_ylim(*limits([value_of(way, up) + side * spread_of(way, up) for way in shown for side in (-1, 1)]))
    path = [
        (value_of(shown[i], across), value_of(shown[i], up))
        for i in front([point_of(way, key) for way in shown], higher)
    ]
    line: dict[str, Any] = {"color": theme.ink, "linewidth": 1.0, "linestyle": (0, (4, 2)), "label": "Pareto front"}
    axes.plot([x for x, _ in path], [y for _, y in path], zorder=2, **line)
    for kind, (words, mark, _) in VARIED.items():
        ways = [way for way in measured.ways if way.varied == kind]
        beyond = sum(not _inside(axes, point_of(way, key)) for way in ways)
        for number, way in enumerate(ways):
            axes.errorbar(
                *point_of(way, key),
                xerr=spread_of(way, across) or None,
                yerr=spread_of(way, up) or None,
                fmt=mark,
                color=colour_of(kind, theme),
                markersize=7 if kind == "preset" else 5.5,
                markerfacecolor=colour_of(kind, theme) if way in own else theme.paper,
                elinewidth=0.7,
                zorder=3,
                label=None if number else words + (f" ({beyond} beyond the axes)" if beyond else ""),
            )
    _tell_real(axes, measured, across, up, theme)
    axes.set_xlabel(f"{NAMES[across]} ({'fewer is cheaper' if across == CALLS else 'higher is more varied'})")
    axes.set_ylabel(f"{NAMES[up]} ({'lower is better' if up == DISTANCE else 'higher is more real'})")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0.3, handletextpad=0.4)
    _name_recommended(figure, axes, measured, key, theme)
    return figure


def _inside(axes: Axes, at: tuple[float, float]) -> bool:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    return left <= at[0] <= right and low <= at[1] <= high


def _tell_real(axes: Axes, measured: Tradeoff, across: str, up: str, theme: Theme) -> None:
    """What real held-out slices score: a star where it lies inside the axes, numbers in the legend in any case."""
    floors = [measured.floors[name] for name in (across, up) if name in measured.floors]
    if len(floors) < (across != CALLS) + 1:
        return
    numbers = f"real held-out slices:\n{NAMES[up]} {written(floors[-1])}"
    style: dict[str, Any] = {"color": theme.real, "linestyle": "none"}
    if across != CALLS:
        numbers += f", {NAMES[across]} {written(floors[0])}"
        style |= {"marker": "*", "markersize": 10}
        at = [floors[0]], [floors[1]]
        axes.plot(*(at if _inside(axes, (floors[0], floors[1])) else ([], [])), label=numbers, **style)
    elif axes.get_ylim()[0] <= floors[0] <= axes.get_ylim()[1]:
        axes.axhline(floors[0], color=theme.real, linestyle=(0, (1, 1)), linewidth=1.2, label=numbers)
    else:
        axes.plot([], [], label=numbers, **style)


def _call_ticks(axes: Axes, calls: list[int]) -> None:
    """A logarithmic axis with ticks at numbers of calls that occur and are not too close."""
    axes.set_xscale("log")
    axes.set_xlim(min(calls) / 1.5, max(calls) * 1.5)
    ticks: list[int] = []
    for number, _ in sorted(Counter(calls).items(), key=lambda item: -item[1]):  # the usual ones first
        if all(max(number, other) >= 1.3 * min(number, other) for other in ticks):
            ticks.append(number)
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _name_recommended(figure: Figure, axes: Axes, measured: Tradeoff, key: str, theme: Theme) -> None:
    """A ring around each recommended way, and its name where neither a mark nor another name is near."""
    figure.draw_without_rendering()  # settles the layout, by which places on the page are known
    place, scale, box = axes.transData.transform, figure.dpi / 72, axes.get_window_extent()
    marks = [place(point_of(way, key)) / scale for way in measured.ways if _inside(axes, point_of(way, key))]
    names: list[np.ndarray] = []
    for way in measured.ways:
        if not (aims := _aims(measured, way)):
            continue
        at, name = place(point_of(way, key)) / scale, " + ".join(aims)
        half = np.array([2.9 * len(name), 5.0])
        low, high = np.array([box.x0, box.y0]) / scale + half, np.array([box.x1, box.y1]) / scale - half

        def room(
            offset: tuple[int, int], at: np.ndarray = at, half: np.ndarray = half, low: Any = low, high: Any = high
        ) -> float:
            middle = at + offset
            if (middle < low).any() or (middle > high).any():
                return -100.0
            line = [at + share * np.array(offset) for share in (0.3, 0.5, 0.7)]
            free = min((_gap(mark, middle, half) for mark in marks), default=20.0)
            apart = min((_gap(other, middle, 2 * half) for other in names), default=20.0)
            clear = min((_gap(point, other, half) for point in line for other in names), default=20.0)
            others = [mark for mark in marks if np.hypot(*(mark - at)) > 1]
            passing = min((float(np.hypot(*(point - mark))) for point in line for mark in others), default=20.0)
            return (
                min(passing, 9.0)
                + min(free, 14.0)
                + 2 * min(apart, 8.0)
                + 2 * min(clear, 8.0)
                - 0.08 * float(np.hypot(*offset))
            )

        offset = max(_OFFSETS, key=room)
        names.append(at + offset)
        axes.plot(
            *point_of(way, key), marker="o", markersize=12, markerfacecolor="none", markeredgecolor=theme.ink, zorder=4
        )
        arrow = {"arrowstyle": "-", "linewidth": 0.6, "color": theme.ink, "shrinkA": 1, "shrinkB": 6}
        axes.annotate(
            name, point_of(way, key), offset, textcoords="offset points", ha="center", va="center", fontsize=SMALL_PT,
            weight="bold", color=theme.ink, arrowprops=arrow, zorder=5,
            bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
        )  # fmt: skip


_OFFSETS = [
    (dx, dy) for dx in (-80, -55, -25, 0, 25, 55, 80) for dy in (-48, -32, -20, 0, 20, 32, 48) if dy or abs(dx) > 50
]


def _gap(point: np.ndarray, middle: np.ndarray, half: np.ndarray) -> float:
    """Distance of a point from a box, 0 inside it."""
    return float(np.hypot(*np.maximum(np.abs(point - middle) - half, 0)))


def _html(measured: Tradeoff, figures: Path) -> str:
    content = {
        "measured": measured,
        "aims": _aims,
        "rules": AIMS,
        "names": NAMES,
        "drawings": drawings(measured),
        "metrics": measured.metrics,
        "by_class": _told_by_class(measured),
        "written": written,
        "nearest": lambda way: float(np.mean(way.nearest)),
    }
    return html_page("tradeoff.html", figures, content)


def _aims(measured: Tradeoff, way: Way) -> list[Aim]:
    return [aim for aim, chosen in measured.recommended.items() if chosen.label == way.label]
