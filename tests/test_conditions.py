"""Which image is asked for what: shares, order, and independence of what else is drawn."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lwddpm.conditions import Category, Combination, Number, Vocabulary

LABEL = Category(name="label", values=("a", "b", "c"))
PLANE = Category(name="plane", values=("axial", "coronal"))
POSITION = Number(name="position_mm", mean=10, spread=4)
QUANTILES = tuple(np.linspace(-1.5, 1.5, 10).tolist())


def _of_label(*counts: int) -> Vocabulary:
    combinations = tuple(Combination(codes=(code,), count=count) for code, count in enumerate(counts))
    return Vocabulary(conditions=(LABEL,), combinations=combinations, dropout=0.1)


TWO = Vocabulary(
    conditions=(LABEL, POSITION, PLANE),
    combinations=(
        Combination(codes=(0, 0), count=30, numbers=(QUANTILES,)),
        Combination(codes=(0, 1), count=10, numbers=(QUANTILES,)),
        Combination(codes=(1, 1), count=20, numbers=((),)),
        Combination(codes=(2, -1), count=40, numbers=(QUANTILES,)),
    ),
    dropout=0.1,
)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(1, 3000)] * 3), st.integers(1, 400))
def test_the_first_n_images_have_the_shares_for_every_n(counts: tuple[int, ...], n: int) -> None:
    """Webster's method stays within one seat of each exact share for three parties (Balinski & Young 1982)."""
    codes = _of_label(*counts).assigned({}, "train", range(n))[:, 0]
    for code, count in enumerate(counts):
        assert abs((codes == code).sum() - n * count / sum(counts)) < 1


def test_counts_are_exact_at_their_sum_and_go_on_periodically() -> None:
    asked = {"label": {"c": 5, "a": 3}}
    codes = _of_label(1, 1, 1).assigned(asked, "train", range(16))[:, 0]
    assert Counter(codes[:8].tolist()) == {2: 5, 0: 3}
    assert codes[8:].tolist() == codes[:8].tolist()


def test_an_image_is_asked_for_the_same_whatever_else_is_drawn() -> None:
    whole = TWO.assigned({}, "train", range(60))
    for indices in ([17], [59, 3, 17], range(40, 60)):
        np.testing.assert_array_equal(TWO.assigned({}, "train", indices), whole[list(indices)])
    assert TWO.assigned({}, "train", [2**31 - 1]).shape == (1, 3)


def test_what_is_not_named_is_as_in_the_training_slices_of_that_class() -> None:
    drawn = [TWO.values(row) for row in TWO.assigned({"label": "a"}, "train", range(40))]
    assert Counter(values["plane"] for values in drawn) == {"axial": 30, "coronal": 10}
    positions = np.array([values["position_mm"] for values in drawn], float)
    assert abs(positions.mean() - 10) < 0.7
    assert positions.min() >= 4 - 1e-6
    assert len(set(positions)) > 20
    # c has no plane, and of b no position is known
    assert {TWO.values(row)["plane"] for row in TWO.assigned({"label": "c"}, "train", range(9))} == {None}
    assert {TWO.values(row)["position_mm"] for row in TWO.assigned({"label": "b"}, "train", range(9))} == {None}
    assert np.isnan(TWO.assigned({"label": "b", "plane": "axial"}, "train", range(4))[:, 1]).all(), "never seen"


def test_values_null_and_balance() -> None:
    fixed = TWO.assigned({"label": None, "plane": "coronal", "position_mm": 14.0}, "train", range(3))
    assert np.isnan(fixed[:, 0]).all()
    assert fixed[:, 1].tolist() == [1.0] * 3
    assert fixed[:, 2].tolist() == [1.0] * 3
    balanced = TWO.assigned({}, "balanced", range(30))[:, 0]
    assert Counter(balanced.tolist()) == {0: 10, 1: 10, 2: 10}


def test_shares_of_a_huge_dataset_stay_right() -> None:
    codes = _of_label(2_000_000_000, 1_000_000_000, 3).assigned({}, "train", range(900))[:, 0]
    assert 598 <= (codes == 0).sum() <= 601


def test_codes_and_values_are_inverse() -> None:
    assert LABEL.encoded("b") == 1
    assert math.isnan(LABEL.encoded("other"))
    assert math.isnan(POSITION.encoded(None))
    assert TWO.values([2, float("nan"), 0]) == {"label": "c", "position_mm": None, "plane": "axial"}
    assert POSITION.decoded(POSITION.encoded(3.25)) == 3.25


@pytest.mark.parametrize("codes", [(3,), (-2,), (0, 0), ()])
def test_a_vocabulary_of_other_conditions_is_refused(codes: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="combinations"):
        Vocabulary(conditions=(LABEL,), combinations=(Combination(codes=codes, count=1),), dropout=0.1)
