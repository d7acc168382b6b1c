import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lwddpm.data.splits import MAX_SLICES_OFF, is_off, split_by_group
from lwddpm.errors import DataError


@pytest.mark.parametrize("seed", range(5))
def test_no_group_straddles_and_fractions_are_kept_by_class(seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(900), rng.choice([1, 1, 1, 2, 5], 900))
    labels = rng.choice(4, 900, p=[0.4, 0.3, 0.2, 0.1])[groups]
    labels[rng.random(len(labels)) < 0.02] = 0  # groups of mixed labels
    shuffled = rng.permutation(len(groups))
    groups, labels = groups[shuffled] * 7 + 3, labels[shuffled]
    split = split_by_group(groups, labels, (0.8, 0.1, 0.1), seed)
    for group in np.unique(groups):
        assert len(set(split[groups == group])) == 1
    for label in range(4):
        share = np.bincount(split[labels == label], minlength=3) / (labels == label).sum()
        np.testing.assert_allclose(share, (0.8, 0.1, 0.1), atol=0.01)
    np.testing.assert_array_equal(split, split_by_group(groups, labels, (0.8, 0.1, 0.1), seed))
    assert (split != split_by_group(groups, labels, (0.8, 0.1, 0.1), seed + 1)).any()


def test_every_wanted_split_gets_a_group_and_others_none():
    labels = np.zeros(4, int)
    assert set(split_by_group(np.arange(4), labels, (0.98, 0.01, 0.01), 0)) == {0, 1, 2}
    assert set(split_by_group(np.arange(4), labels, (0.5, 0, 0.5), 0)) == {0, 2}
    assert set(split_by_group(np.zeros(4, int), labels, (1, 0, 0), 0)) == {0}


def test_one_group_dominates():
    groups = np.array([0] * 50 + list(range(1, 11)))
    split = split_by_group(groups, np.zeros(60, int), (0.8, 0.1, 0.1), 0)
    assert set(split[:50]) == {0}
    assert set(split) == {0, 1, 2}


def test_too_few_groups():
    with pytest.raises(DataError, match=r"data\.splits: 3 splits need .*got 2 \(4 slices"):
        split_by_group(np.array([0, 0, 1, 1]), np.zeros(4, int), (0.8, 0.1, 0.1), 0)


FRACTIONS = st.sampled_from([(0.8, 0.1, 0.1), (0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.9, 0, 0.1), (1, 0, 0)])


def by_group(groups, split):
    """Split of each group."""
    return split[np.unique(groups, return_index=True)[1]]


@pytest.mark.parametrize("groups_per_class", [1, 2, 3, 4, 7, 12, 14, 24])
@pytest.mark.parametrize("group_size", [1, 3])
def test_many_small_classes_are_split_as_asked(groups_per_class, group_size):
    groups = np.repeat(np.arange(60 * groups_per_class), group_size)
    split = split_by_group(groups, groups // groups_per_class, (0.8, 0.1, 0.1), 0)
    share = np.bincount(split, minlength=3) / len(split)
    np.testing.assert_allclose(share, (0.8, 0.1, 0.1), atol=0.01 + 1 / len(split))


def test_large_subjects_do_not_all_go_to_train():
    groups = np.repeat(np.arange(100), np.arange(1, 101))
    split = split_by_group(groups, np.zeros(len(groups), int), (0.8, 0.1, 0.1), 0)
    np.testing.assert_allclose(np.bincount(split) / len(split), (0.8, 0.1, 0.1), atol=0.01)
    np.testing.assert_allclose(np.bincount(by_group(groups, split)), (80, 10, 10), atol=5)


def classes_of_groups(max_groups, max_size):
    return st.lists(st.lists(st.integers(1, max_size), min_size=1, max_size=max_groups), min_size=1, max_size=40)


@given(st.one_of(itertools.starmap(classes_of_groups, itertools.product((3, 30), (1, 12)))), FRACTIONS, st.data())
@settings(max_examples=300, deadline=None)
def test_any_groups_in_any_classes_are_split_as_asked(classes, fractions, data):
    """`classes` holds the sizes of each class's groups."""
    sizes = np.concatenate(classes)
    labels_of_groups = np.repeat(np.arange(len(classes)), [len(groups) for groups in classes])
    groups, labels = np.repeat(np.arange(len(sizes)), sizes), np.repeat(labels_of_groups, sizes)
    wanted = np.flatnonzero(fractions)
    if len(sizes) < len(wanted):
        with pytest.raises(DataError, match="need as many independent groups"):
            split_by_group(groups, labels, fractions, 0)
        return
    seed = data.draw(st.integers(0, 2**31))
    split = split_by_group(groups, labels, fractions, seed)
    assert set(split) == set(wanted)
    assert all(len(set(split[groups == group])) == 1 for group in range(len(sizes)))
    np.testing.assert_array_equal(split, split_by_group(groups, labels, fractions, seed))
    off = np.abs(np.bincount(split, minlength=3) - np.multiply(fractions, len(split))).max()
    assert off <= max(1 + MAX_SLICES_OFF * len(split), 2 * sizes.max())
    if sizes.max() == 1:  # each class too: its whole slices go where they were asked, at most two are left over
        for label in range(len(classes)):
            num = np.bincount(split[labels == label], minlength=3)
            assert (num >= np.floor(np.multiply(fractions, num.sum()) + 1e-9) - 3).all()


def test_what_came_out_is_compared_over_slices_and_over_groups():
    asked = np.array([0.8, 0.1, 0.1])
    assert not is_off(np.array([800, 100, 100]), np.array([80, 10, 10]), asked)
    assert not is_off(np.array([4, 1, 0]), np.array([4, 1, 0]), asked)  # rounding
    assert is_off(np.array([294, 3, 3]), np.array([98, 1, 1]), asked)
    assert is_off(np.array([800, 100, 100]), np.array([60, 20, 20]), asked)
