import numpy as np
import pytest

from lwddpm.data.splits import split_by_group
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
