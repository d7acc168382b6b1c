"""Figures made of numbers: the paper's 6, 7, 9, and quality against steps, epochs and sample size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from lwddpm.evaluation.copying import COPIED_SHARE
from lwddpm.evaluation.figure_style import SMALL_PT, WIDTH_IN, Theme, log_scale_if_wide, new_figure
from lwddpm.evaluation.noise import wasserstein
from lwddpm.report import results
from lwddpm.report.data import GAUSSIAN, Measurement, NoiseHistogram, ReportData
from lwddpm.report.intervals import mean_interval
from lwddpm.report.published import GANS, SYSTEMS
from lwddpm.report.style import DASHES, MARKS, display_name, height_of, rows_of_slices

BOOTSTRAPS = 200


def quality(data: ReportData, theme: Theme) -> Figure:
    """The table's quality columns with intervals and floors."""
    rows = [row for row in results.rows(data.report) if row.distance]
    figure = new_figure(0.8 + 0.28 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, quantity, label in (
        (left, "distance", f"{_distance(data)} (lower is better)"),
        (right, "ssim", "SSIM to the nearest test slice"),
    ):
        floor = None
        for place, row in enumerate(rows):
            value = getattr(row, quantity)
            if value is None:
                continue
            name = row.system.name
            half = value.estimate.half_width
            axes.errorbar(
                value.estimate.mean,
                place,
                xerr=None if half is None else [[half], [half]],
                fmt=MARKS[name],
                color=theme.systems[name],
                markersize=5,
                markerfacecolor=None if row.published or name == GAUSSIAN else "none",
                capsize=3,
                linewidth=1.2,
            )
            if name == GAUSSIAN:
                axes.axvline(value.estimate.mean, label=display_name(name), **_baseline_line(theme))
            floor = floor if floor is not None else value.floor
        if floor is not None:
            axes.axvline(floor, color=theme.real, linestyle=(0, (1, 1)), linewidth=1.2, label="real held-out slices")
        if axes.get_legend_handles_labels()[1] and axes is left:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2)
        axes.set_xlabel(label)
        axes.grid(visible=False, axis="y")
    left.set_yticks(range(len(rows)), [row.name for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    return figure


def noise(data: ReportData, theme: Theme) -> Figure:
    """Figure 6: pixels of true and of predicted noise."""
    order = list(SYSTEMS)
    histograms = sorted(data.report.noise, key=lambda histogram: order.index(histogram.system))
    figure = new_figure(2.5)
    panels = figure.subplots(1, len(histograms), sharey=True, squeeze=False)[0]
    for axes, histogram in zip(panels, histograms, strict=True):
        edges = np.array(histogram.edges)
        true, predicted = _density(histogram.true, edges), _density(histogram.predicted, edges)
        axes.stairs(true, edges, fill=True, color=theme.faint, label="true noise")
        axes.stairs(predicted, edges, color=theme.systems[histogram.system], linewidth=1.3, label="predicted")
        value, low, high = noise_distance(histogram)
        axes.set_title(f"{display_name(histogram.system)}\nW$_1$ = {value:.3f} ({low:.3f} to {high:.3f})")
        axes.set_xlim(-4, 4)
        axes.set_xlabel("noise (standard deviations)")
    panels[0].set_ylabel("share of pixels per unit")
    panels[0].legend(loc="upper left", fontsize=7, handlelength=1.2, borderaxespad=0)
    panels[0].set_ylim(top=1.3 * panels[0].get_ylim()[1])
    return figure


def noise_distance(histogram: NoiseHistogram, seed: int = 0) -> tuple[float, float, float]:
    """Wasserstein distance of predicted from true noise with its 95 % interval, by resampling slices."""
    edges = np.array(histogram.edges)
    true, predicted = np.array(histogram.true), np.array(histogram.predicted)
    value = wasserstein(edges, true.sum(0), predicted.sum(0))
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(BOOTSTRAPS):
        chosen = generator.integers(len(true), size=len(true))
        drawn.append(wasserstein(edges, true[chosen].sum(0), predicted[chosen].sum(0)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return value, float(low), float(high)


def losses(data: ReportData, theme: Theme) -> Figure:
    """Figure 7: what every system minimised; the scales of different losses say nothing about each other."""
    denoising = [name for name in _systems(data) if name not in GANS and _curves(data, name)]
    adversarial = [name for name in _systems(data) if name in GANS and _curves(data, name)]
    panels = [names for names in (denoising, *([name] for name in adversarial)) if names]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(2.3 * rows + 0.1)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, names in zip(grid, panels, strict=False):
        for name in names:
            for index, (metric, points) in enumerate(_curves(data, name).items()):
                what = _metric_name(metric, name)
                label = f"{display_name(name)}, {what}" if len(names) > 1 else what
                validation = metric.startswith("val/")
                color = theme.systems[name] if len(names) > 1 or index == 0 else theme.ink
                axes.plot(
                    points[:, 1],
                    points[:, 2],
                    color=color,
                    linewidth=0.9,
                    linestyle="none" if validation else "-",
                    marker=MARKS[name] if validation else None,
                    markersize=3.5,
                    markerfacecolor="none" if validation else None,
                    label=label,
                )
        if names == denoising:
            _log_if_wide(axes)
        if names != denoising:
            axes.set_title(display_name(names[0]))
        axes.set_xlabel("epochs")
        axes.set_ylabel("loss")
        axes.legend()
    for axes in list(grid):
        axes.set_visible(False)
    return figure


def schedules(data: ReportData, theme: Theme) -> Figure:
    """Figure 9: samples, signal-to-noise ratio and Fréchet distance with either schedule."""
    variants = results.ablation(data.report, "schedule")
    rows = [
        (f"{display_name(v.system)}\n{v.label}", data.images[key])
        for v in variants
        if (key := f"schedule/{v.system}/{v.label}") in data.images
    ]
    upper = height_of(len(rows), max(len(images) for _, images in rows), 1.0) if rows else 0.1
    figure = new_figure(upper + 2.6)
    figure.set_layout_engine("constrained", h_pad=0.08)
    parts: Any = figure.subfigures(2, 1, height_ratios=[upper, 2.5])
    top, bottom = parts
    for part in (top, bottom):
        part.set_facecolor(theme.paper)
    if rows:
        rows_of_slices(top.subplots(), rows, theme)
    left, right = bottom.subplots(1, 2)
    for index, (name, values) in enumerate(data.report.snr.items()):
        left.plot(10 * np.log10(values), color=theme.cycle[index], linestyle=("-", "--")[index % 2], label=name)
    left.set_xlabel("timestep t")
    left.set_ylabel("signal-to-noise ratio (dB)")
    left.legend(title="schedule", title_fontsize=SMALL_PT)
    _dots(right, variants, theme)
    right.set_xlabel(f"{_distance(data)}, n = {results.num_slices(data.report.group('schedule'))}")
    return figure


def ablation(data: ReportData, name: str, theme: Theme) -> Figure:
    """One ablation: samples above, distances below."""
    variants = results.ablation(data.report, name)
    figure = new_figure(0.7 + 0.34 * len(variants))
    axes = figure.subplots()
    _dots(axes, variants, theme)
    axes.set_xlabel(f"{_distance(data)} (lower is better), n = {results.num_slices(data.report.group(name))}")
    return figure


def _dots(axes: Axes, variants: Sequence[results.VariantRow], theme: Theme) -> None:
    for place, variant in enumerate(variants):
        estimate = variant.distance.estimate
        half = estimate.half_width
        axes.errorbar(
            estimate.mean,
            place,
            xerr=None if half is None else [[half], [half]],
            fmt=MARKS[variant.system],
            color=theme.systems[variant.system],
            markersize=5,
            capsize=3,
        )
    floor = next((v.distance.floor for v in variants if v.distance.floor is not None), None)
    if floor is not None:
        axes.axvline(floor, color=theme.real, linestyle=(0, (1, 1)), linewidth=1.2, label="real held-out slices")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    many = len({variant.system for variant in variants}) > 1
    names = [f"{display_name(v.system)}, {display_name(v.label)}" if many else display_name(v.label) for v in variants]
    axes.set_yticks(range(len(variants)), names)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def steps(data: ReportData, theme: Theme) -> Figure:
    """Quality against sampling steps."""
    measurements = data.report.group("steps")
    figure = new_figure(2.9)
    left, right = figure.subplots(1, 2)
    for axes, metric in ((left, data.report.distance), (right, results.SSIM)):
        for index, label in enumerate(dict.fromkeys(m.label for m in measurements)):
            points = sorted(
                (m.x or 0, m.values[metric]) for m in measurements if m.label == label and metric in m.values
            )
            xs, ys = zip(*points, strict=True) if points else ((), ())
            axes.plot(
                xs, ys, color=theme.cycle[index], marker="osD"[index % 3], markersize=4, label=display_name(label)
            )
        _floor_line(axes, measurements, metric, theme)
        _baseline_level(axes, data, metric, theme)
        axes.set_xscale("log")
        places = sorted({int(m.x or 0) for m in measurements})
        axes.set_xticks(places, [str(place) for place in places])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("sampling steps")
    _log_if_wide(left)
    left.set_ylabel(_distance(data))
    right.set_ylabel("SSIM to the nearest test slice")
    left.legend(title="sampler", title_fontsize=SMALL_PT)
    return figure


def quality_by_epoch(data: ReportData, theme: Theme) -> Figure:
    """Quality against training epochs, and below it, where it was measured, the copied share."""
    measurements = data.report.group("epochs")
    copied = [m for m in measurements if COPIED_SHARE in m.values]
    figure = new_figure(4.4 if copied else 3.0)
    axes, *below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1]) if copied else [figure.subplots()]
    for name in _systems(data):
        points = sorted((m.x or 0, m.values[data.report.distance]) for m in measurements if m.label == name)
        if points:
            xs, ys = zip(*points, strict=True)
            axes.plot(
                xs,
                ys,
                color=theme.systems[name],
                linestyle=DASHES[name],
                marker=MARKS[name],
                markersize=4,
                label=display_name(name),
            )
    _floor_line(axes, measurements, data.report.distance, theme)
    _baseline_level(axes, data, data.report.distance, theme)
    _log_if_wide(axes)
    for under in below:
        for name in _systems(data):
            points = sorted((m.x or 0, m.values[COPIED_SHARE]) for m in copied if m.label == name)
            style: dict[str, Any] = {"color": theme.systems[name], "linestyle": DASHES[name], "marker": MARKS[name]}
            under.plot(*(zip(*points, strict=True) if points else ([], [])), markersize=4, **style)
        _floor_line(under, copied, COPIED_SHARE, theme)
        under.set_ylim(bottom=-0.01)
        under.set_ylabel("copied share")
    (below[0] if below else axes).set_xlabel("epochs of training")
    axes.set_ylabel(f"{_distance(data)}, n = {results.num_slices(measurements)}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def sample_size(data: ReportData, theme: Theme) -> Figure:
    """Fréchet distance against the number of slices: part of every value is the number's doing."""
    sample_sizes = data.report.sample_sizes
    figure = new_figure(2.9, WIDTH_IN * 0.8)
    axes = figure.subplots()
    for label in dict.fromkeys(size.label for size in sample_sizes):
        sizes = [size for size in sample_sizes if size.label == label]
        color, mark = theme.systems.get(label, theme.real), MARKS.get(label, "x")
        means = [mean_interval(size.values).mean for size in sizes]
        axes.plot([s.n for s in sizes], means, color=color, linewidth=1, label=display_name(label))
        for size in sizes:
            axes.plot([size.n] * len(size.values), size.values, mark, color=color, markersize=3.5)
    axes.set_xscale("log")
    places = sorted({size.n for size in sample_sizes})
    axes.set_xticks(places, [str(place) for place in places])
    axes.xaxis.set_minor_locator(NullLocator())
    _log_if_wide(axes)
    axes.set_xlabel("slices n that are compared with the training slices")
    axes.set_ylabel(_distance(data))
    axes.legend()
    return figure


def _floor_line(axes: Axes, measurements: Sequence[Measurement], metric: str, theme: Theme) -> None:
    floor = next((m.floors[metric] for m in measurements if metric in m.floors), None)
    if floor is not None:
        axes.axhline(floor, color=theme.real, linestyle=(0, (1, 1)), linewidth=1.2, label="real held-out slices")


def _baseline_level(axes: Axes, data: ReportData, metric: str, theme: Theme) -> None:
    """What a Gaussian without a network scores, measured as the curves are."""
    measured = [m for m in data.report.group("baseline") if m.label == "curves" and metric in m.values]
    if measured:
        axes.axhline(measured[0].values[metric], label=display_name(GAUSSIAN), **_baseline_line(theme))


def _baseline_line(theme: Theme) -> dict[str, Any]:
    return {"color": theme.systems[GAUSSIAN], "linestyle": (0, (6, 2)), "linewidth": 1.2}


def _log_if_wide(axes: Axes) -> None:
    log_scale_if_wide(axes, np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]), span=6)


def _density(counts: Sequence[Sequence[int]], edges: np.ndarray) -> np.ndarray:
    total = np.array(counts).sum(0)
    density: np.ndarray = total / total.sum() / np.diff(edges)
    return density


def _curves(data: ReportData, system: str) -> dict[str, np.ndarray]:
    return {metric: points for (name, metric), points in data.curves.items() if name == system}


def _metric_name(metric: str, system: str) -> str:
    names = {
        "train/loss": "generator" if system in GANS else "training",
        "train/loss_discriminator": "critic" if system == "wgan" else "discriminator",
        "val/loss": "validation",
    }
    return names.get(metric, metric)


def _systems(data: ReportData) -> list[str]:
    present = {system.name for system in data.report.systems}
    return [name for name in SYSTEMS if name in present]


def _distance(data: ReportData) -> str:
    return results.DISTANCE_NAMES[data.report.distance]
