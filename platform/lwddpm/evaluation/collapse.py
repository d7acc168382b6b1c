"""Mode collapse: a generator that draws a few images over and over.

Fréchet distances see it late and pairs drawn at random hardly at all: with ten modes nine pairs in ten differ. What
betrays it is that nearly every slice has a near-copy among the others.
"""

import numpy as np
import torch

COLLAPSED = 0.1  # of the real slices' diversity; below it nearly all slices have a near-copy
_AT_MOST = 1000  # slices compared, all with all


def diversity(images: np.ndarray, real: np.ndarray) -> float:
    """Median distance from a slice to its nearest neighbour in its own set, relative to that of real slices.

    Distances are root mean squares over pixels. Both sets are cut to one size, on which such distances depend.

    Args:
        images, real: uint8 [N, S, S] each, 2 or more.

    Returns:
        0: all have a copy among them; about 1: as diverse as real slices; infinite if those are copies themselves.
    """
    n = min(len(images), len(real), _AT_MOST)
    if n < 2:
        raise ValueError(f"diversity needs 2 or more slices a side, got {len(images)} and {len(real)}")
    of_real = _median_nearest(real[:n])
    return _median_nearest(images[:n]) / of_real if of_real > 0 else float("inf")


def collapse_warning(diversity: float) -> str | None:
    """What to tell the user, or None where there is nothing to tell."""
    if diversity >= COLLAPSED:
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
