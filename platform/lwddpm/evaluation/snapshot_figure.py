"""Quality and copying of the snapshots of a training, against epochs, as one figure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lwddpm.evaluation.figure_style import LIGHT, Theme, log_scale_if_wide, new_figure, style_axes

SNAPSHOTS = "quality_and_copying"  # the figure's name


class SnapshotPoint(NamedTuple):
    """What a snapshot scores.

    Attributes:
        distance: Fréchet distance, lower is better.
        copied: share of its slices that are copies of training slices; None: nobody looked.
        interval: of that share, at 95 %; None: not known.
    """

    epoch: float
    distance: float
    copied: float | None
    interval: tuple[float, float] | None = None


def quality_and_copying(
    points: Sequence[SnapshotPoint], floor: float | None, distance: str, n: int, theme: Theme = LIGHT
) -> Figure:
    """The distance above, the copied share below: where the one still falls and the other rises, slices are learnt by
    heart.

    Args:
        points: by rising epoch.
        floor: the copied share of real held-out slices; None: not known.
        distance: its name.
        n: slices drawn of each snapshot.
    """
    figure = new_figure(4.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    color, real = theme.systems["lw_ddpm"], theme.real
    for axes in (above, below):
        style_axes(axes)
    above.plot([p.epoch for p in points], [p.distance for p in points], color=color, marker="o", markersize=4)
    above.set_ylabel(f"{distance} (lower is better), n = {n}")
    log_scale_if_wide(above, np.array([p.distance for p in points]), span=6)
    known = [point for point in points if point.copied is not None]
    for point in known:
        low, high = point.interval or (point.copied, point.copied)
        below.plot([point.epoch] * 2, [low, high], color=color, linewidth=0.8)
    below.plot([p.epoch for p in known], [p.copied for p in known], color=color, marker="o", markersize=4)
    if floor is not None:
        below.axhline(floor, color=real, linestyle=":", linewidth=1.2, label="real held-out slices")
        below.legend()
    below.set_ylim(bottom=-0.03 * below.get_ylim()[1])  # a mark at 0 is whole, and no share below 0 is named
    below.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    below.set_ylabel("copies")
    below.set_xlabel("epochs of training")
    return figure
