"""Augmentation that does not leak into what is drawn: Karras et al. 2020 (arXiv:2006.06676), 2022 (arXiv:2206.00364).

Slices are mirrored, shifted, scaled, rotated and made brighter or darker, each with some probability, and the network
is told how (as in appendix F.2 of the latter). It learns the slices as they are where it is told of no change, which is
how they are drawn: then the one layer that tells it adds nothing, so that models have none.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_AUGMENTATION = 7  # random stream of a seed, beside those of `batches`
# What changes, and by how much: 1 for "mirrored", else the standard deviation of the change. Those of EDM are 0.125 for
# shifts and 0.2 for scales, and any rotation; heads in scanners lie nearly upright.
CHANGES = {
    "mirrored": 1.0,
    "shift_x": 0.1,  # of the side
    "shift_y": 0.1,
    "scale": 0.2,  # log2 of the factor
    "rotation": math.radians(15),
    "brightness": 0.2,  # log2 of the factor of an intensity above black, as the network sees it
}


def augmentation_draw(seed: int, step: int, batch_size: int, probability: float) -> np.ndarray:
    """How the slices of a global batch are changed, float32 [B, 6] in the order of CHANGES.

    A 1 says that a slice is mirrored; other numbers are in standard deviations; 0 is no change.
    """
    rng = np.random.default_rng([_AUGMENTATION, seed, step])
    changes = rng.standard_normal((batch_size, len(CHANGES)), dtype=np.float32)
    changes[:, 0] = 1
    return np.where(rng.random(changes.shape) < probability, changes, np.float32(0))


def augmented(x_0: Tensor, changes: Tensor) -> Tensor:
    """Slices changed as the draw says: mirrored, then scaled and rotated about the middle, shifted, made brighter.

    Slices that are not moved are not resampled; what moves in from outside is black.

    Args:
        x_0: float [B, 1, S, S] in [-1, 1], where -1 is black.
        changes: of `augmentation_draw`, [B, 6].

    Returns:
        The same shape and range.
    """
    mirrored, *moves, brightness = (changes.to(x_0.dtype) * x_0.new_tensor(list(CHANGES.values()))).unbind(1)
    x = torch.where(_per_image(mirrored > 0), x_0.flip(-1), x_0)
    x = torch.where(_per_image(torch.stack(moves).ne(0).any(0)), _moved(x, *moves), x)
    brighter = ((x + 1) * _per_image(torch.exp2(brightness)) - 1).clamp(max=1)
    return torch.where(_per_image(brightness != 0), brighter, x)


def _moved(x: Tensor, shift_x: Tensor, shift_y: Tensor, log_scale: Tensor, rotation: Tensor) -> Tensor:
    """Slices under p -> scale * R(rotation) p + shift, where R turns from the x to the y axis, bilinear."""
    scale = torch.exp2(-log_scale)
    cos, sin = scale * rotation.cos(), scale * rotation.sin()
    x_from, y_from = 2 * shift_x, 2 * shift_y  # a side is 2 long in the coordinates of the grid
    rows = [cos, sin, -cos * x_from - sin * y_from, -sin, cos, sin * x_from - cos * y_from]
    grid = F.affine_grid(torch.stack(rows, 1).unflatten(1, (2, 3)), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]
