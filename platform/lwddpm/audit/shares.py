"""Counts as shares with exact intervals, and what the flagged slices say of the training slices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Share:
    """`count` of `n`, with the exact interval of Clopper and Pearson 1934, two-sided at 95 %."""

    count: int
    n: int
    value: float
    low: float
    high: float


def share_of(count: int, n: int) -> Share:
    """The share, and between which shares of the population it leaves it open; 0 to 1 for n = 0."""
    from scipy.stats import binomtest

    if n == 0:
        return Share(0, 0, 0.0, 0.0, 1.0)
    interval = binomtest(count, n).proportion_ci(0.95, method="exact")
    return Share(count, n, count / n, float(interval.low), float(interval.high))


def exceeds(one: Share, other: Share) -> float:
    """p-value of Fisher's exact test that the first share is the larger one by chance alone."""
    from scipy.stats import fisher_exact

    table = [[one.count, one.n - one.count], [other.count, other.n - other.count]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def reproduced(flags: np.ndarray, matches: np.ndarray, members: Sequence[object] | np.ndarray) -> Share:
    """Share of training slices, or of their subjects, that at least one flagged slice is a copy of.

    Args:
        flags: bool [N].
        matches: row of the training slice that each resembles most, int64 [N].
        members: what each training slice belongs to: itself, or its subject; [T].
    """
    return share_of(len({members[row] for row in matches[flags].tolist()}), len(set(members)))


def growth(flags: np.ndarray, matches: np.ndarray, points: int = 12) -> list[tuple[int, int, int]]:
    """After how many slices drawn, how many were flagged, and how many training slices they reproduce."""
    drawn = np.unique(np.geomspace(min(10, len(flags)), len(flags), points).astype(int))
    return [(int(n), int(flags[:n].sum()), len(np.unique(matches[:n][flags[:n]]))) for n in drawn]


def by_class(flags: np.ndarray, matches: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Share]:
    """The flagged share by class of the training slice that each slice resembles most."""
    of_match = labels[matches]
    return {
        name: share_of(int(flags[of_match == number].sum()), int((of_match == number).sum()))
        for number, name in enumerate(names)
    }


def mixed(flags: np.ndarray, found: np.ndarray, planted: float) -> Share:
    """The flagged share after the last slices were replaced by planted copies, at least one.

    Args:
        flags: whether each slice drawn was flagged, bool [N].
        found: whether each planted copy was, bool [M]; used again where there are fewer than are planted.
        planted: share of the slices that are replaced.
    """
    num = max(1, round(planted * len(flags)))
    return share_of(int(flags[: len(flags) - num].sum()) + int(np.resize(found, num).sum()), len(flags))
