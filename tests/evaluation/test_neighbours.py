"""Oracles: torch-fidelity's precision and recall, and the definitions written out slice by slice."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import calculate_precision_recall_full

from lwddpm.evaluation.neighbours import K, Neighbours, kernel_distance

FIGURES = ("precision", "recall", "density", "coverage")


def cloud(n, seed, shift=0.0, scale=1.0):
    return torch.randn(n, 12, generator=torch.Generator().manual_seed(seed)) * scale + shift


def by_definition(real, generated):
    def radius(points, i):
        return np.sort(np.linalg.norm(points - points[i], axis=1))[K]

    balls = [(one, radius(real, i)) for i, one in enumerate(real)]
    inside = np.array([[np.linalg.norm(g - centre) <= r for g in generated] for centre, r in balls])
    reached = [any(np.linalg.norm(one - g) <= radius(generated, j) for j, g in enumerate(generated)) for one in real]
    return inside.any(0).mean(), np.mean(reached), inside.sum(0).mean() / K, inside.any(1).mean()


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.4, 0.6), (0.0, 1.6)])
def test_all_four_are_as_defined(shift, scale):
    real, generated = cloud(60, 0).double(), cloud(50, 1, shift, scale).double()
    neighbours = Neighbours(real, generated)
    actual = [getattr(neighbours, figure)() for figure in FIGURES]
    assert actual == pytest.approx(by_definition(real.numpy(), generated.numpy()))


def test_precision_and_recall_are_those_of_torch_fidelity():
    real, generated = cloud(200, 0).double(), cloud(150, 1, 0.3, 0.8).double()
    precision, recall = calculate_precision_recall_full(generated, real, K)
    neighbours = Neighbours(real, generated)
    assert neighbours.precision() == pytest.approx(float(precision))
    assert neighbours.recall() == pytest.approx(float(recall))


def test_blur_costs_recall_and_a_few_modes_cost_coverage():
    real, equal = cloud(300, 0), Neighbours(cloud(300, 0), cloud(300, 1))
    narrow = Neighbours(real, cloud(300, 1, scale=0.5))
    assert narrow.precision() > equal.precision()
    assert narrow.recall() < 0.5 * equal.recall()
    few = Neighbours(real, cloud(3, 1).repeat(100, 1) + 0.01 * cloud(300, 2))
    assert few.coverage() < 0.3 < 0.9 < equal.coverage()


@pytest.mark.parametrize("figure", FIGURES)
def test_intervals_hold_the_value(figure):
    neighbours = Neighbours(cloud(120, 0), cloud(120, 1, 0.2))
    low, high = neighbours.interval(figure)
    assert low < getattr(neighbours, figure)() < high < low + 0.5


def test_too_few_slices_are_refused():
    with pytest.raises(ValueError, match=f"more than {K} slices a side, got {K} and 9"):
        Neighbours(cloud(K, 0), cloud(9, 1))


def test_a_kernel_distance_is_0_between_equals_and_grows_with_the_shift():
    values = [kernel_distance(cloud(400, 0), cloud(400, 1, shift)) for shift in (0.0, 0.3, 0.6)]
    assert abs(values[0]) < 0.02 < values[1] < values[2]
