"""The set tests against formulas in NumPy and SciPy, and on sets of which it is known what they must say."""

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from lwddpm.audit.set_tests import authentic_share, data_copying, distance_gap, nearest_distances
from lwddpm.evaluation.distances import ReferenceStatistics


def _points(num: int, seed: int, spread: float = 1.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(num, 6)) * spread)


@pytest.fixture
def train() -> Tensor:
    return _points(120, 0)


def _copies(train: Tensor, num: int) -> Tensor:
    return train[:num] + _points(num, 9, 0.05)


def test_c_t_is_mann_and_whitneys_z(train: Tensor) -> None:
    generated, held_out = _points(80, 1, 0.8), _points(90, 2)
    distances = [
        np.linalg.norm(each.numpy()[:, None] - train.numpy()[None], axis=2).min(1) for each in (generated, held_out)
    ]
    assert nearest_distances(generated, train).numpy() == pytest.approx(distances[0])
    u = mannwhitneyu(*distances).statistic
    z = (u - 80 * 90 / 2) / np.sqrt(80 * 90 * 171 / 12)
    assert data_copying(generated, held_out, train).value == pytest.approx(z)


def test_authpct_counts_as_the_definition_says(train: Tensor) -> None:
    generated = torch.cat([_points(40, 1), _copies(train, 20)])
    points, others = generated.numpy(), train.numpy()
    authentic = 0
    for point in points:
        to_train = np.linalg.norm(others - point, axis=1)
        nearest = to_train.argmin()
        own = np.delete(np.linalg.norm(others - others[nearest], axis=1), nearest).min()
        authentic += to_train[nearest] > own
    assert authentic_share(generated, _points(50, 2), train).value == pytest.approx(authentic / 60)


@pytest.mark.parametrize("test", [data_copying, authentic_share])
def test_copies_are_significant_and_new_points_are_not(test, train: Tensor) -> None:  # type: ignore[no-untyped-def]
    held_out = _points(60, 2)
    assert test(_copies(train, 60), held_out, train).p_value < 0.01
    assert test(_points(60, 3), held_out, train).p_value > 0.05


def test_the_gap_is_positive_for_copies_alone(train: Tensor) -> None:
    held_out = _points(100, 2)
    copies = distance_gap(train[torch.randperm(120, generator=torch.Generator().manual_seed(0))], held_out, train)
    new = distance_gap(_points(100, 3), held_out, train)
    assert copies.value > 0
    assert copies.p_value == pytest.approx(0.025)  # the least that so few permutations allow
    assert new.p_value > 0.05
    assert copies.n == 100


def test_the_gap_is_a_difference_of_frechet_distances(train: Tensor) -> None:
    generated, held_out = _points(120, 3), _points(120, 2)
    measure = ReferenceStatistics.of(generated)
    gap = measure.distance(held_out) - measure.distance(train)
    assert distance_gap(generated, held_out, train).value == pytest.approx(gap, rel=1e-6, abs=1e-6)
