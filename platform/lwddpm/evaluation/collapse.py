"""Mode collapse: a generator that draws a few images over and over.

Fréchet distances see it late and pairs drawn at random hardly at all: with ten modes nine pairs in ten differ. What
betrays it is that nearly every slice has a near-copy among the others.
"""

import numpy as np
import torch

from lwddpm.evaluation.subset import distinct, random_subset

COLLAPSED = 0.1  # of the real slices' diversity; below it nearly all slices have a near-copy
_AT_MOST = 1000  # slices compared, all with all


def diversity(images: np.ndarray, real: np.ndarray) -> float | None:
    """Median distance from a slice to its nearest neighbour in its own set, relative to that of real slices.

    Distances are root mean squares over pixels. Both sets are cut to one size, on which such distances depend, at
    random: rows of a dataset are ordered by source, and the first ones of one subject lie close together. Of real
    slices that are copies of each other one counts: the ratio of anything to a median of 0 would be infinite.

    Args:
        images, real: uint8 [N, S, S] each; of images 2 or more.

    Returns:
        0: all have a copy among them; about 1: as diverse as real slices; None if the real slices are all one picture,
        which nothing can be compared with. Always finite.
    """
    if len(images) < 2:
        raise ValueError(f"diversity needs 2 or more slices, got {len(images)}")
    different = distinct(real)
    n = min(len(images), len(different), _AT_MOST)
    if n < 2:
        return None
    return _median_nearest(random_subset(images, n)) / _median_nearest(random_subset(different, n))


def collapse_warning(diversity: float | None) -> str | None:
    """What to tell the user, or None where there is nothing to tell."""
    if diversity is None or diversity >= COLLAPSED:
        return None
    return (
        f"mode collapse: generated slices are near-copies of each other, {diversity:.2g} times as diverse as real ones "
        f"(median distance to the nearest other slice; below {COLLAPSED:g} counts as collapsed)"
    )


def _median_nearest(images: np.ndarray) -> float:
    # float64: the matrix products inside would otherwise round small distances between bright slices away
    flat = torch.from_numpy(np.ascontiguousarray(images)).flatten(1).double()
    distances = torch.cdist(flat, flat, compute_mode="use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    return float(distances.min(dim=1).values.median()) / flat.shape[1] ** 0.5
