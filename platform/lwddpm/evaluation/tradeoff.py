"""Which ways to draw are worth taking: the Pareto front of measured ones, and the three that are recommended.

A way to draw is sampled with several seeds. Its figures are means over them; what two means differ by counts only
beyond noise, twice the standard error of a difference. The error is pooled over all ways: of three samplings each tells
little.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, computed_field

from lwddpm.config import CLASS_MEASURES
from lwddpm.config.section import is_empty
from lwddpm.evaluation.copying import COPIED_SHARE
from lwddpm.evaluation.result import Record

DISTANCE, PRECISION, RECALL, DENSITY, COVERAGE = (
    "fd_lite0",
    "precision_lite0",
    "recall_lite0",
    "density_lite0",
    "coverage_lite0",
)
METRICS = (DISTANCE, PRECISION, RECALL, DENSITY, COVERAGE)
OBEDIENCE, IN_CLASS = "obedience_lite0", "fd_lite0_in_class"  # of slices that were asked for a class
ALSO = (*CLASS_MEASURES, COPIED_SHARE)  # told beside METRICS where they are measured; they recommend nothing
Aim = Literal["realistic", "balanced", "diverse"]
AIMS: dict[Aim, str] = {
    "realistic": "highest precision of those with at least half of the best recall",
    "balanced": "lowest Fréchet distance",
    "diverse": "highest recall of those with at least half of the best precision",
}
_NOISE = 2.0  # standard errors


class Way(Record):
    """A way to draw, measured.

    Attributes:
        label: what it differs in, in words.
        varied: which setting, such as `guidance`; `preset` for the one that the others differ from.
        sampling: its settings, as in a preset.
        words: the same in one line.
        weights: `model`, or of which snapshot or average they are.
        network_calls: that draw a slice.
        values: of each metric one value for each sampling seed.
        by_class: the same by class, of the slices that were asked for it against training slices of it; empty of models
            that are not told classes. Classes of too few slices are left out.
        nearest: median distance to the nearest training slice, of each sampling.
        copies: whether a sampling's slices are copies of training slices (`evaluation.copying`).
    """

    label: str
    varied: str
    sampling: dict[str, Any]
    words: str
    weights: str
    network_calls: int
    values: dict[str, tuple[float, ...]]
    nearest: tuple[float, ...]
    copies: bool
    by_class: dict[str, dict[str, tuple[float, ...]]] = Field({}, exclude_if=is_empty)

    def mean(self, metric: str, of_class: str | None = None) -> float:
        """Over samplings; NaN where it was not measured."""
        values = self._values(metric, of_class)
        return float(np.mean(values)) if values else math.nan

    def spread(self, metric: str, of_class: str | None = None) -> float:
        """Standard deviation over samplings; 0 where it was not measured."""
        values = self._values(metric, of_class)
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def _values(self, metric: str, of_class: str | None) -> tuple[float, ...]:
        measured = self.values if of_class is None else self.by_class.get(of_class, {})
        return measured.get(metric, ())


class Recommendation(Record):
    """A way that is recommended for an aim, and why."""

    label: str
    why: str


class Tradeoff(Record):
    """All that was measured: the content of `tradeoff.json`.

    Attributes:
        model_uri: what was drawn from, by number where it is registered.
        floors: what real held-out slices score, by metric.
        nearest_floor: their median distance to the nearest training slice.
        n, num_reference: slices of a sampling, and training slices that they are compared with.
        left_out: ways that were not measured, with the reason.
        class_floors, class_n: by class, what its real held-out slices score, and how many slices of it are compared.
    """

    model_uri: str
    dataset_version: str
    simulated: bool
    image_size: int
    n: int
    num_reference: int
    sampling_seeds: tuple[int, ...]
    floors: dict[str, float]
    nearest_floor: float
    ways: tuple[Way, ...]
    left_out: dict[str, str] = Field({})
    class_floors: dict[str, dict[str, float]] = Field({}, exclude_if=is_empty)
    class_n: dict[str, int] = Field({}, exclude_if=is_empty)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is told of every way: METRICS, and those of ALSO that were measured."""
        return METRICS + tuple(name for name in ALSO if any(name in way.values for way in self.ways))

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that are measured by themselves."""
        return tuple(self.class_n)

    def floor(self, metric: str, of_class: str | None = None) -> float | None:
        """What real held-out slices score; None where it is not known."""
        floors = self.floors if of_class is None else self.class_floors.get(of_class, {})
        return floors.get(metric)

    def may_be_recommended(self, way: Way) -> bool:
        """With the model's own weights, finite figures, and no copies."""
        figures = [*way.nearest, *(value for metric in METRICS for value in way.values[metric])]
        return way.weights == "model" and all(map(math.isfinite, figures)) and not way.copies

    @computed_field  # type: ignore[prop-decorator]
    @property
    def recommended(self) -> dict[Aim, Recommendation]:
        """The way for each aim; empty where none may be recommended."""
        ways = [way for way in self.ways if self.may_be_recommended(way)]
        if not ways:
            return {}
        recall, precision = (max(way.mean(name) for way in ways) for name in (RECALL, PRECISION))
        among = {
            "realistic": ([way for way in ways if way.mean(RECALL) >= recall / 2], PRECISION, 1),
            "balanced": (ways, DISTANCE, -1),
            "diverse": ([way for way in ways if way.mean(PRECISION) >= precision / 2], RECALL, 1),
        }
        return {aim: self._best(aim, *among[aim]) for aim in AIMS}

    def _best(self, aim: Aim, ways: Sequence[Way], metric: str, sign: int) -> Recommendation:
        """The cheapest of those that differ from the best by no more than noise; of equally cheap ones the best."""
        noise = noise_of([way for way in self.ways if self.may_be_recommended(way)], metric)
        best = max(ways, key=lambda way: sign * way.mean(metric))
        near = [
            way for way in ways if abs(_scaled(best.mean(metric), metric) - _scaled(way.mean(metric), metric)) <= noise
        ]
        chosen = min(near, key=lambda way: (way.network_calls, -sign * way.mean(metric)))
        why = f"{AIMS[aim]}: {metric} {chosen.mean(metric):.3g}"
        if chosen is not best:
            why += f"; {best.label} has {best.mean(metric):.3g}, no more than noise, in {best.network_calls} calls"
        return Recommendation(label=chosen.label, why=why)


def front(points: Sequence[tuple[float, float]], higher: tuple[bool, bool]) -> list[int]:
    """Which of some points no other one is better than in one respect and at least as good in the other, ascending by
    the first coordinate. Points that are not finite are on no front.

    Args:
        higher: for each coordinate whether more is better.
    """
    signs = [1 if up else -1 for up in higher]
    known = [(signs[0] * x, signs[1] * y, index) for index, (x, y) in enumerate(points) if math.isfinite(x + y)]
    kept: list[int] = []
    best = -math.inf
    previous: tuple[float, float] | None = None
    for x, y, index in sorted(known, key=lambda point: (-point[0], -point[1], point[2])):
        if y > best or (x, y) == previous:
            kept.append(index)
            best, previous = y, (x, y)
    return sorted(kept, key=lambda index: (points[index][0], points[index][1], index))


def noise_of(ways: Sequence[Way], metric: str) -> float:
    """Up to what two means over samplings differ by chance: of a Fréchet distance the logarithm, for large ones vary
    more; of the others the value."""
    values = [_scaled(np.array(way.values[metric]), metric) for way in ways]
    variance = float(np.mean([np.var(each, ddof=1) for each in values]))
    return _NOISE * math.sqrt(2 * variance / len(values[0]))


def _scaled(value: Any, metric: str) -> Any:
    return np.log(np.maximum(value, 1e-12)) if metric == DISTANCE else value
