"""What is learnt from: whole groups, every class, nested shares."""

import numpy as np
import pytest

from lwddpm.audit.utility.arms import arms, mixtures, real_rows, synthetic_rows
from lwddpm.config import UtilityConfig

LABELS = np.repeat([0, 1, 2], [400, 200, 40])
GROUPS = np.arange(640) // 4  # four slices each, within one class


@pytest.mark.parametrize("seed", [0, 1])
def test_a_share_is_of_whole_groups_of_every_class_and_nested(seed: int) -> None:
    held = np.empty(0, np.int64)
    for share in (0.1, 0.25, 0.5, 1.0):
        rows = real_rows(LABELS, GROUPS, share, seed)
        assert np.isin(GROUPS, GROUPS[rows]).sum() == len(rows)  # whole groups
        assert set(held) <= set(rows.tolist())
        counts = np.bincount(LABELS[rows], minlength=3)
        assert np.abs(counts - share * np.bincount(LABELS)).max() <= 4
        held = rows
    assert len(real_rows(LABELS, GROUPS, 0.0, seed)) == 0
    assert set(LABELS[real_rows(LABELS, GROUPS, 0.001, seed)]) == {0, 1, 2}


def test_seeds_draw_other_groups() -> None:
    one, other = (set(real_rows(LABELS, GROUPS, 0.1, seed).tolist()) for seed in (0, 1))
    assert one != other


def test_synthetic_slices_have_the_counts_that_are_asked_for_and_a_class() -> None:
    asked = np.tile([0, 1, -1], 50)
    rows = synthetic_rows(asked, [20, 7], 0)
    assert np.bincount(asked[rows]).tolist() == [20, 7]
    assert len(set(rows.tolist())) == 27
    assert len(synthetic_rows(asked, [1000, 0], 0)) == 50  # no more than there are


def test_every_mixture_has_all_learners_and_seeds() -> None:
    config = UtilityConfig(real_shares=(0.5, 1.0), synthetic_ratios=(0.0, 2.0), seeds=3)
    found = arms(config)
    assert len(found) == len(set(found)) == 2 * 5 * 3
    assert mixtures(config)[0] == (0.0, 1.0)
    assert len({arm.name for arm in found}) == len(found)
