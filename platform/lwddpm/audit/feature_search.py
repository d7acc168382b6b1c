"""The training slices whose EfficientNet-Lite0 features a slice is nearest to, as they are or mirrored."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

EXTRACTOR = "fd_lite0"
_ROWS = 2  # nearest training slices that the exact correlation looks at, too


class Near(NamedTuple):
    """Of N slices: the cosine to the nearest training slice, float32 [N], and the nearest rows, int64 [N, K]."""

    score: np.ndarray
    rows: np.ndarray


class FeatureSearch:
    """Features of the training slices, ready to be searched: centred, on the unit sphere.

    Args:
        train, mirrored: of the training slices, and of them mirrored left to right; float [T, D] each.
    """

    def __init__(self, train: Tensor, mirrored: Tensor) -> None:
        self._mean = train.mean(0)
        self._train, self._mirrored = self._unit(train), self._unit(mirrored)

    def __call__(self, features: Tensor) -> Near:
        """Search for slices with features float [N, D]."""
        unit = self._unit(features)
        cosines = torch.maximum(unit @ self._train.T, unit @ self._mirrored.T)
        best = cosines.topk(min(_ROWS, cosines.shape[1]), dim=1)
        return Near(best.values[:, 0].numpy(), best.indices.numpy())

    def _unit(self, features: Tensor) -> Tensor:
        centred = features - self._mean
        return centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-6)
