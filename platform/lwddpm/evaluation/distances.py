"""Fréchet distances from a reference set of features, whose statistics can be stored.

d² = |mu_1 - mu_2|² + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)), Heusel et al. 2017 (arXiv:1706.08500), eq. 6; as is
customary the square is what is reported. torchmetrics computes it, here always from float64 statistics: float32
ones are off by more than a percent when there are fewer images than features.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance


class ReferenceStatistics:
    """Mean and covariance of a reference set's features, from which distances of other sets are measured.

    Attributes:
        num: of images in the reference set.
    """

    def __init__(self, metric: "FrechetInceptionDistance", num: int, num_features: int) -> None:
        """Use `of` or `from_tensors`; `metric` has seen the reference set as its real images."""
        self._metric, self.num, self._num_features = metric, num, num_features

    @classmethod
    def of(cls, features: Tensor) -> "ReferenceStatistics":
        """Statistics of features [N, D] of any float type."""
        num, num_features = features.shape
        metric = _metric(num_features)
        metric.update(features.double(), real=True)
        return cls(metric, num, num_features)

    def distance(self, features: Tensor) -> float:
        """Squared Fréchet distance of the Gaussian fitted to features [M, D] (unbiased covariances).

        Biased upwards for small sets: compare only distances of equal N and equal M.

        Raises:
            ValueError: a set has fewer than 2 images, or the numbers of features differ.
        """
        if min(self.num, len(features)) < 2 or features.shape[1] != self._num_features:
            raise ValueError(
                "a Fréchet distance needs 2 or more images a side and equal features, got "
                f"{self.num} x {self._num_features} and {len(features)} x {features.shape[1]}"
            )
        self._metric.reset()  # keeps the reference
        self._metric.update(features.double(), real=False)
        return float(self._metric.compute())

    def to_tensors(self) -> dict[str, Tensor]:
        """What `from_tensors` restores the statistics from; the metric's own state, under torchmetrics' names."""
        self._metric.reset()
        sizes = {"num": torch.tensor(self.num), "num_features": torch.tensor(self._num_features)}
        return sizes | self._metric.state_dict()

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "ReferenceStatistics":
        """Inverse of `to_tensors`.

        Raises:
            KeyError, ValueError: another version has written the tensors.
        """
        state = dict(tensors)
        num, num_features = int(state.pop("num")), int(state.pop("num_features"))
        metric = _metric(num_features)
        if metric.state_dict().keys() != state.keys():
            raise ValueError(f"not the state of this torchmetrics' FID: {', '.join(state)}")
        metric.load_state_dict(state)
        return cls(metric, num, num_features)


class _Identity(nn.Module):
    """The feature network of a metric that is given features instead of images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _metric(num_features: int) -> "FrechetInceptionDistance":
    from torchmetrics.image.fid import FrechetInceptionDistance

    # sync_on_compute: inside a worker the default would wait for ranks that never come
    metric = FrechetInceptionDistance(_Identity(num_features), reset_real_features=False, sync_on_compute=False)
    metric.persistent(True)
    return metric
