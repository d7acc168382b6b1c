"""The arms of a study of utility: what each learner learns from, and which slices these are.

Real subsets are drawn by group, so that a tenth of the slices is what a tenth of the people gives, and by class. Those
of one seed are nested: a larger share holds the smaller ones. Synthetic slices have the class counts of the real ones
beside them. A learner takes the same number of optimizer steps in every arm: a gain is never a longer training.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lwddpm.config import Learner, UtilityConfig


class Arm(NamedTuple):
    """What one learner learns from.

    Attributes:
        share: of the real training slices; 0: from synthetic slices alone.
        ratio: synthetic slices for each real one; of a share of 0, for each slice of the training split.
        seed: number of the repetition.
    """

    learner: Learner
    share: float
    ratio: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.learner}-r{self.share:g}-k{self.ratio:g}-s{self.seed}"


def mixtures(config: UtilityConfig) -> list[tuple[float, float]]:
    """Shares and ratios, synthetic slices alone first."""
    return [(0.0, 1.0), *((share, ratio) for share in config.real_shares for ratio in config.synthetic_ratios)]


def arms(config: UtilityConfig) -> list[Arm]:
    """All of them, the quick learner's first."""
    return [
        Arm(learner, share, ratio, seed)
        for learner in config.learners
        for share, ratio in mixtures(config)
        for seed in range(config.seeds)
    ]


def real_rows(labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Rows of a share of the real slices, whole groups, of each class about that share and one group at least.

    Args:
        labels, groups: of the training slices, int64 [N].
    """
    if share >= 1:
        return np.arange(len(labels))
    if share <= 0:
        return np.empty(0, np.int64)
    order = np.random.default_rng([seed, 0]).permutation(np.unique(groups))
    members = {group: np.flatnonzero(groups == group) for group in order.tolist()}
    class_of = {group: int(np.bincount(labels[rows]).argmax()) for group, rows in members.items()}
    chosen: list[np.ndarray] = []
    for code in np.unique(labels):
        of_class = [group for group in order.tolist() if class_of[group] == code]
        counts = np.cumsum([len(members[group]) for group in of_class])
        wanted = share * (labels == code).sum()
        taken = max(1, int(np.abs(counts - wanted).argmin()) + 1) if len(of_class) else 0
        chosen += [members[group] for group in of_class[:taken]]
    return np.sort(np.concatenate(chosen))


def synthetic_rows(asked: np.ndarray, counts: Sequence[int] | np.ndarray, seed: int) -> np.ndarray:
    """Rows of synthetic slices at random, so many of each class, or all that there are.

    Args:
        asked: the class that each was asked for, int64 [M]; -1: none, which is never chosen.
        counts: slices of each class, [K].
    """
    draw = np.random.default_rng([seed, 1])
    chosen = [np.empty(0, np.int64)]
    for code, count in enumerate(counts):
        rows = draw.permutation(np.flatnonzero(asked == code))
        chosen.append(rows[:count])
    return np.sort(np.concatenate(chosen))
