import numpy as np
import pytest
import scipy.linalg
import torch

from lwddpm.evaluation.distances import ReferenceStatistics, _Subsets, frechet_between


def correlated(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator) / d**0.5
    return torch.randn(n, d, generator=generator) @ mix + torch.randn(d, generator=generator)


def scipy_distance(a, b):
    a, b = a.double().numpy(), b.double().numpy()
    root = scipy.linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    trace = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False)) - 2 * np.trace(root).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + trace


def distance(a, b):
    return ReferenceStatistics.of(a).distance(b)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 16), (40, 1000, 64)])
def test_agrees_with_scipys_matrix_square_root(n, m, d):
    a, b = correlated(n, d, 0), correlated(m, d, 1)
    assert distance(a, b) == pytest.approx(scipy_distance(a, b), rel=1e-6)


def test_fewer_images_than_features_agrees_with_singular_values():
    # scipy.linalg.sqrtm is unreliable for singular matrices; with centred factors, S_i = A_i^T A_i, the root's
    # trace is the sum of the singular values of A_1 A_2^T.
    a, b = correlated(50, 200, 0), correlated(60, 200, 1)
    factors = [(x.double() - x.double().mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b)]
    root = torch.linalg.svdvals(factors[0] @ factors[1].T).sum()
    means = (a.double().mean(0) - b.double().mean(0)).square().sum()
    expected = means + sum(factor.square().sum() for factor in factors) - 2 * root
    assert distance(a, b) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 16), (50, 12, 200)])
def test_the_distance_of_few_slices_is_the_same(n, m, d):
    a, b = correlated(n, d, 0), correlated(m, d, 1)
    assert frechet_between(a, b) == pytest.approx(distance(a, b), rel=1e-6)


def test_known_gaussians():
    # Equal shapes up to scale and shift: |shift|² + (scale - 1)² tr S, whatever the sample.
    a = correlated(100, 8, 0).double()
    shift = torch.linspace(-1, 1, 8, dtype=torch.float64)
    b = (a - a.mean(0)) * 1.5 + a.mean(0) + shift
    expected = shift.square().sum() + 0.25 * torch.cov(a.T).trace()
    assert distance(a, b) == pytest.approx(expected.item(), rel=1e-9)


def test_identical_sets_are_at_distance_zero_and_order_does_not_matter():
    a, b = correlated(300, 32, 0), correlated(300, 32, 1)
    assert abs(distance(a, a.flip(0))) < 1e-4
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-9)


def test_means_far_from_zero_keep_their_precision():
    a, b = correlated(300, 16, 0).double(), correlated(300, 16, 1).double()
    assert distance(a + 1000, b + 1000) == pytest.approx(distance(a, b), rel=1e-6)


def test_a_mismatch_is_refused():
    with pytest.raises(ValueError, match="2 or more"):
        distance(torch.zeros(1, 4), torch.zeros(5, 4))
    with pytest.raises(ValueError, match="equal features"):
        distance(torch.zeros(5, 4), torch.zeros(5, 3))


def test_a_reference_serves_many_sets_and_comes_back_from_its_tensors():
    a, sets = correlated(30, 8, 0), [correlated(30, 8, seed) for seed in (1, 2)]
    reference = ReferenceStatistics.of(a)
    distances = [reference.distance(b) for b in sets]
    assert distances == [distance(a, b) for b in sets]
    restored = ReferenceStatistics.from_tensors(reference.to_tensors())
    assert restored.num == 30
    assert [restored.distance(b) for b in sets] == distances


def test_tensors_of_another_version_are_refused():
    tensors = ReferenceStatistics.of(correlated(30, 8, 0)).to_tensors()
    with pytest.raises(KeyError):
        ReferenceStatistics.from_tensors({"sum": torch.zeros(8)})
    name = next(name for name in tensors if name.startswith("real"))
    with pytest.raises(ValueError, match=f"renamed_{name}"):
        ReferenceStatistics.from_tensors({f"renamed_{k}" if k == name else k: v for k, v in tensors.items()})


def test_the_interval_surrounds_torchmetrics_own_distance():
    reference = ReferenceStatistics.of(correlated(300, 50, 0))
    for m in (45, 120):  # fewer and more slices than features
        other = correlated(m, 50, 1)
        value, (low, high) = reference.with_interval(other)
        assert value == reference.distance(other)
        assert (low + high) / 2 == pytest.approx(reference.distance(other), rel=1e-9)
        subsets = _Subsets(other, reference._spectrum)
        assert subsets.distance(np.arange(m)) == pytest.approx(reference.distance(other), rel=1e-6)
    assert reference.with_interval(correlated(39, 50, 1))[1] is None


def test_a_reference_is_decomposed_once_whatever_is_measured_from_it(monkeypatch):
    decompose, calls = torch.linalg.eigh, []
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: calls.append(matrix.shape) or decompose(matrix))
    reference = ReferenceStatistics.of(correlated(300, 50, 0))
    reference.with_interval(correlated(39, 50, 1))  # has no interval, and needs none of it
    assert calls == []
    for seed in (1, 2):
        reference.with_interval(correlated(80, 50, seed))
        reference.at_infinity(correlated(80, 50, seed))
    assert calls == [(50, 50)]


def test_the_distance_at_infinity_is_that_of_the_distributions():
    """Of Gaussians it is known; that of 600 slices is an eighth too large."""
    generator = torch.Generator().manual_seed(0)
    scales = 1 + torch.arange(100, dtype=torch.float64) / 25

    def draw(n):
        return torch.randn(n, 100, generator=generator, dtype=torch.float64)

    reference = ReferenceStatistics.of(draw(200_000))
    true = (scales.sqrt() - 1).square().sum().item()
    sets = [draw(600) * scales.sqrt() for _ in range(20)]
    assert np.mean([reference.distance(one) for one in sets]) > 1.1 * true
    values, intervals = zip(*map(reference.at_infinity, sets), strict=True)
    assert np.mean(values) == pytest.approx(true, rel=0.05)
    assert sum(low < true < high for low, high in intervals) >= 17
