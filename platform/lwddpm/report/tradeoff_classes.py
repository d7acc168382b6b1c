"""The planes of a trade-off by class: one panel a class, on one scale, each with its Pareto front."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lwddpm.evaluation.figure_style import SMALL_PT, Theme, new_figure
from lwddpm.evaluation.tradeoff import AIMS, COVERAGE, DISTANCE, PRECISION, RECALL, Tradeoff, front
from lwddpm.report.tradeoff_style import CALLS, NAMES, PLANES, VARIED, colour_of, limits, own_of, point_of

_MOST = 12  # panels
_IN_A_ROW, _PANEL_IN, _REST_IN = 3, 1.9, 1.1


def draw(measured: Tradeoff, key: str, theme: Theme) -> Figure:
    """One of PLANES for each class: the ways within it, its front, and what its real held-out slices score (star)."""
    across, up, _ = PLANES[key]
    most = sorted(measured.classes, key=lambda name: -measured.class_n[name])[:_MOST]
    names = [name for name in measured.classes if name in most]
    columns = 2 if len(names) in (2, 4) else min(_IN_A_ROW, len(names))
    rows = math.ceil(len(names) / columns)
    figure = new_figure(_PANEL_IN * rows + _REST_IN)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for empty in panels[len(names) :]:
        empty.set_visible(False)
    for name, axes in zip(names, panels, strict=False):
        _panel(axes, measured, key, name, theme)
    shown = own_of(measured)
    points = [point_of(way, key, name) for way in shown for name in names]
    stars = [_star(measured, key, name) for name in names]
    panels[0].set_xlim(*_limits(across, [x for x, _ in points] + ([] if across == CALLS else [x for x, _ in stars])))
    panels[0].set_ylim(*_limits(up, [y for _, y in points] + [y for _, y in stars]))
    if across == CALLS:
        panels[0].set_xlim(0, max(x for x, _ in points) * 1.08)
    figure.supxlabel(
        f"{NAMES[across]} ({'fewer is cheaper' if across == CALLS else 'higher is more varied'})", fontsize=9
    )
    figure.supylabel(f"{NAMES[up]} ({'lower is better' if up == DISTANCE else 'higher is more real'})", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=SMALL_PT, handletextpad=0.4)
    return figure


def _limits(metric: str, values: list[float]) -> tuple[float, float]:
    """Ends of an axis; those of a share end a little above 1."""
    low, high = limits(values)
    return low, min(high, 1.04) if metric in (PRECISION, RECALL, COVERAGE) else high


def _panel(axes: Axes, measured: Tradeoff, key: str, of_class: str, theme: Theme) -> None:
    across, _, higher = PLANES[key]
    shown, chosen = own_of(measured), {recommended.label for recommended in measured.recommended.values()}
    points = [point_of(way, key, of_class) for way in shown]
    path = [points[index] for index in front(points, higher)]
    axes.plot(*zip(*path, strict=True), color=theme.ink, linewidth=0.9, linestyle=(0, (4, 2)), label="Pareto front")
    for kind, (words, mark, _) in VARIED.items():
        for number, way in enumerate(way for way in measured.ways if way.varied == kind):
            color = colour_of(kind, theme)
            axes.plot(
                *point_of(way, key, of_class), mark, color=color, markersize=4.5, linestyle="none",
                markerfacecolor=color if way in shown else theme.paper, label=None if number else words, zorder=3,
            )  # fmt: skip
            if way.label in chosen:
                axes.plot(
                    *point_of(way, key, of_class), "o", markersize=9, markerfacecolor="none", markeredgecolor=theme.ink
                )
    axes.plot([], [], "o", markersize=9, markerfacecolor="none", markeredgecolor=theme.ink, label=f"{', '.join(AIMS)}")
    x, y = _star(measured, key, of_class)
    if across == CALLS:
        axes.axhline(y, color=theme.real, linestyle=(0, (1, 1)), linewidth=1.2, label="real held-out slices")
    else:
        axes.plot(x, y, "*", color=theme.real, markersize=9, linestyle="none", label="real held-out slices")
    axes.set_title(f"{of_class.replace('_', ' ')}, n = {measured.class_n[of_class]}", fontsize=SMALL_PT)


def _star(measured: Tradeoff, key: str, of_class: str) -> tuple[float, float]:
    """What real held-out slices of a class score; NaN where it is not known, or for calls."""
    across, up, _ = PLANES[key]
    x, y = (measured.floor(name, of_class) for name in (across, up))
    return math.nan if x is None else x, math.nan if y is None else y
