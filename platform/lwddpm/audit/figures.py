"""Figures of an audit: flagged pairs, scores beside their threshold, what planted copies show, growth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from lwddpm.audit.result import AuditResult, FlaggedPair
from lwddpm.evaluation.figure_style import SMALL_PT, TEXT_PT, TITLE_PT, WIDTH_IN, Theme, new_figure

_COLUMNS = 4  # pairs in a row
Pictured = tuple[np.ndarray, np.ndarray, FlaggedPair]


def pairs(pictured: Sequence[Pictured], title: str, left: str, theme: Theme) -> Figure:
    """Flagged slices, each beside the training slice that it resembles most: the first ones by correlation.

    Args:
        pictured: slice, training slice, both uint8 [S, S], and what is known of them.
        left: what the left one of each pair is.
    """
    rows = -(-len(pictured) // _COLUMNS)
    figure = new_figure(rows * WIDTH_IN / _COLUMNS * 0.66 + 0.5)
    figure.suptitle(f"{title}: left {left}, right the training slice", fontsize=TITLE_PT)
    for axes, pair in zip(figure.subplots(rows, _COLUMNS, squeeze=False).flat, _filled(pictured, rows), strict=True):
        axes.set_axis_off()
        if pair is None:
            continue
        drawn, training, about = pair
        gap = np.full((len(drawn), max(1, len(drawn) // 32)), 255, np.uint8)
        axes.imshow(np.concatenate([drawn, gap, training], 1), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(f"{about.correlation:.3f} / {about.features:.3f}", fontsize=SMALL_PT)
    return figure


def _filled(pictured: Sequence[Pictured], rows: int) -> list[Pictured | None]:
    return [*pictured, *[None] * (rows * _COLUMNS - len(pictured))]


def scores(
    drawn: np.ndarray, held_out: np.ndarray, planted: Mapping[str, np.ndarray], threshold: float, theme: Theme
) -> Figure:
    """How many slices correlate how much with their training slice, on a scale that is finer towards 1."""
    figure = new_figure(3.2)
    axes = figure.subplots()
    copies = np.concatenate([planted[kind] for kind in planted])
    edges = np.linspace(0, 9, 55)
    for values, label, color in (
        (held_out, f"real, held out (n = {len(held_out):,})", theme.real),
        (drawn, f"drawn (n = {len(drawn):,})", theme.cycle[0]),
        (copies, f"planted copies (n = {len(copies):,})", theme.cycle[1]),
    ):
        heights, _ = np.histogram(_scale(values), edges)
        axes.stairs(heights / max(1, len(values)), edges, label=label, color=color, linewidth=1.4)
    axes.axvline(_scale(np.array([threshold]))[0], color=theme.ink, linestyle="--", linewidth=1, label="threshold")
    ticks = np.array([0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9999])
    names = [f"{tick:g}" for tick in ticks[:-1]]
    axes.set_xticks(_scale(ticks), [*names, f"{ticks[-1]:g}\nand above"])
    axes.set_xlabel("correlation with the most similar training slice")
    axes.set_ylabel("share of slices")
    axes.legend(fontsize=SMALL_PT)
    return figure


def _scale(values: np.ndarray) -> np.ndarray:
    return np.asarray(-np.log(np.clip(1 - values, 1.3e-4, 1)))


def power(result: AuditResult, theme: Theme) -> Figure:
    """Share of the planted copies that is found, by kind, with intervals; and of held-out slices."""
    figure = new_figure(0.32 * (len(result.power) + 1) + 0.8)
    axes = figure.subplots()
    alarms = result.record("false_alarm_share")
    assert alarms is not None
    rows = [*result.power.items(), ("held out, no copies", alarms)]
    for place, (_, record) in enumerate(rows):
        low, high = record.low or 0.0, record.high or 0.0
        color = theme.real if record is alarms else theme.cycle[0]
        axes.errorbar(
            record.value, place, xerr=[[record.value - low], [high - record.value]], fmt="o", color=color, capsize=3
        )
    axes.set_yticks(range(len(rows)), [f"{kind} (n = {record.n:,})" for kind, record in rows])
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share flagged, with 95 % interval")
    axes.axvline(result.settings["min_power"], color=theme.ink, linestyle="--", linewidth=1)
    return figure


def growth(result: AuditResult, theme: Theme) -> Figure:
    """Training slices that were reproduced, and slices flagged, by the number drawn."""
    figure = new_figure(2.8)
    axes = figure.subplots()
    drawn, flagged, reproduced = zip(*result.growth, strict=True)
    axes.plot(drawn, flagged, "o-", color=theme.cycle[0], label="slices flagged", markersize=7, fillstyle="none")
    axes.plot(drawn, reproduced, "s--", color=theme.cycle[1], label="training slices reproduced", markersize=3)
    alarms = result.record("false_alarm_share")
    if alarms is not None:
        axes.plot(
            drawn, [n * alarms.value for n in drawn], "--", color=theme.real, label="false alarms that are expected"
        )
    axes.set_xlabel("slices drawn")
    axes.set_ylabel("slices", fontsize=TEXT_PT)
    axes.legend(fontsize=SMALL_PT)
    return figure
