"""Intervals that cover, p-values against SciPy and by definition, and what is worth how many slices."""

import itertools

import numpy as np
import pytest
from scipy import stats

from lwddpm.audit.utility.statistics import accuracy, difference, holm, sensitivity, worth


def test_balanced_accuracy_counts_classes_alike_and_leaves_out_those_without_slices() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    answers = np.zeros((2, 100), np.int64)
    assert accuracy(answers, labels, np.arange(100)).value == pytest.approx(0.5)
    shares = sensitivity(answers, labels, 3)
    assert shares[:, :2].tolist() == [[1, 0], [1, 0]]
    assert np.isnan(shares[:, 2]).all()


def test_all_right_is_no_certainty() -> None:
    labels = np.repeat([0, 1], 20)
    found = accuracy(np.tile(labels, (5, 1)), labels, np.arange(40))
    assert found.value == found.high == 1
    assert 0.8 < found.low < 0.99


def test_an_interval_covers_the_truth_for_new_seeds_and_new_slices() -> None:
    """A simulation with the truth known: 0.7 for the first class, 0.5 for the second, and seeds that differ."""
    draw, covered, rounds = np.random.default_rng(0), 0, 300
    labels, groups = np.repeat([0, 1], [60, 30]), np.arange(90) // 3
    for _ in range(rounds):
        of_seed, of_group = draw.normal(0, 0.05, (5, 1)), draw.normal(0, 0.1, 30)[groups]
        right = draw.random((5, 90)) < np.array([0.7, 0.5])[labels] + of_seed + of_group
        found = accuracy(np.where(right, labels, 1 - labels), labels, groups)
        covered += found.low <= 0.6 <= found.high
    assert covered / rounds > 0.92


def test_the_difference_is_a_paired_t_test_where_slices_do_not_vary() -> None:
    """One test slice of each class and ten seeds: only these vary, and SciPy knows what to say."""
    labels, groups = np.array([0]), np.array([0])
    better = np.array([[0], [0], [0], [0], [1], [0], [0], [0], [1], [0]])
    worse = np.array([[0], [1], [1], [0], [0], [1], [1], [1], [1], [1]])
    expected = stats.ttest_rel((better == 0).ravel().astype(float), (worse == 0).ravel().astype(float))
    assert difference(better, worse, labels, groups).p_value == pytest.approx(expected.pvalue)


def test_what_is_the_same_differs_by_nothing() -> None:
    answers = np.random.default_rng(0).integers(0, 2, (5, 40))
    found = difference(answers, answers, np.repeat([0, 1], 20), np.arange(40))
    assert found == (0, 0, 0, 1)


def test_holm_is_bonferroni_closed_under_all_sets_of_hypotheses() -> None:
    """Holm 1979: a hypothesis is rejected where Bonferroni rejects every set of hypotheses that it is in."""
    assert holm([0.01, 0.04, 0.03, 0.005, 0.9, 0.2]) == pytest.approx([0.05, 0.12, 0.12, 0.03, 0.9, 0.4])  # by hand
    for seed in range(20):
        drawn = (np.random.default_rng(seed).random(7) ** 3).tolist()
        sets = [chosen for num in range(1, 8) for chosen in itertools.combinations(range(7), num)]
        closed = [
            max(min(1, len(chosen) * min(drawn[j] for j in chosen)) for chosen in sets if i in chosen) for i in range(7)
        ]
        assert holm(drawn) == pytest.approx(closed)


def test_worth_lies_between_what_was_measured_or_beyond() -> None:
    numbers, curve = [100, 1000, 10_000], [0.5, 0.7, 0.7]
    assert worth(numbers, curve, 0.6) == (pytest.approx(316.2, abs=0.1), "")
    assert worth(numbers, curve, 0.7) == (1000, "")
    assert worth(numbers, curve, 0.4) == (100, "<")
    assert worth(numbers, curve, 0.8) == (10_000, ">")
    assert worth(numbers, [0.5, 0.7, 0.6], 0.65)[1] == ""  # a curve that falls is read as level
