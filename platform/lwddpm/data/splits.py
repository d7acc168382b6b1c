"""Group-wise splits: stratified by class, deterministic by seed, and no group straddles two splits."""

from collections.abc import Sequence

import numpy as np

from lwddpm.errors import DataError


def split_by_group(groups: np.ndarray, labels: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """Assign whole groups to splits so that each class comes close to the asked fractions.

    Greedy: groups are visited in random order, the large ones first, and each goes to the split that lacks
    most of the group's classes. A split with a fraction above zero receives at least one group.

    Args:
        groups: group number of each slice, int [N].
        labels: class index of each slice, int [N].
        fractions: share of each split, summing to 1.
        seed: decides the order of groups of equal size.

    Returns:
        Index of the split of each slice, int [N].

    Raises:
        DataError: there are fewer groups than splits with a fraction above zero.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    _, groups = np.unique(groups, return_inverse=True)
    counts = np.zeros((groups.max() + 1, labels.max() + 1))  # slices by group and class
    np.add.at(counts, (groups, labels), 1)
    wanted = np.flatnonzero(shares)
    if len(counts) < len(wanted):
        raise DataError(
            f"data.splits: {len(wanted)} splits need as many independent groups of slices, got {len(counts)} "
            f"({len(groups)} slices, of which duplicates and slices of a subject must stay together); "
            "add slices, or set data.splits to [1, 0, 0]"
        )

    lacking = shares[wanted, None] * counts.sum(axis=0)  # slices by split and class
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    split_of_group = np.empty(len(counts), dtype=np.int64)
    for group in order:
        mix = counts[group] / counts[group].sum()
        # The overall lack decides between splits that lack equally much of the class.
        choice = np.argmax(lacking @ mix + 1e-3 * lacking.sum(axis=1))
        split_of_group[group] = choice
        lacking[choice] -= counts[group]

    for empty in np.setdiff1d(np.arange(len(wanted)), split_of_group):
        fullest = np.argmax(np.bincount(split_of_group, minlength=len(wanted)))
        split_of_group[next(group for group in order[::-1] if split_of_group[group] == fullest)] = empty
    return wanted[split_of_group][groups]
