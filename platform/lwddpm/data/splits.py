"""Group-wise splits: stratified by class, deterministic by seed, and no group straddles two splits."""

from collections.abc import Sequence

import numpy as np

from lwddpm.errors import DataError

MAX_SLICES_OFF = 0.01  # share of all slices
MAX_GROUPS_OFF = 0.05  # share of all groups; they differ in size, so both cannot always be kept


def is_off(num_slices: np.ndarray, num_groups: np.ndarray, fractions: np.ndarray) -> bool:
    """Whether splits differ from the asked fractions by more than rounding to whole slices and groups explains.

    Args:
        num_slices, num_groups: slices and groups in each split, int [S].
        fractions: asked share of each split, summing to 1, float [S].
    """
    slices_off = np.abs(num_slices - fractions * num_slices.sum()).max()
    groups_off = np.abs(num_groups - fractions * num_groups.sum()).max()
    return bool(
        slices_off > 1 + MAX_SLICES_OFF * num_slices.sum() or groups_off > 1 + MAX_GROUPS_OFF * num_groups.sum()
    )


def split_by_group(groups: np.ndarray, labels: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """Assign whole groups to splits so that each class comes close to the asked fractions, and so does their sum.

    Groups are visited in random order, the large ones first, and each goes to the split that lacks most of the group's
    classes. Where classes are small or groups differ in size, their roundings can add up; if the splits then are not
    what was asked, the groups are assigned anew, in proportion. A split with a fraction above zero receives at least
    one group.

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
            "add slices of other subjects, or set data.splits to [1, 0, 0]"
        )

    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    split_of_group = _to_the_largest_lack(counts, shares[wanted], order)
    num_slices = np.bincount(split_of_group, weights=counts.sum(axis=1), minlength=len(wanted))
    num_groups = np.bincount(split_of_group, minlength=len(wanted))
    if is_off(num_slices, num_groups, shares[wanted]):
        split_of_group = _in_proportion(counts, shares[wanted], order)

    for empty in np.setdiff1d(np.arange(len(wanted)), split_of_group):
        fullest = np.argmax(np.bincount(split_of_group, minlength=len(wanted)))
        split_of_group[next(group for group in order[::-1] if split_of_group[group] == fullest)] = empty
    return wanted[split_of_group][groups]


def _to_the_largest_lack(counts: np.ndarray, shares: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Split of each group, int [G]: the one that lacks most slices of the group's classes.

    Args:
        counts: slices by group and class, [G, C].
        shares: share of each split, all above zero, [S].
        order: the groups in the order in which they are assigned, int [G].
    """
    lacking = shares[:, None] * counts.sum(axis=0)  # slices by split and class
    split_of_group = np.empty(len(counts), dtype=np.int64)
    for group in order:
        mix = counts[group] / counts[group].sum()
        # The overall lack decides between splits that lack equally much of the class.
        choice = np.argmax(lacking @ mix + 1e-3 * lacking.sum(axis=1))
        split_of_group[group] = choice
        lacking[choice] -= counts[group]
    return split_of_group


def _in_proportion(counts: np.ndarray, shares: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Split of each group, int [G], such that all splits fill up at the same pace; arguments as above.

    The method of Webster and Sainte-Lague (Balinski and Young 2001, "Fair Representation"): a group goes to the split
    where (assigned + half of the group) / asked is least. First by class, as long as no split receives more of a class
    than was asked; what is left over of the classes is assigned by the numbers of all slices.
    """
    asked = shares[:, None] * counts.sum(axis=0)  # slices by split and class
    assigned = np.zeros_like(asked)
    split_of_group = np.full(len(counts), -1, dtype=np.int64)

    def class_fill(group: int) -> np.ndarray:
        classes = np.flatnonzero(counts[group])
        num = counts[group, classes]
        return (assigned[:, classes] + num / 2) / asked[:, classes] @ (num / num.sum())

    for group in order:
        fits = (assigned + counts[group] <= asked + 1e-9).all(axis=1, where=counts[group] > 0)
        if fits.any():
            choice = np.argmin(np.where(fits, class_fill(group), np.inf))
            split_of_group[group] = choice
            assigned[choice] += counts[group]
    for group in order[split_of_group[order] < 0]:
        fill = (assigned.sum(axis=1) + counts[group].sum() / 2) / asked.sum(axis=1)
        choice = np.lexsort((class_fill(group), fill.round(9)))[0]  # the class decides between equal fills
        split_of_group[group] = choice
        assigned[choice] += counts[group]
    return split_of_group
