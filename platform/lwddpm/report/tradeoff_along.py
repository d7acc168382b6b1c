"""Figures along one setting, such as guidance: how each metric moves with it, for all slices and for each class."""

import json
from collections.abc import Iterator
from textwrap import fill
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from lwddpm.config import UNGUIDED
from lwddpm.evaluation.copying import COPIED_SHARE
from lwddpm.evaluation.figure_style import SMALL_PT, Theme, new_figure
from lwddpm.evaluation.tradeoff import DISTANCE, OBEDIENCE, PRECISION, RECALL, Tradeoff, Way
from lwddpm.report.tradeoff_style import NAMES

# setting -> its words
SETTINGS = {
    "guidance": "guidance",
    "condition_guidance": "guidance of the conditions",
    "num_inference_steps": "the number of steps",
    "eta": "eta of DDIM",
    "truncation": "the truncation of the latents",
    "ema_length": "the length of the average of the weights",
}
_SHOWN = (DISTANCE, PRECISION, RECALL, OBEDIENCE, COPIED_SHARE)
_MOST_CLASSES = 8  # panels below that of all slices
_ROW_IN, _REST_IN = 1.15, 0.75
_SOURCES = {
    "auto": "",
    "guide": "away from the guide",
    "unconditional": "away from no class",
    "unconditional_guide": "away from the guide told no class",
}


class Curve(NamedTuple):
    """Ways that differ in one setting alone: (value, way) with rising values, two or more."""

    label: str
    points: list[tuple[float, Way]]


def curves(measured: Tradeoff, setting: str) -> list[Curve]:
    """The ways along a setting; those that share all other settings are one curve."""
    if setting == "ema_length":
        averages = [way for way in measured.ways if way.weights.startswith("averages/ema_")]
        points = [(float(way.weights.rpartition("_")[2]), way) for way in averages]
        return _of({"": points})
    ways = [way for way in measured.ways if way.weights == "model" and way.sampling]
    if setting == "guidance":
        return _of(_by_source(ways))
    together: dict[str, list[tuple[float, Way]]] = {}
    for way in ways:
        position = _position(way, setting)
        if position is not None:
            together.setdefault(_rest(way, setting), []).append((position, way))
    return _of(together)


def draw(measured: Tradeoff, setting: str, theme: Theme) -> Figure:
    """A panel for each figure of merit (columns), for all slices and for each class (rows)."""
    shown = [name for name in _SHOWN if name in measured.metrics]
    classes = sorted(measured.classes, key=lambda name: -measured.class_n[name])[:_MOST_CLASSES]
    rows = [None, *(name for name in measured.classes if name in classes)]
    figure = new_figure(_ROW_IN * len(rows) + _REST_IN)
    panels = figure.subplots(len(rows), len(shown), sharex=True, sharey="col", squeeze=False)
    found = curves(measured, setting)
    for row, (of_class, line) in enumerate(zip(rows, panels, strict=True)):
        for name, axes in zip(shown, line, strict=True):
            for curve, color in zip(found, theme.cycle, strict=False):
                axes.errorbar(
                    [x for x, _ in curve.points],
                    [way.mean(name, of_class) for _, way in curve.points],
                    [way.spread(name, of_class) for _, way in curve.points],
                    color=color, marker="o", markersize=3, linewidth=1.1, elinewidth=0.7,
                    label=curve.label if row == 0 and name == shown[0] else None,
                )  # fmt: skip
            floor = measured.floor(name, of_class)
            if floor is not None:
                axes.axhline(floor, color=theme.real, linestyle=(0, (1, 1)), linewidth=1.1)
            if row == 0:
                axes.set_title(NAMES[name], fontsize=SMALL_PT)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        n = measured.n if of_class is None else measured.class_n[of_class]
        words = "all slices" if of_class is None else fill(of_class.replace("_", " "), 14)
        line[0].set_ylabel(f"{words}\nn = {n}", fontsize=SMALL_PT)
    for axes in panels[-1]:
        _ticks(axes, found)
    figure.supxlabel(SETTINGS[setting].removeprefix("the "), fontsize=SMALL_PT)
    if any(curve.label for curve in found):
        figure.legend(loc="outside upper center", ncols=len(found), fontsize=SMALL_PT)
    return figure


def _position(way: Way, setting: str) -> float | None:
    """Where a way lies along a setting; None where it has none: a sampler without eta, latents that are whole."""
    if setting == "eta" and way.sampling.get("sampler") != "ddim":
        return None
    value = way.sampling.get(setting, UNGUIDED.get(setting))
    return None if value is None else float(value)


def _rest(way: Way, *settings: str) -> str:
    return json.dumps({key: value for key, value in way.sampling.items() if key not in settings}, sort_keys=True)


_OF_GUIDANCE = tuple(UNGUIDED)
_WEIGHTS = ("guidance", "condition_guidance")


def _by_source(ways: list[Way]) -> dict[str, list[tuple[float, Way]]]:
    """Guided ways by what they are led away from; each with the unguided one that has their other settings."""
    by_conditions = ways[0].sampling.get("condition_guidance", 1.0) if ways else 1.0  # that of the preset
    together: dict[str, list[tuple[float, Way]]] = {}
    rests: dict[str, str] = {}
    for way in ways:
        weight = way.sampling.get("guidance", 1.0)
        other = way.varied in ("condition_guidance", "points")
        if other and way.sampling.get("condition_guidance", 1.0) != by_conditions:
            continue
        if weight != 1 and way.sampling.get("guidance_interval") is None:
            label = _SOURCES[way.sampling.get("guidance_from", "auto")]
            rest = rests.setdefault(label, _rest(way, *_OF_GUIDANCE))
            if rest == _rest(way, *_OF_GUIDANCE):
                together.setdefault(label, []).append((float(weight), way))
    plain = [way for way in ways if all(way.sampling.get(name, UNGUIDED[name]) == UNGUIDED[name] for name in _WEIGHTS)]
    for label, points in together.items():
        points += [(1.0, way) for way in plain if _rest(way, *_OF_GUIDANCE) == rests[label]]
    return together


def _of(together: dict[str, list[tuple[float, Way]]]) -> list[Curve]:
    """The curves of two or more values, each value once; named where there are several."""
    found = []
    for label, points in together.items():
        each = dict(sorted(points, key=lambda point: point[0]))
        if len(each) > 1:
            found.append(Curve(label, list(each.items())))
    return list(_named(found))


def _named(found: list[Curve]) -> Iterator[Curve]:
    """Settings that are no words of their own are told by what they differ in."""
    for curve in found:
        if not curve.label.startswith("{"):
            yield curve
            continue
        guidance = [other.points[0][1].sampling.get("guidance", 1.0) for other in found]
        own = curve.points[0][1].sampling.get("guidance", 1.0)
        words = "unguided" if own == 1 else f"guidance {own:g}"
        yield curve._replace(label=words if len(set(guidance)) > 1 else "")


def _ticks(axes: Axes, found: list[Curve]) -> None:
    """Ticks at the values that were measured, but for those too close to another."""
    values = sorted({x for curve in found for x, _ in curve.points})
    if values[0] > 0 and values[-1] > 10 * values[0]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    scale = np.log if axes.get_xscale() == "log" else np.asarray
    places = (scale(np.array(values)) - scale(values[0])) / (scale(values[-1]) - scale(values[0]))
    ticks: list[int] = []
    for index, place in enumerate(places):
        if all(abs(place - places[other]) > 0.17 for other in ticks):
            ticks.append(index)
    axes.set_xticks([values[index] for index in ticks], [f"{values[index]:g}" for index in ticks])
