"""How a Fréchet distance falls with the number of slices: its bias, shown instead of corrected."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lwddpm.evaluation.distances import ReferenceStatistics


def frechet_by_size(
    features: Tensor, reference: ReferenceStatistics, sizes: Sequence[int], *, repeats: int = 3, seed: int = 0
) -> dict[int, list[float]]:
    """Fréchet distances of subsets of a feature set from a reference.

    Args:
        features: float [N, D].
        sizes: those above N are left out.
        repeats: subsets of each size: parts of one random order, so disjoint while there are enough features.
        seed: of that order.

    Returns:
        Size -> distances, as many as `repeats` or, where disjoint subsets are fewer, as many as there are.
    """
    order = np.random.default_rng(seed).permutation(len(features))
    distances: dict[int, list[float]] = {}
    for size in sorted(set(sizes)):
        if not 2 <= size <= len(features):
            continue
        parts = [order[start : start + size] for start in range(0, len(order) - size + 1, size)][:repeats]
        distances[size] = [reference.distance(features[part]) for part in parts]
    return distances
