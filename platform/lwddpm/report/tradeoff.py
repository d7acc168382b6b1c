"""A trade-off on disk: its data as JSON and CSV, three figures, and one HTML page that needs nothing else.

figures/light/KEY.png  figures/dark/KEY.png
tradeoff.json  tradeoff.csv  tradeoff.html
"""

import base64
import csv
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from lwddpm.evaluation.figure_style import SMALL_PT, THEMES, Theme, log_scale_if_wide, new_figure, render
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
from lwddpm.wording import measured as written

HTML, JSON, CSV = "tradeoff.html", "tradeoff.json", "tradeoff.csv"
CALLS = "network_calls"
_TEMPLATES = Path(__file__).with_name("templates")
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
        verdict = [measured.copies(way), " ".join(_aims(measured, way)), measured.n, len(measured.sampling_seeds)]
        rows.writerow([*about, *figures, f"{np.mean(way.nearest):.6g}", *verdict])
    floors = [
        cell for name in METRICS for cell in (f"{measured.floors[name]:.6g}" if name in measured.floors else "", "")
    ]
    rows.writerow(
        ["real held-out slices", "", "", "", *floors, f"{measured.nearest_floor:.6g}", "", "", measured.n, ""]
    )
    return stream.getvalue()


def draw(measured: Tradeoff, key: str, theme: Theme) -> Figure:
    """One of FIGURES: all ways, the Pareto front, the recommended ones by name, and real held-out slices."""
    across, up, higher = FIGURES[key]
    figure = new_figure(3.9)
    axes = figure.subplots()
    own = [way for way in measured.ways if way.weights == "model" and not measured.copies(way)]
    kinds = [kind for kind in _VARIED if any(way.varied == kind for way in measured.ways)]
    colours = dict(zip(kinds, (theme.systems[name] for name in _COLOURS), strict=False))
    on_front = front([(_value(way, across), _value(way, up)) for way in own], higher)
    path = [(_value(own[index], across), _value(own[index], up)) for index in on_front]
    axes.plot(
        *zip(*path, strict=True), color=theme.ink, linewidth=1.0, linestyle=(0, (4, 2)), zorder=2, label="Pareto front"
    )
    for kind in kinds:
        words, mark = _VARIED[kind]
        for number, way in enumerate([way for way in measured.ways if way.varied == kind]):
            filled = way in own
            axes.errorbar(
                _value(way, across),
                _value(way, up),
                xerr=_spread(way, across) or None,
                yerr=_spread(way, up) or None,
                fmt=mark,
                color=colours[kind],
                markersize=7 if kind == "preset" else 5.5,
                markerfacecolor=colours[kind] if filled else theme.paper,
                elinewidth=0.6,
                zorder=3,
                label=words if number == 0 else None,
            )
    _mark_real(axes, measured, across, up, theme)
    axes.set_xlabel(f"{_NAMES[across]} ({'fewer is cheaper' if across == CALLS else 'higher is more varied'})")
    axes.set_ylabel(f"{_NAMES[up]} ({'lower is better' if up == DISTANCE else 'higher is more real'})")
    if across == CALLS:
        _call_ticks(axes, [way.network_calls for way in measured.ways])
        log_scale_if_wide(axes, np.array([_value(way, up) for way in measured.ways]), 4)
    _name_recommended(figure, axes, measured, across, up, theme)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0.3, handletextpad=0.4)
    return figure


# A colour for each kind of way, of systems that no figure here shows.
_COLOURS = ("lw_ddpm", "ddpm", "gan", "ddim", "wgan", "recipe", "lsgan", "gaussian", "ddpm", "gan")


def _mark_real(axes: Axes, measured: Tradeoff, across: str, up: str, theme: Theme) -> None:
    """What real held-out slices score: a star, or a line where that costs nothing to draw."""
    style: dict[str, Any] = {"color": theme.real, "label": "real held-out slices"}
    if across == CALLS and up in measured.floors:
        axes.axhline(measured.floors[up], linestyle=(0, (1, 1)), linewidth=1.2, **style)
    elif across in measured.floors and up in measured.floors:
        axes.plot(measured.floors[across], measured.floors[up], marker="*", markersize=10, linestyle="none", **style)


def _call_ticks(axes: Axes, calls: list[int]) -> None:
    axes.set_xscale("log")
    ticks = [
        tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if min(calls) / 1.5 <= tick <= max(calls) * 1.5
    ]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    if min(calls) == max(calls):
        axes.set_xlim(min(calls) / 2, max(calls) * 2)


def _name_recommended(figure: Figure, axes: Axes, measured: Tradeoff, across: str, up: str, theme: Theme) -> None:
    """A ring around each recommended way, and its name where no mark is near."""
    figure.draw_without_rendering()  # settles the layout, by which places on the page are known
    place = axes.transData.transform
    taken = [place((_value(way, across), _value(way, up))) for way in measured.ways]
    box = axes.get_window_extent()
    scale = figure.dpi / 72
    for way in measured.ways:
        aims = _aims(measured, way)
        if not aims:
            continue
        at = (_value(way, across), _value(way, up))
        axes.plot(*at, marker="o", markersize=12, markerfacecolor="none", markeredgecolor=theme.ink, zorder=4)
        name = " + ".join(aims)
        best = max(_OFFSETS, key=lambda offset: _room(place(at), offset, name, taken, box, scale))
        middle = place(at) + np.array(best) * scale
        taken += [middle + np.array([dx, 0]) * scale for dx in (-3 * len(name), 0, 3 * len(name))]
        axes.annotate(
            name, at, best, textcoords="offset points", ha="center", va="center", fontsize=SMALL_PT, weight="bold",
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": theme.ink, "shrinkB": 6}, zorder=5,
            color=theme.ink,
        )  # fmt: skip


_OFFSETS = [
    (dx, dy)
    for dx in (-75, -50, 0, 50, 75)
    for dy in (-44, -26, 0, 26, 44)
    if (dx, dy) not in ((0, 0), (-50, 0), (50, 0))
]


def _room(at: np.ndarray, offset: tuple[int, int], name: str, taken: list[np.ndarray], box: Any, scale: float) -> float:
    """Points of the page between a name there and what is nearest; below 0 where it leaves the axes."""
    middle, half = np.array(at) + np.array(offset) * scale, 2.7 * len(name) * scale
    if not (box.x0 + half <= middle[0] <= box.x1 - half and box.y0 + 6 * scale <= middle[1] <= box.y1 - 6 * scale):
        return -1.0
    gaps = [np.hypot(max(0.0, abs(x - middle[0]) - half), y - middle[1]) for x, y in taken]
    return min(min(gaps) / scale, 14.0) - 0.02 * float(np.hypot(*offset))


def _html(measured: Tradeoff, figures: Path) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def embedded(key: str, theme: str) -> Markup:
        data = base64.b64encode((figures / theme / f"{key}.png").read_bytes()).decode()
        return Markup("data:image/png;base64,") + data

    return environment.get_template("tradeoff.html").render(
        measured=measured, aims=_aims, rules=AIMS, names=_NAMES, keys=list(FIGURES), embedded=embedded,
        metrics=METRICS, written=written, nearest=lambda way: float(np.mean(way.nearest)),
    )  # fmt: skip


def _aims(measured: Tradeoff, way: Way) -> list[Aim]:
    return [aim for aim, chosen in measured.recommended.items() if chosen.label == way.label]


def _value(way: Way, name: str) -> float:
    return float(way.network_calls) if name == CALLS else way.mean(name)


def _spread(way: Way, name: str) -> float:
    """Standard deviation over samplings."""
    return 0.0 if name == CALLS else float(np.std(way.values[name], ddof=1))
