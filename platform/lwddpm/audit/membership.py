"""Whether a model betrays which slices it was trained on: membership inference by its denoising loss.

A slice that was trained on is denoised a little better. How hard slices are to denoise differs far more; so each loss
is calibrated by the slice's own difficulty: the mean log loss of the real slices whose features are nearest to it,
trained on or not (Watson et al. 2022, arXiv:2111.08440, with neighbours in place of a second model). The attack is that
of whoever holds the weights and a scan.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

NEIGHBOURS = 20
FALSE_POSITIVE_RATE = 0.01
_BOOTSTRAPS = 300


class Attack(NamedTuple):
    """How well members are told from others; intervals of 95 %, from drawing groups again.

    Attributes:
        auc: share of pairs in which the member scores higher; 0.5: nothing is betrayed.
        tpr: share of members that score higher than all but 1 % of the others; 0.01: nothing is betrayed.
        members, others: slices of each.
    """

    auc: float
    auc_interval: tuple[float, float]
    tpr: float
    tpr_interval: tuple[float, float]
    members: int
    others: int


def calibrated(losses: np.ndarray, features: Tensor) -> np.ndarray:
    """How much better each slice is denoised than those like it.

    Args:
        losses: denoising loss by slice and timestep, averaged over noises, float [N, K].
        features: of the slices, float [N, D].

    Returns:
        float [N]: the higher, the more it looks trained on.
    """
    logs = np.log(np.maximum(losses, 1e-12))
    distances = torch.cdist(features, features).fill_diagonal_(torch.inf)
    near = distances.topk(min(NEIGHBOURS, len(features) - 1), largest=False).indices.numpy()
    return np.asarray((logs[near].mean(1) - logs).mean(1))


def attack(member: np.ndarray, other: np.ndarray, member_groups: np.ndarray, other_groups: np.ndarray) -> Attack:
    """Judge scores of slices that were trained on against those of held-out ones.

    Args:
        member, other: scores, float [N] and [M].
        member_groups, other_groups: by which they are drawn again, int64.
    """
    draw, told = np.random.default_rng(0), []
    rows = [_rows(groups) for groups in (member_groups, other_groups)]
    for _ in range(_BOOTSTRAPS):
        one, two = (
            scores[np.concatenate([of[i] for i in draw.integers(len(of), size=len(of))])]
            for scores, of in zip((member, other), rows, strict=True)
        )
        told.append((auc_of(one, two), tpr_of(one, two)))
    (auc_low, tpr_low), (auc_high, tpr_high) = np.quantile(told, [0.025, 0.975], axis=0).tolist()
    return Attack(
        auc_of(member, other), (auc_low, auc_high), tpr_of(member, other), (tpr_low, tpr_high), len(member), len(other)
    )


def auc_of(member: np.ndarray, other: np.ndarray) -> float:
    """Share of pairs in which the member has the higher score, ties as halves."""
    ordered = np.sort(other)
    below, to = np.searchsorted(ordered, member, "left"), np.searchsorted(ordered, member, "right")
    return float((below + to).mean() / 2 / len(other))


def tpr_of(member: np.ndarray, other: np.ndarray) -> float:
    """Share of members above the score that 1 % of the others exceed."""
    allowed = int(FALSE_POSITIVE_RATE * len(other))
    return float((member > np.sort(other)[len(other) - 1 - allowed]).mean())


def _rows(groups: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(groups == group) for group in np.unique(groups)]
