"""What sets of slices say together: whether generated ones lie closer to the training slices than real ones do.

All three compare slices in the feature space of EfficientNet-Lite0, and are weak: a tenth of copies hardly moves them.
p-values are of permutations: of which slices are called generated, and which held out.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import norm, rankdata
from torch import Tensor

from lwddpm.evaluation.distances import ReferenceStatistics

_PERMUTATIONS = 999
_FD_PERMUTATIONS = 39  # each takes two Fréchet distances


class SetTest(NamedTuple):
    """A statistic, its p-value against copying, and what held-out slices score in place of generated ones."""

    value: float
    p_value: float
    n: int


def nearest_distances(slices: Tensor, others: Tensor) -> Tensor:
    """Euclidean distance of each row to the nearest of others, [N]; features float [N, D] and [M, D]."""
    return torch.cdist(slices.double(), others.double()).min(1).values


def data_copying(generated: Tensor, held_out: Tensor, train: Tensor, seed: int = 0) -> SetTest:
    """C_T of Meehan, Chaudhuri & Dasgupta 2020 (arXiv:2004.05675), section 3, over the whole space as one cell.

    The z of Mann and Whitney's U of the distances to the nearest training slice, generated against held-out: far below
    0 where generated slices lie closer; the paper calls -3 copying.

    Args:
        generated, held_out, train: features, float [N, D], [M, D], [T, D].
    """
    ranks = rankdata(torch.cat([nearest_distances(each, train) for each in (generated, held_out)]).numpy())
    n, m = len(generated), len(held_out)

    def z(of_generated: np.ndarray) -> float:
        u = of_generated.sum() - n * (n + 1) / 2
        return float((u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))

    draw, value = np.random.default_rng(seed), z(ranks[:n])
    null = np.array([z(draw.permutation(ranks)[:n]) for _ in range(_PERMUTATIONS)])
    return SetTest(value, _p_value(null <= value), n)


def authentic_share(generated: Tensor, held_out: Tensor, train: Tensor, seed: int = 0) -> SetTest:
    """AuthPct of Alaa et al. 2022 (arXiv:2102.08921), section 4.3: the share of generated slices that are farther from
    their nearest training slice than that is from its own nearest one.

    Args:
        generated, held_out, train: features, float [N, D], [M, D], [T, D], T >= 2.
    """
    own = torch.cdist(train.double(), train.double()).fill_diagonal_(torch.inf).min(1).values
    both = torch.cdist(torch.cat([generated, held_out]).double(), train.double()).min(1)
    authentic = (both.values > own[both.indices]).numpy()
    n, draw = len(generated), np.random.default_rng(seed)
    value = float(authentic[:n].mean())
    null = np.array([draw.permutation(authentic)[:n].mean() for _ in range(_PERMUTATIONS)])
    return SetTest(value, _p_value(null <= value), n)


def distance_gap(generated: Tensor, held_out: Tensor, train: Tensor, seed: int = 0) -> SetTest:
    """Fréchet distance to held-out slices less that to as many training slices: above 0 where generated slices are
    nearer to what was trained on. p: of exchanging held-out and training slices.

    Args:
        generated, held_out, train: features, float [N, D], [M, D], [T, D]; cut to equal numbers.
    """
    n = min(len(generated), len(held_out), len(train))
    draw = np.random.default_rng(seed)
    real = torch.cat([held_out[draw.permutation(len(held_out))[:n]], train[draw.permutation(len(train))[:n]]])
    distance = ReferenceStatistics.of(generated[:n]).of_subsets(real)

    def gap(order: np.ndarray) -> float:
        return distance(order[:n]) - distance(order[n:])

    value = gap(np.arange(2 * n))
    null = np.array([gap(draw.permutation(2 * n)) for _ in range(_FD_PERMUTATIONS)])
    return SetTest(value, _p_value(null >= value), n)


def z_interval(value: float) -> tuple[float, float]:
    """95 % of a z statistic whose spread is 1."""
    half = float(norm.ppf(0.975))
    return value - half, value + half


def _p_value(as_extreme: np.ndarray) -> float:
    return float((as_extreme.sum() + 1) / (len(as_extreme) + 1))
