"""Figures of a study, for print: drawn from its records alone."""

import math
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lwddpm.config.search import maximised
from lwddpm.evaluation.figure_style import LIGHT, new_figure, style_axes
from lwddpm.search.definition import DEFINITION
from lwddpm.search.ranking import importance, pareto_front, ranking
from lwddpm.search.trials import TrialRecord, curve, records

_LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
_OTHER, _BEST, *_ = LIGHT.cycle
_PRUNED = LIGHT.real


def all_figures(study: optuna.Study) -> dict[str, Figure]:
    """Those figures that the study has data for, by file name."""
    drawers: dict[str, Callable[[optuna.Study], Figure | None]] = {
        "study_history": history,
        "study_learning_curves": learning_curves,
        "study_slice": slices,
        "study_parallel": parallel_coordinates,
        "study_importance": importances,
        "study_pareto_front": pareto,
    }
    drawn = {name: draw(study) for name, draw in drawers.items()}
    figures = {name: figure for name, figure in drawn.items() if figure is not None}
    for axes in (axes for figure in figures.values() for axes in figure.axes):
        if axes.get_label() != "<colorbar>":
            style_axes(axes)
    return figures


def _objective(study: optuna.Study) -> str:
    return str((study.metric_names or ["objective"])[0])


def _first_values(trials: list[TrialRecord]) -> list[float]:
    return [trial.values[0] for trial in trials if trial.values]


def _figure(width: float, height: float) -> Figure:
    return new_figure(height, width)


def history(study: optuna.Study) -> Figure | None:
    """Objective of every trial at the full budget, and the best so far."""
    complete = sorted(ranking(study), key=lambda trial: trial.number)
    if not complete:
        return None
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    numbers, values = [trial.number for trial in complete], np.array(_first_values(complete))
    better = np.maximum if maximised(_objective(study)) else np.minimum
    axes.plot(numbers, values, "o", color=_OTHER, label=f"full budget (n = {len(complete)})")
    axes.step(numbers, better.accumulate(values), where="post", color=_BEST, label="best so far")
    ended = [trial.number for trial in records(study) if trial.state == "pruned"]
    for index, number in enumerate(ended):
        label = f"ended early (n = {len(ended)})" if index == 0 else None
        axes.axvline(number, ymax=0.03, color=_PRUNED, label=label)
    axes.set(xlabel="trial", ylabel=_objective(study), title=study.study_name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize="small")
    return figure


def learning_curves(study: optuna.Study) -> Figure | None:
    """What early stopping compared, at every rung."""
    curves = {trial.number: sorted(curve(trial).items()) for trial in study.get_trials(deepcopy=False)}
    curves = {number: points for number, points in curves.items() if points}
    if not curves:
        return None
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    best = next(iter(ranking(study)), None)
    states = {trial.number: trial.state for trial in records(study)}
    for number, points in curves.items():
        steps, values = zip(*points, strict=True)
        first = best is not None and number == best.number
        color = _BEST if first else _OTHER if states[number] == "complete" else _PRUNED
        axes.plot(
            steps, values, "o-", color=color, markersize=3, linewidth=2 if first else 0.9, zorder=3 if first else 1
        )
    shown = {"best": _BEST, "full budget": _OTHER, "ended early": _PRUNED}
    for label, color in shown.items():
        axes.plot([], [], "o-", color=color, markersize=3, label=label)
    measure = study.user_attrs.get(DEFINITION, {}).get("prune_on", _objective(study))
    seen = [value for points in curves.values() for _, value in points]
    if min(seen) > 0 and max(seen) > 20 * min(seen):
        axes.set_yscale("log")
    rungs = sorted({step for points in curves.values() for step, _ in points})
    if len(rungs) <= 6 and len(rungs) > 1:
        axes.set_xscale("log")
        axes.set_xticks(rungs, [str(step) for step in rungs])
        axes.minorticks_off()
    axes.set(xlabel="optimizer steps", ylabel=measure, title=f"{study.study_name}: {len(curves)} trials")
    axes.legend(fontsize="small")
    return figure


def slices(study: optuna.Study) -> Figure | None:
    """Objective against each parameter, trials at the full budget."""
    ranked = ranking(study)
    keys = list(ranked[0].params) if ranked else []
    if len(ranked) < 2 or not keys:
        return None
    columns = min(4, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure = _figure(2.6 * columns + 0.8, 2.8 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(keys) :]:
        axes.set_visible(False)
    values = _first_values(ranked)
    for axes, key in zip(grid.flat, keys, strict=False):
        positions = _place(axes, study, key, [trial.params[key] for trial in ranked])
        points = axes.scatter(positions, values, c=[trial.number for trial in ranked], cmap="viridis", s=18)
        axes.set_xlabel(key)
    for row in grid:
        row[0].set_ylabel(_objective(study))
    figure.colorbar(points, ax=list(grid.flat), label="trial", ticks=MaxNLocator(integer=True))
    return figure


def _place(axes: Axes, study: optuna.Study, key: str, params: list[Any]) -> list[float]:
    """Positions of parameter values on the x axis, which gets the scale and the ticks that they want."""
    distribution: Any = study.get_trials(deepcopy=False)[0].distributions[key]
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        names = [_choice(choice) for choice in distribution.choices]
        axes.set_xticks(range(len(names)), names, rotation=30 if max(map(len, names)) > 6 else 0)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return [names.index(_choice(value)) for value in params]
    if getattr(distribution, "log", False):
        low, high = float(distribution.low), float(distribution.high)
        axes.set_xscale("log")
        ticks = np.geomspace(low, high, 3)
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlim(low * 0.8, high * 1.25)
    return [float(value) for value in params]


def _choice(value: Any) -> str:
    return "none" if value is None else str(value).strip("[]") if str(value).startswith("[") else str(value)


def parallel_coordinates(study: optuna.Study) -> Figure | None:
    """Parameters of trials at the full budget, one line each, coloured by the objective."""
    ranked = ranking(study)
    keys = list(ranked[0].params) if ranked else []
    if len(ranked) < 2 or len(keys) < 2:
        return None
    figure = _figure(1.9 * len(keys) + 2.2, 3.8)
    axes = figure.subplots()
    heights = {}
    for index, key in enumerate(keys):
        heights[key], ticks = _normalised(study, key, [trial.params[key] for trial in ranked])
        axes.axvline(index, color="0.7", linewidth=0.8, zorder=0)
        for height, text in ticks:
            axes.annotate(
                text, (index, height), xytext=(4, 0), textcoords="offset points", fontsize=7, va="center", bbox=_LABEL
            )
    values = np.array(_first_values(ranked))
    norm = Normalize(values.min(), values.max())
    shades = matplotlib.colormaps["viridis"]
    for row in reversed(range(len(ranked))):  # the best on top
        line = [heights[key][row] for key in keys]
        axes.plot(range(len(keys)), line, color=shades(norm(values[row])), linewidth=2.2 if row == 0 else 0.9)
    axes.set_xticks(range(len(keys)), keys)
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(keys) - 0.55)
    axes.set_title(f"{study.study_name}: {len(ranked)} trials at the full budget, the best one thick")
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)
    figure.colorbar(matplotlib.cm.ScalarMappable(norm, shades), ax=axes, label=_objective(study))
    return figure


def _normalised(study: optuna.Study, key: str, params: list[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights in [0, 1] on a parameter's axis, and the labels that stand along it."""
    distribution: Any = study.get_trials(deepcopy=False)[0].distributions[key]
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        names = [_choice(choice) for choice in distribution.choices]
        scale = max(1, len(names) - 1)
        return [names.index(_choice(v)) / scale for v in params], [(i / scale, name) for i, name in enumerate(names)]
    warp = math.log if distribution.log else float
    low, high = warp(distribution.low), warp(distribution.high)
    ends = [(0.0, f"{distribution.low:g}"), (1.0, f"{distribution.high:g}")]
    return [(warp(v) - low) / (high - low) for v in params], ends


def importances(study: optuna.Study) -> Figure | None:
    """Each parameter's share of the objective's variance."""
    shares_by_objective = importance(study)
    if not shares_by_objective:
        return None
    keys = list(next(iter(shares_by_objective.values())))[::-1]
    figure = _figure(6.4, 0.9 + 0.45 * len(keys) * len(shares_by_objective))
    axes = figure.subplots()
    height = 0.8 / len(shares_by_objective)
    for index, (objective, shares) in enumerate(shares_by_objective.items()):
        places = [place + index * height for place in range(len(keys))]
        widths, color = [shares.get(key, 0.0) for key in keys], LIGHT.cycle[index % len(LIGHT.cycle)]
        bars = axes.barh(places, widths, height, color=color, label=objective)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(keys))], keys)
    axes.set_xlim(0, 1.1)
    axes.set_xlabel(f"share of the explained variance (fANOVA, {len(ranking(study))} trials at the full budget)")
    axes.legend(fontsize="small")
    return figure


def pareto(study: optuna.Study) -> Figure | None:
    """The first two objectives against each other."""
    names = list(study.metric_names or [])
    ranked = ranking(study)
    if len(names) < 2 or not ranked:
        return None
    front = {trial.number for trial in pareto_front(study)}
    figure = _figure(5.6, 4.2)
    axes = figure.subplots()
    for group, color, label in (
        ([trial for trial in ranked if trial.number not in front], _OTHER, "beaten"),
        ([trial for trial in ranked if trial.number in front], _BEST, "Pareto front"),
    ):
        points = [(trial.values[1], trial.values[0], trial.number) for trial in group if trial.values]
        axes.plot(
            [p[0] for p in points], [p[1] for p in points], "o", color=color, label=f"{label} (n = {len(points)})"
        )
        for x, y, number in points if color == _BEST else ():
            axes.annotate(str(number), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel=names[1], ylabel=names[0], title=f"{study.study_name}: numbers are trials")
    axes.legend(fontsize="small")
    return figure
