"""SSIM between slices, between each slice and its best match in a bank, and between random pairs.

One definition throughout: Wang et al. 2004 (doi:10.1109/TIP.2003.819861), eq. 13, on intensities in [0, 1] with L = 1,
Gaussian window of sigma 1.5 cut off at 11 x 11, K = (0.01, 0.03), population covariances, averaged over the windows
that lie wholly inside the image. scikit-image gives the same with gaussian_weights=True, sigma=1.5,
use_sample_covariance=False, data_range=1.0; torchmetrics differs: it also averages over windows that overlap a
mirrored border.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
PAIRS_AT_ONCE, QUERIES_AT_ONCE = 8, 256  # what a CPU's cache holds
Images = np.ndarray | Tensor


def ssim(first: Images, second: Images) -> Tensor:
    """SSIM of aligned pairs.

    Args:
        first, second: uint8 [N, S, S], S >= 11.

    Returns:
        float64 [N], in [-1, 1]; 1 only for equal images.

    Raises:
        ValueError: the images are not uint8, too small, or of unequal shapes.
    """
    x, y = _as_tensor(first), _as_tensor(second)
    if x.shape != y.shape:
        raise ValueError(f"pairs need equal shapes, got {tuple(x.shape)} and {tuple(y.shape)}")
    averages = _window_averages(x.shape[-1])
    return torch.cat(
        [_ssim(a, b, averages) for a, b in zip(x.split(PAIRS_AT_ONCE), y.split(PAIRS_AT_ONCE), strict=True)]
    )


def ssim_pairs(images: Images, *, num_pairs: int, seed: int) -> Tensor:
    """SSIM of random pairs of different images; low means diverse, not bad.

    Args:
        images: uint8 [N, S, S], N >= 2.
        num_pairs: each drawn independently.
        seed: decides the pairs, together with N and num_pairs.

    Returns:
        float64 [num_pairs].
    """
    if len(images) < 2:
        raise ValueError(f"a pair needs 2 images, got {len(images)}")
    random = np.random.default_rng(seed)
    first = random.integers(len(images), size=num_pairs)
    second = (first + random.integers(1, len(images), size=num_pairs)) % len(images)
    return ssim(images[first], images[second])


def ssim_nearest(
    queries: Images, bank: Images, *, shortlist: int = 4, on_batch: Callable[[int], None] | None = None
) -> tuple[Tensor, Tensor]:
    """Highest SSIM of each query with any image of a bank; grows with the bank's size.

    All pairs are ranked by SSIM over a grid of about 20 x 20 of its windows; the best `shortlist` of each query are
    then compared exactly. What is returned is thus an SSIM in full, very rarely of the second-best match.

    Args:
        queries: uint8 [Q, S, S].
        bank: uint8 [B, S, S].
        shortlist: matches compared exactly; with B or more the search is exhaustive.
        on_batch: called with the number of queries just done.

    Returns:
        SSIM, float64 [Q], and the match's index in the bank, int64 [Q].
    """
    x, y = _as_tensor(queries), _as_tensor(bank)
    if len(y) == 0 or x.shape[1:] != y.shape[1:]:
        raise ValueError(f"queries {tuple(x.shape)} need a bank of images of their size, got {tuple(y.shape)}")
    best, index = [], []
    for batch in x.split(QUERIES_AT_ONCE):
        candidates = _rank_on_grid(batch, y).topk(min(shortlist, len(y))).indices
        width = candidates.shape[1]
        exact = ssim(batch.repeat_interleave(width, dim=0), y[candidates.flatten()]).unflatten(0, (-1, width))
        value, position = exact.max(dim=1)
        best.append(value)
        index.append(candidates.gather(1, position[:, None])[:, 0])
        if on_batch is not None:
            on_batch(len(batch))
    return torch.cat(best), torch.cat(index)


def _as_tensor(images: Images) -> Tensor:
    tensor = torch.tensor(images) if isinstance(images, np.ndarray) else images
    if (
        tensor.dtype != torch.uint8
        or tensor.ndim != 3
        or tensor.shape[1] != tensor.shape[2]
        or tensor.shape[1] < WINDOW
    ):
        raise ValueError(f"images must be uint8 [N, S, S] with S >= {WINDOW}, got {tensor.dtype} {tuple(tensor.shape)}")
    return tensor


def _gaussian() -> Tensor:
    """The window along one axis, float64 [11], sum 1."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    return weights / weights.sum()


def _window_averages(size: int) -> Tensor:
    """Banded matrix A [size - 10, size], float64, such that A x A^T are the window averages of an image x."""
    matrix = torch.zeros(size - WINDOW + 1, size, dtype=torch.float64)
    for row in range(len(matrix)):
        matrix[row, row : row + WINDOW] = _gaussian()
    return matrix


def _ssim(first: Tensor, second: Tensor, averages: Tensor) -> Tensor:
    x, y = first.double() / 255, second.double() / 255
    mean_x, mean_y, x2, y2, xy = averages @ torch.stack([x, y, x * x, y * y, x * y]) @ averages.T
    covariance, variances = xy - mean_x * mean_y, x2 + y2 - mean_x**2 - mean_y**2
    return _index(mean_x * mean_y, mean_x**2 + mean_y**2, covariance, variances).mean((1, 2))


def _index(means: Tensor, squared_means: Tensor, covariance: Tensor, variances: Tensor) -> Tensor:
    """SSIM of windows from mu_x mu_y, mu_x² + mu_y², cov(x, y) and var x + var y."""
    return (2 * means + C1) * (2 * covariance + C2) / ((squared_means + C1) * (variances + C2))


def _rank_on_grid(queries: Tensor, bank: Tensor) -> Tensor:
    """SSIM [Q, B] over a sparse grid of windows: one small matrix product per window."""
    size = queries.shape[-1]
    weights = torch.outer(_gaussian(), _gaussian()).flatten().float()
    positions = range(0, size - WINDOW + 1, max(1, size // 20))

    def moments(images: Tensor, row: int, column: int) -> tuple[Tensor, Tensor, Tensor]:
        window = images[:, row : row + WINDOW, column : column + WINDOW].flatten(1).float() / 255
        mean = window @ weights
        centred = (window - mean[:, None]) * weights.sqrt()
        return mean, (centred**2).sum(1), centred

    total = torch.zeros(len(queries), len(bank))
    for row in positions:
        for column in positions:
            mean_q, variance_q, centred_q = moments(queries, row, column)
            mean_b, variance_b, centred_b = moments(bank, row, column)
            total += _index(
                torch.outer(mean_q, mean_b),
                mean_q[:, None] ** 2 + mean_b**2,
                centred_q @ centred_b.T,
                variance_q[:, None] + variance_b,
            )
    return total / len(positions) ** 2
