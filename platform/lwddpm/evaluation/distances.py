"""Fréchet distance between two sets of features, from statistics that can be cached.

d² = |mu_1 - mu_2|² + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)), Heusel et al. 2017 (arXiv:1706.08500), eq. 6; as is
customary the square is what is reported. torchmetrics computes it, here always from float64 statistics: float32
ones are off by more than a percent when there are fewer images than features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lwddpm.files import whole_file


@dataclass(frozen=True)
class FeatureStatistics:
    """Sufficient statistics of a feature set for a Fréchet distance.

    Attributes:
        sum: of the features, float64 [D].
        outer: sum of the features' outer products, float64 [D, D].
        num: of images.
    """

    sum: Tensor
    outer: Tensor
    num: int

    @classmethod
    def of(cls, features: Tensor) -> "FeatureStatistics":
        """Statistics of features [N, D] of any float type."""
        features = features.double()
        return cls(features.sum(0), features.T @ features, len(features))


class _Given(nn.Module):
    """The feature network of a metric whose features are already there."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: FeatureStatistics, generated: FeatureStatistics) -> float:
    """Squared Fréchet distance between the Gaussians fitted to two feature sets (unbiased covariances).

    Biased upwards for small sets: compare only figures of equal `num` on both sides.

    Raises:
        ValueError: a set has fewer than 2 images, or the numbers of features differ.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    if min(real.num, generated.num) < 2 or real.sum.shape != generated.sum.shape:
        raise ValueError(
            "a Fréchet distance needs 2 or more images a side and equal features, got "
            f"{real.num} x {len(real.sum)} and {generated.num} x {len(generated.sum)}"
        )
    # sync_on_compute: inside a worker the default would wait for ranks that never come
    metric = FrechetInceptionDistance(_Given(len(real.sum)), sync_on_compute=False)
    metric.merge_state(
        {
            f"{side}_features_{part}": value
            for side, statistics in (("real", real), ("fake", generated))
            for part, value in (
                ("sum", statistics.sum),
                ("cov_sum", statistics.outer),
                ("num_samples", torch.tensor(statistics.num)),
            )
        }
    )
    metric.update(real.sum.new_empty(0, len(real.sum)), real=False)  # no images: fixes the result's type, float64
    return float(metric.compute())


def cached_statistics(path: Path, features: Callable[[], Tensor]) -> FeatureStatistics:
    """Statistics from the file at `path`, or of `features()`, which are then stored there.

    The file appears whole or not at all, so processes may share a cache; an unreadable one is made again.
    `path` must name everything that the features depend on.
    """
    try:
        stored = load_file(path)
        return FeatureStatistics(stored["sum"], stored["outer"], int(stored["num"]))
    except (FileNotFoundError, SafetensorError, KeyError):
        statistics = FeatureStatistics.of(features())
    with whole_file(path) as partial:
        tensors = {"sum": statistics.sum, "outer": statistics.outer, "num": torch.tensor(statistics.num)}
        save_file(tensors, partial)
    return statistics
