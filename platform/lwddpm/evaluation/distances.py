"""Fréchet distances from a reference set of features, whose statistics can be stored.

d² = |mu_1 - mu_2|² + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)), Heusel et al. 2017 (arXiv:1706.08500), eq. 6; as is
customary the square is what is reported. torchmetrics computes it, here always from float64 statistics: float32
ones are off by more than a percent when there are fewer images than features.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lwddpm.evaluation.intervals import FEWEST_FOR_INTERVAL, Interval, jackknife

FEWEST_TO_EXTRAPOLATE = 500  # slices
_SIZES = 4  # of the subsets that a line is laid through

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

    def with_interval(self, features: Tensor) -> tuple[float, Interval | None]:
        """`distance(features)` and its 95 % interval, at the same M and with the same reference; None for M < 40."""
        value = self.distance(features)
        if len(features) < FEWEST_FOR_INTERVAL:
            return value, None
        return value, jackknife(value, _Subsets(features, self._spectrum).distance, len(features))

    def at_infinity(self, features: Tensor) -> tuple[float, Interval | None]:
        """The distance that infinitely many slices of the same model would have, and its 95 % interval.

        The bias of the distance of m slices is nearly proportional to 1 / m: a line through the distances of random
        subsets, from half of the slices to all, is read off at 1 / m = 0 (Chong & Forsyth 2020, arXiv:1911.07023,
        section 4). The bias that the reference has, the same for all, stays.

        Args:
            features: [M, D] with M from FEWEST_TO_EXTRAPOLATE. With EfficientNet-Lite0 features of real slices and a
                true distance of 4.4, M = 650 and 1000 gave 3.9, M = 300 gave 7.5; distances were 10.7, 8.4 and 18.5.
        """
        subsets = _Subsets(features, self._spectrum)
        value = subsets.extrapolated(np.arange(len(features)))
        return value, jackknife(value, subsets.extrapolated, len(features))

    def of_subsets(self, features: Tensor) -> Callable[[np.ndarray], float]:
        """`distance` of the features [M, D] at some rows, int64 [m], many times as fast for many subsets."""
        return _Subsets(features, self._spectrum).distance

    @cached_property
    def _spectrum(self) -> "_Spectrum":
        """Of the reference, from the metric's sums."""
        state = self._metric.state_dict()
        mean = state["real_features_sum"] / self.num
        covariance = (state["real_features_cov_sum"] - self.num * torch.outer(mean, mean)) / (self.num - 1)
        eigenvalues, directions = torch.linalg.eigh(covariance)
        return _Spectrum(mean, eigenvalues, directions, covariance.trace())

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


def frechet_between(reference: Tensor, features: Tensor) -> float:
    """`ReferenceStatistics.of(reference).distance(features)` of few slices, many times as fast.

    The trace of (S_1 S_2)^(1/2) is the sum of the singular values of Y_1 Y_2^T / ((N - 1) (M - 1))^(1/2), Y being the
    centred features: a matrix as small as the sets are.

    Args:
        reference, features: float [N, D] and [M, D], N and M from 2.
    """
    first, second = reference.double(), features.double()
    means = first.mean(0), second.mean(0)
    centred = [(rows - mean) / (len(rows) - 1) ** 0.5 for rows, mean in zip((first, second), means, strict=True)]
    shared = torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    own = sum(rows.square().sum() for rows in centred)
    return float((means[0] - means[1]).square().sum() + own - 2 * shared)


class _Spectrum(NamedTuple):
    """Mean [D], and the unbiased covariance's eigenvalues [D], eigenvectors [D, D] in columns and trace; float64."""

    mean: Tensor
    eigenvalues: Tensor
    directions: Tensor
    trace: Tensor


class _Subsets:
    """Distances of many subsets of the same features from one reference.

    With centred rows Y of a subset of m and the reference's covariance S, the trace of (S S_2)^(1/2) is the sum of the
    singular values of Y S^(1/2) / (m - 1)^(1/2): of its smaller Gram matrix the eigenvalues' roots.
    """

    def __init__(self, features: Tensor, reference: _Spectrum) -> None:
        self._centred = features.double() - reference.mean
        self._weighted = self._centred @ reference.directions * reference.eigenvalues.clamp(min=0).sqrt()
        self._trace = reference.trace

    def distance(self, rows: np.ndarray) -> float:
        """The squared Fréchet distance of the features at `rows`, int64 [m]."""
        centred, weighted = (values[torch.from_numpy(rows)] for values in (self._centred, self._weighted))
        mean, trace = centred.mean(0), centred.var(0).sum()
        weighted = (weighted - weighted.mean(0)) / (len(rows) - 1) ** 0.5
        gram = weighted @ weighted.T if len(rows) < weighted.shape[1] else weighted.T @ weighted
        roots = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
        return float(mean.square().sum() + self._trace + trace - 2 * roots.sum())

    def extrapolated(self, rows: np.ndarray) -> float:
        """The distance read off at infinitely many slices, from subsets of those at `rows`."""
        order = np.random.default_rng(0).permutation(rows)
        sizes = np.linspace(len(rows) / 2, len(rows), _SIZES).astype(int)
        distances = [self.distance(order[:size]) for size in sizes]
        return float(np.polyfit(1 / sizes, distances, 1)[1])


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
