import numpy as np
import pytest
from scipy import stats

from lwddpm.report.intervals import difference, holm, mean_interval, p_value, ratio, ties


@pytest.fixture
def draws():
    return np.random.default_rng(0)


def test_an_interval_covers_the_truth_as_often_as_it_says(draws):
    covered = [low <= 5 <= high for _, low, high, _ in (mean_interval(draws.normal(5, 2, 4)) for _ in range(2000))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_a_difference_is_welchs(draws):
    for _ in range(20):
        a, b = draws.normal(1, 1, 5), draws.normal(0, 3, 3)
        expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
        found = difference(a, b)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
        assert p_value(a, b) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
        assert (found.differs != 0) == (stats.ttest_ind(a, b, equal_var=False).pvalue < 0.05)


def test_equal_populations_are_seldom_told_apart(draws):
    wrong = [difference(draws.normal(0, 1, 3), draws.normal(0, 1, 3)).differs != 0 for _ in range(2000)]
    assert np.mean(wrong) < 0.06


def test_holms_correction_is_the_one_of_its_definition(draws):
    """Sorted p-values are rejected while p_(k) < level / (m - k + 1): Holm 1979."""
    for p_values in draws.uniform(0, 0.1, (200, 5)):
        left, rejected = sorted(p_values), set()
        while left and left[0] < 0.05 / len(left):
            rejected.add(left.pop(0))
        assert {p for p, adjusted in zip(p_values, holm(p_values), strict=True) if adjusted < 0.05} == rejected
    assert holm([]) == []


def test_a_difference_turns_round_with_its_rows(draws):
    a, b = draws.normal(3, 1, 4), draws.normal(0, 1, 4)
    there, back = difference(a, b), difference(b, a)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert (there.differs, back.differs) == (1, -1)


def test_without_repeats_nothing_is_decided():
    assert mean_interval([3.0]) == (3.0, None, None, 1)
    assert difference([1.0], [100.0, 101.0]) == (-99.5, None, None, 0)
    assert ratio([1.0], [100.0]).differs == 0
    assert p_value([1.0], [100.0, 101.0]) == 1


def test_repeats_without_noise_are_decided():
    assert difference([2.0, 2.0], [1.0, 1.0]).differs == 1
    assert difference([1.0, 1.0], [1.0, 1.0]).differs == 0
    assert (p_value([2.0, 2.0], [1.0, 1.0]), p_value([1.0, 1.0], [1.0, 1.0])) == (0, 1)


def test_a_ratio_does_not_depend_on_the_unit_and_inverts(draws):
    a, b = draws.uniform(1, 2, 5), draws.uniform(3, 5, 5)
    found, scaled, inverse = ratio(a, b), ratio(1000 * a, 1000 * b), ratio(b, a)
    assert found == pytest.approx(scaled)
    assert (1 / found.value, 1 / found.high, 1 / found.low) == pytest.approx(inverse[:3])
    assert found.low < found.value < found.high < 1
    with pytest.raises(ValueError, match="above 0"):
        ratio([0.0], [1.0])


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_what_cannot_be_averaged_is_refused(values):
    with pytest.raises(ValueError, match="finite"):
        mean_interval(values)


def test_ties_are_with_the_best_row_only():
    near, other, far = [1.0, 1.2, 1.1], [1.05, 1.25, 1.15], [9.0, 9.1, 9.2]
    assert ties([near, other, far], lowest=True) == [True, True, False]
    assert ties([near, other, far], lowest=False) == [False, False, False]
    assert ties([near], lowest=True) == [False]
