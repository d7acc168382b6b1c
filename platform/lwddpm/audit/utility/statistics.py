"""Balanced accuracies over repetitions and test slices: intervals, paired differences, Holm's adjustment.

A figure varies for two reasons: with another draw of the training slices and another start of the learner (seeds), and
with other test slices. Its variance is the sum of both; of the seeds alone, a learner with one optimum would have none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean over seeds with its interval of 95 %, and the p-value (two-sided) that it is 0."""

    value: float
    low: float
    high: float
    p_value: float


def sensitivity(answers: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of each class's slices that are recognised, by seed: float64 [S, K]; NaN of a class without slices."""
    correct = answers == labels
    shares = [correct[:, labels == code].mean(1) if (labels == code).any() else np.nan for code in range(num_classes)]
    return np.stack([np.broadcast_to(share, len(answers)) for share in shares], 1)


def accuracy(answers: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Estimate:
    """Balanced accuracy: the mean sensitivity of the classes that there are slices of.

    Args:
        answers: int64 [S, T], of S seeds.
        labels, groups: of the test slices, int64 [T].
    """
    return _estimate((answers == labels).astype(float), labels, groups, least=True)


def difference(answers: np.ndarray, others: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Estimate:
    """How much higher the first balanced accuracy is, paired by seed and test slice; arguments as of `accuracy`."""
    paired = (answers == labels).astype(float) - (others == labels)
    return _estimate(paired, labels, groups, least=False)


def _estimate(values: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, least: bool) -> Estimate:
    """The mean over classes of the mean over slices, with a t interval of Satterthwaite's degrees of freedom.

    Args:
        values: of each seed and slice, float [S, T].
        least: values are shares: their variance is not taken to be 0 where all slices agree.
    """
    from scipy.stats import t as student

    codes, of_slice = np.unique(labels, return_inverse=True)
    counts = np.bincount(of_slice)
    weights = 1 / (len(codes) * counts[of_slice])
    by_seed = np.stack([values[:, of_slice == place].mean(1) for place in range(len(codes))]).mean(0)
    value, num_seeds = float(by_seed.mean()), len(by_seed)
    means = values.mean(0)
    of_class = np.bincount(of_slice, means) / counts
    # a group's slices are one observation (linearisation, as a cluster-robust variance has it)
    of_group = np.bincount(np.unique(groups, return_inverse=True)[1], weights * (means - of_class[of_slice]))
    num_groups = len(of_group)
    by_slices = float(num_groups / max(1, num_groups - 1) * (of_group**2).sum())
    if least:  # one slice right and one wrong are added to each class, as Agresti and Coull 1998 do
        shares = (of_class * counts + 1) / (counts + 2)
        by_slices = max(by_slices, float((shares * (1 - shares) / counts).sum() / len(codes) ** 2))
    by_seeds = float(by_seed.var(ddof=1) / num_seeds) if num_seeds > 1 else 0.0
    variance = by_seeds + by_slices
    limits = (0.0, 1.0) if least else (-1.0, 1.0)
    if variance <= 0:  # all agree: a sign test over the groups
        return Estimate(value, value, value, 1.0 if value == 0 else max(0.5 ** (num_groups - 1), 1e-12))
    free = variance**2 / (by_seeds**2 / max(1, num_seeds - 1) + by_slices**2 / max(1, num_groups - 1))
    half = float(student.ppf(0.975, free)) * variance**0.5
    p_value = float(2 * student.sf(abs(value) / variance**0.5, free))
    return Estimate(value, max(limits[0], value - half), min(limits[1], value + half), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): the smallest is multiplied by it, the next by one less, ..."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable").tolist()):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def worth(numbers: Sequence[int], accuracies: Sequence[float], reached: float) -> tuple[float, str]:
    """How many real slices alone reach an accuracy, between those that were measured.

    More slices are taken to do no harm: where the curve falls, it is read as level.

    Args:
        numbers, accuracies: of real slices alone, from the fewest.

    Returns:
        The number; "<" where even the fewest reach more, ">" where all reach less, else "".
    """
    curve = np.maximum.accumulate(accuracies)
    if reached < curve[0]:
        return float(numbers[0]), "<"
    if reached > curve[-1]:
        return float(numbers[-1]), ">"
    first = int(np.searchsorted(curve, reached, side="left"))  # the fewest that reach it
    if curve[first] == reached or first == 0:
        return float(numbers[first]), ""
    logs = np.log(numbers)
    place = (reached - curve[first - 1]) / (curve[first] - curve[first - 1])
    return float(np.exp(logs[first - 1] + place * (logs[first] - logs[first - 1]))), ""
