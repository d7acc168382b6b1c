import torch

from lwddpm.evaluation.distances import FeatureStatistics, frechet_distance
from lwddpm.evaluation.sample_size import frechet_by_size


def test_the_bias_falls_with_n_and_all_of_them_give_the_distance_itself():
    draws = torch.Generator().manual_seed(0)
    reference = FeatureStatistics.of(torch.randn(2000, 8, generator=draws))
    features = torch.randn(320, 8, generator=draws)
    found = frechet_by_size(features, reference, [320, 20, 80, 20, 1000, 1])
    assert list(found) == [20, 80, 320], "sizes that there are features for, each once"
    assert [len(values) for values in found.values()] == [3, 3, 1]
    means = [sum(values) / len(values) for values in found.values()]
    assert means == sorted(means, reverse=True)
    assert abs(found[320][0] - frechet_distance(reference, FeatureStatistics.of(features))) < 1e-9
    assert len(set(found[20])) == 3, "subsets are disjoint"
