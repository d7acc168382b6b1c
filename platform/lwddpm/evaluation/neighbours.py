"""Fidelity and coverage from nearest neighbours in feature space, and the kernel distance: what blur cannot buy.

A Fréchet distance mixes how real the slices look with how many kinds of them there are. Here the two are apart
(Kynkäänniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797). A ball reaches from a slice to its
k-th nearest neighbour in its own set:

    precision   share of generated slices inside a ball of a real one
    recall      share of real slices inside a ball of a generated one
    density     balls of real slices that a generated one lies in, on average, divided by k; not bounded by 1
    coverage    share of real slices whose ball holds a generated one
"""

import numpy as np
import torch
from torch import Tensor

from lwddpm.evaluation.intervals import Interval, jackknife, of_share

K = 5  # neighbours; both papers use 3 to 5


class Neighbours:
    """Distances between the features of real and of generated slices, from which all four figures are read.

    Args:
        real: float [N, D], N > K.
        generated: float [M, D], M > K. All four depend on N and M: compare only equal ones.

    Raises:
        ValueError: a set has K slices or fewer.
    """

    def __init__(self, real: Tensor, generated: Tensor) -> None:
        if min(len(real), len(generated)) <= K:
            raise ValueError(
                f"nearest neighbours need more than {K} slices a side, got {len(real)} and {len(generated)}"
            )
        real, generated = real.double(), generated.double()
        self.num = len(generated)
        between = torch.cdist(real, generated)
        self._between, self._within = between, torch.cdist(generated, generated)
        self._inside = between <= _radii(torch.cdist(real, real))[:, None]  # [N, M]: generated in the ball of real

    def precision(self, rows: np.ndarray | None = None) -> float:
        """Of the generated slices at `rows`, int64 [m]; default: of all. As for the other three."""
        return float(self._inside[:, _index(rows)].any(0).double().mean())

    def recall(self, rows: np.ndarray | None = None) -> float:
        return float(self.recalled(rows).double().mean())

    def density(self, rows: np.ndarray | None = None) -> float:
        return float(self._inside[:, _index(rows)].sum(0).double().mean() / K)

    def coverage(self, rows: np.ndarray | None = None) -> float:
        return float(self.covered(rows).double().mean())

    def recalled(self, rows: np.ndarray | None = None) -> Tensor:
        """Whether each real slice lies inside a ball of a generated one, bool [N]."""
        index = _index(rows)
        return (self._between[:, index] <= _radii(self._within[index][:, index])[None]).any(1)

    def covered(self, rows: np.ndarray | None = None) -> Tensor:
        """Whether each real slice's ball holds a generated one, bool [N]."""
        return self._inside[:, _index(rows)].any(1)

    def interval(self, name: str) -> Interval | None:
        """The 95 % interval of one of the four, for other generated slices and the same real ones.

        Those of recall and coverage are too wide rather than too narrow: fewer slices have larger balls.
        """
        n = self.num
        if name == "precision":
            return of_share(round(self.precision() * n), n)
        statistic = getattr(self, name)
        return jackknife(statistic(), statistic, n)


def kernel_distance(real: Tensor, generated: Tensor) -> float:
    """Squared maximum mean discrepancy with KID's polynomial kernel, unbiased: about 0 for sets from one distribution.

    KID of all slices instead of the mean over subsets (Bińkowski et al. 2018, arXiv:1801.01401); it may be negative.

    Args:
        real, generated: features, float [N, D] each, the same N of 2 or more.
    """
    from torchmetrics.image.kid import poly_mmd

    return float(poly_mmd(real.double(), generated.double()))


def kernel_interval(real: Tensor, generated: Tensor) -> Interval | None:
    """The 95 % interval of `kernel_distance`, for other generated slices and the same real ones."""
    value = kernel_distance(real, generated)
    return jackknife(value, lambda rows: kernel_distance(real[rows], generated[rows]), len(generated))


def _radii(distances: Tensor) -> Tensor:
    """Distance of each slice to its K-th nearest neighbour, given those of all to all; the nearest is itself."""
    return distances.kthvalue(K + 1, dim=1).values


def _index(rows: np.ndarray | None) -> Tensor | slice:
    return slice(None) if rows is None else torch.from_numpy(rows)
