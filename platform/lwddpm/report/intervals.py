"""Means with intervals, differences, ratios: what may be said from a few repeats. All at 95 %.

Student's interval for a mean; Welch's for the difference of two means (unequal variances); a ratio is a difference of
logarithms. Without repeats there is no interval, and nothing is decided. Where several differences decide together,
their p-values are corrected by Holm's method.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class MeanInterval(NamedTuple):
    """A mean with its interval; the bounds are None without repeats.

    Attributes:
        n: number of repeats.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        return None if self.high is None else self.high - self.mean


class Difference(NamedTuple):
    """First minus second, or first over second for a ratio, with its interval.

    Attributes:
        differs: -1 where the first is smaller, 1 where it is larger, 0 where the noise cannot tell.
    """

    value: float
    low: float | None
    high: float | None
    differs: int


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """Mean of repeats.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    repeats = _finite(values)
    mean, n = float(repeats.mean()), len(repeats)
    if n < 2:
        return MeanInterval(mean, None, None, n)
    half = _quantile(n - 1) * float(repeats.std(ddof=1)) / math.sqrt(n)
    return MeanInterval(mean, mean - half, mean + half, n)


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Mean of the first minus mean of the second; undecided unless both were repeated."""
    value, spread, freedom = _welch(first, second)
    if spread is None:
        return Difference(value, None, None, 0)
    if spread == 0:
        return Difference(value, value, value, _sign(value))
    half = _quantile(freedom) * math.sqrt(spread)
    low, high = value - half, value + half
    return Difference(value, low, high, 1 if low > 0 else -1 if high < 0 else 0)


def p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Of Welch's test, two-sided, for equal means: below 0.05 where `difference` differs; 1 without repeats."""
    from scipy.stats import t

    value, spread, freedom = _welch(first, second)
    if spread is None or value == 0:
        return 1.0
    return 0.0 if spread == 0 else float(2 * t.sf(abs(value) / math.sqrt(spread), freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: all that lie below a level may be believed together, with an error of that level in all.

    Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def ratio(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Geometric mean of the first over that of the second.

    Raises:
        ValueError: a value is not above zero.
    """
    a, b = _finite(first), _finite(second)
    if min(a.min(), b.min()) <= 0:
        raise ValueError(f"a ratio needs values above 0, got {min(a.min(), b.min())}")
    logs = difference(np.log(a).tolist(), np.log(b).tolist())
    low, high = (None if bound is None else math.exp(bound) for bound in (logs.low, logs.high))
    return Difference(math.exp(logs.value), low, high, logs.differs)


def ties(rows: Sequence[Sequence[float]], *, lowest: bool) -> list[bool]:
    """Which rows the noise cannot tell from the best one; the best itself only if another is.

    Args:
        rows: repeats of every row.
        lowest: whether low values are good.
    """
    means = [mean_interval(row).mean for row in rows]
    best = means.index(min(means) if lowest else max(means))
    tied = [index != best and difference(row, rows[best]).differs == 0 for index, row in enumerate(rows)]
    tied[best] = any(tied)
    return tied


def _welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float | None, float]:
    """Difference of the means, its variance (None unless both were repeated), and the degrees of freedom."""
    a, b = _finite(first), _finite(second)
    value = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return value, None, 0
    spread_a, spread_b = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    spread = spread_a + spread_b
    weights = spread_a**2 / (len(a) - 1) + spread_b**2 / (len(b) - 1)
    # tiny spreads underflow when squared: fewer degrees of freedom are the careful choice
    return value, spread, spread**2 / weights if weights > 0 else min(len(a), len(b)) - 1


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"a mean needs finite values, at least one, got {list(values)}")
    return array


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _quantile(freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, freedom))
