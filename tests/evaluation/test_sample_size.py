import torch

from lwddpm.evaluation.distances import ReferenceStatistics
from lwddpm.evaluation.sample_size import frechet_by_size


def test_the_bias_falls_with_n_and_all_of_them_give_the_distance_itself():
    draws = torch.Generator().manual_seed(0)
    reference = ReferenceStatistics.of(torch.randn(2000, 8, generator=draws))
    features = torch.randn(320, 8, generator=draws)
    distances = frechet_by_size(features, reference, [320, 20, 80, 20, 1000, 1])
    assert list(distances) == [20, 80, 320], "sizes that there are features for, each once"
    assert [len(values) for values in distances.values()] == [3, 3, 1]
    means = [sum(values) / len(values) for values in distances.values()]
    assert means == sorted(means, reverse=True)
    assert abs(distances[320][0] - reference.distance(features)) < 1e-9
    assert len(set(distances[20])) == 3, "subsets are disjoint"
