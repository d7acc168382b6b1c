import numpy as np
import pytest
import torch

from lwddpm.evaluation.distances import ReferenceStatistics
from lwddpm.evaluation.intervals import jackknife, of_mean, of_share
from lwddpm.evaluation.neighbours import kernel_distance, kernel_interval


def covered(intervals, true):
    return np.mean([low <= true <= high for low, high in intervals])


def test_of_a_mean_it_is_the_textbook_interval():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = jackknife(values.mean(), lambda rows: values[rows].mean(), 400)
    half = 1.96 * values.std(ddof=1) / 20
    assert (high - low) / 2 == pytest.approx(half, rel=0.35)  # of 20 groups
    assert (low + high) / 2 == pytest.approx(values.mean())


def test_too_few_slices_give_none():
    assert jackknife(1.0, lambda rows: 1.0, 39) is None


def features(n, generator, shift=0.0):
    """Skewed, correlated and with more dimensions than slices, as those of a network."""
    mix = torch.randn(150, 150, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 150**0.5
    spectrum = torch.arange(1, 151, dtype=torch.float64) ** -0.4
    return torch.relu(torch.randn(n, 150, generator=generator, dtype=torch.float64) * spectrum @ mix + shift)


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_95_percent_of_a_frechet_distance_cover_90_to_98(shift):
    generator = torch.Generator().manual_seed(1)
    reference = ReferenceStatistics.of(features(600, generator))
    sets = [features(100, generator, shift) for _ in range(200)]
    true = np.mean([reference.distance(one) for one in sets])  # of sets of 100, which is what is reported
    assert 0.9 <= covered([reference.with_interval(one)[1] for one in sets], true) <= 0.985


def test_95_percent_of_a_kernel_distance_cover_it():
    generator = torch.Generator().manual_seed(2)
    sets = [(features(80, generator), features(80, generator, 0.1)) for _ in range(150)]
    true = np.mean([kernel_distance(*pair) for pair in sets])
    assert 0.9 <= covered([kernel_interval(*pair) for pair in sets], true) <= 1


def test_95_percent_of_a_mean_of_figures_cover_it_and_one_without_leaves_none():
    draws = np.random.default_rng(3).normal([0, 5, 40], [1, 2, 0.5], (2000, 3))
    halves = 1.96 * np.array([1, 2, 0.5])
    intervals = [
        of_mean([(value - half, value + half) for value, half in zip(row, halves, strict=True)]) for row in draws
    ]
    assert 0.94 <= covered(intervals, 15) <= 0.96
    assert of_mean([(0, 1), None]) is None
    assert of_mean([]) is None


def test_a_share_has_an_interval_at_its_ends_too():
    low, high = of_share(0, 50)
    assert low == 0
    assert 0.05 < high < 0.08  # Wilson: z² / (n + z²)
    assert of_share(25, 50) == pytest.approx((0.366, 0.634), abs=1e-3)
