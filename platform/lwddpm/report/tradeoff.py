"""A trade-off on disk: its data as JSON and CSV, three figures, and one HTML page that needs nothing else.

figures/light/KEY.png  figures/dark/KEY.png
tradeoff.json  tradeoff.csv  tradeoff.html
"""

import csv
import io
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from lwddpm.evaluation.figure_style import SMALL_PT, THEMES, Theme, new_figure, render
from lwddpm.evaluation.tradeoff import (
    AIMS,
    COVERAGE,
    DENSITY,
    DISTANCE,
    METRICS,
    PRECISION,
    RECALL,
    Aim,
    Tradeoff,
    Way,
    front,
)
from lwddpm.files import complete_folder, write_whole
from lwddpm.report.html_page import html_page
from lwddpm.wording import measured as written

HTML, JSON, CSV = "tradeoff.html", "tradeoff.json", "tradeoff.csv"
CALLS = "network_calls"
# what is varied -> its words in the legend and its mark
_VARIED = {
    "preset": ("the preset", "D"),
    "guidance": ("guidance", "o"),
    "guidance_interval": ("guidance in an interval", "h"),
    "num_inference_steps": ("number of steps", "s"),
    "start": ("start", "^"),
    "sampler": ("sampler", "v"),
    "eta": ("eta of DDIM", "P"),
    "truncation": ("truncation", "o"),
    "points": ("points given", "X"),
    "weights": ("other weights", "d"),
}
_NAMES = {
    PRECISION: "precision",
    RECALL: "recall",
    DENSITY: "density",
    COVERAGE: "coverage",
    DISTANCE: "fd_lite0",
    CALLS: "network calls a slice",
}
# key -> x, y, and whether more of them is better
FIGURES = {
    "precision_recall": (RECALL, PRECISION, (True, True)),
    "density_coverage": (COVERAGE, DENSITY, (True, True)),
    "fd_calls": (CALLS, DISTANCE, (False, False)),
}


def write(measured: Tradeoff, folder: Path) -> Path:
    """Write everything into a folder, replacing what is there.

    Returns:
        The HTML file.
    """
    with complete_folder(folder / "figures") as figures:
        for theme in THEMES:
            (figures / theme.name).mkdir()
            for key in FIGURES:
                picture = render(partial(draw, measured, key), theme)
                (figures / theme.name / f"{key}.png").write_bytes(picture)
        html = _html(measured, figures)
    write_whole(folder / JSON, measured.model_dump_json(indent=2))
    write_whole(folder / CSV, table(measured))
    write_whole(folder / HTML, html)
    return folder / HTML


def table(measured: Tradeoff) -> str:
    """CSV: a row for each way, then one for real held-out slices."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    heads = [f"{name}{suffix}" for name in METRICS for suffix in ("", "_sd")]
    rows.writerow(["way", "sampling", "weights", CALLS, *heads, "nearest", "copies", "recommended", "n", "samplings"])
    for way in measured.ways:
        figures = [f"{figure:.6g}" for name in METRICS for figure in (way.mean(name), _spread(way, name))]
        about = [way.label, way.words, way.weights, way.network_calls]
        verdict = [way.copies, " ".join(_aims(measured, way)), measured.n, len(measured.sampling_seeds)]
        rows.writerow([*about, *figures, f"{np.mean(way.nearest):.6g}", *verdict])
    floors = [
        cell for name in METRICS for cell in (f"{measured.floors[name]:.6g}" if name in measured.floors else "", "")
    ]
    rows.writerow(
        ["real held-out slices", "", "", "", *floors, f"{measured.nearest_floor:.6g}", "", "", measured.n, ""]
    )
    return stream.getvalue()


def draw(measured: Tradeoff, key: str, theme: Theme) -> Figure:
    """One of FIGURES: all ways, the Pareto front, the recommended ones by name, and what real held-out slices score.

    The axes show the ways that may be recommended; what lies beyond them is told in the legend.
    """
    across, up, higher = FIGURES[key]
    figure = new_figure(3.9)
    axes = figure.subplots()
    own = [way for way in measured.ways if way.weights == "model" and not way.copies]
    shown = own or list(measured.ways)
    if across == CALLS:
        _call_ticks(axes, [way.network_calls for way in shown])
    else:
        axes.set_xlim(
            *_limits([_value(way, across) + side * _spread(way, across) for way in shown for side in (-1, 1)])
        )
    axes.set_ylim(*_limits([_value(way, up) + side * _spread(way, up) for way in shown for side in (-1, 1)]))
    path = [(_value(shown[i], across), _value(shown[i], up)) for i in front([_at(way, key) for way in shown], higher)]
    line: dict[str, Any] = {"color": theme.ink, "linewidth": 1.0, "linestyle": (0, (4, 2)), "label": "Pareto front"}
    axes.plot([x for x, _ in path], [y for _, y in path], zorder=2, **line)
    kinds = [kind for kind in _VARIED if any(way.varied == kind for way in measured.ways)]
    for kind, system in zip(kinds, _COLOURS, strict=False):
        ways = [way for way in measured.ways if way.varied == kind]
        words, mark = _VARIED[kind]
        beyond = sum(not _inside(axes, _at(way, key)) for way in ways)
        for number, way in enumerate(ways):
            axes.errorbar(
                *_at(way, key),
                xerr=_spread(way, across) or None,
                yerr=_spread(way, up) or None,
                fmt=mark,
                color=theme.systems[system],
                markersize=7 if kind == "preset" else 5.5,
                markerfacecolor=theme.systems[system] if way in own else theme.paper,
                elinewidth=0.7,
                zorder=3,
                label=None if number else words + (f" ({beyond} beyond the axes)" if beyond else ""),
            )
    _tell_real(axes, measured, across, up, theme)
    axes.set_xlabel(f"{_NAMES[across]} ({'fewer is cheaper' if across == CALLS else 'higher is more varied'})")
    axes.set_ylabel(f"{_NAMES[up]} ({'lower is better' if up == DISTANCE else 'higher is more real'})")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0.3, handletextpad=0.4)
    _name_recommended(figure, axes, measured, key, theme)
    return figure


# A colour for each kind of way, of systems that no figure here shows.
_COLOURS = ("lw_ddpm", "ddpm", "gan", "ddim", "wgan", "recipe", "lsgan", "gaussian", "ddpm", "gan")


def _at(way: Way, key: str) -> tuple[float, float]:
    across, up, _ = FIGURES[key]
    return _value(way, across), _value(way, up)


def _limits(values: list[float]) -> tuple[float, float]:
    """Ends of an axis around values, with room for names."""
    known = [value for value in values if np.isfinite(value)] or [0.0, 1.0]
    room = 0.15 * (max(known) - min(known)) or 0.1 * abs(known[0]) or 0.1
    return min(known) - room, max(known) + room


def _inside(axes: Axes, at: tuple[float, float]) -> bool:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    return left <= at[0] <= right and low <= at[1] <= high


def _tell_real(axes: Axes, measured: Tradeoff, across: str, up: str, theme: Theme) -> None:
    """What real held-out slices score: a star where it lies inside the axes, numbers in the legend in any case."""
    floors = [measured.floors[name] for name in (across, up) if name in measured.floors]
    if len(floors) < (across != CALLS) + 1:
        return
    numbers = f"real held-out slices:\n{_NAMES[up]} {written(floors[-1])}"
    style: dict[str, Any] = {"color": theme.real, "linestyle": "none"}
    if across != CALLS:
        numbers += f", {_NAMES[across]} {written(floors[0])}"
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
    marks = [place(_at(way, key)) / scale for way in measured.ways if _inside(axes, _at(way, key))]
    names: list[np.ndarray] = []
    for way in measured.ways:
        if not (aims := _aims(measured, way)):
            continue
        at, name = place(_at(way, key)) / scale, " + ".join(aims)
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
            *_at(way, key), marker="o", markersize=12, markerfacecolor="none", markeredgecolor=theme.ink, zorder=4
        )
        arrow = {"arrowstyle": "-", "linewidth": 0.6, "color": theme.ink, "shrinkA": 1, "shrinkB": 6}
        axes.annotate(
            name, _at(way, key), offset, textcoords="offset points", ha="center", va="center", fontsize=SMALL_PT,
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
        "names": _NAMES,
        "keys": list(FIGURES),
        "metrics": METRICS,
        "written": written,
        "nearest": lambda way: float(np.mean(way.nearest)),
    }
    return html_page("tradeoff.html", figures, content)


def _aims(measured: Tradeoff, way: Way) -> list[Aim]:
    return [aim for aim, chosen in measured.recommended.items() if chosen.label == way.label]


def _value(way: Way, name: str) -> float:
    return float(way.network_calls) if name == CALLS else way.mean(name)


def _spread(way: Way, name: str) -> float:
    """Standard deviation over samplings."""
    return 0.0 if name == CALLS else float(np.std(way.values[name], ddof=1))
