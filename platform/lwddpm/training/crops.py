"""Training on crops of the slices for part of the steps: Patch Diffusion (Wang et al. 2023, arXiv:2304.12526).

A step on crops of half the side computes a quarter of the pixels. The network is told where in the slice each pixel
lies (`model.coordinates`), and sees whole slices in the other steps, so that it can draw whole slices.

Unlike there, which size a step has is not drawn but spread evenly, so that every part of the training, and every point
of the logged curves, has its share; crops have one size; and the batch stays as large as that of whole slices (the
authors' code doubles it for crops of half the side).
"""

import math

import numpy as np
import torch
from torch import Tensor

from lwddpm.config import PatchesConfig

_CROPS = 11  # random stream of a seed, beside those of `batches`
_ROUNDING = 1e-9  # of shares, which are no fractions of two


def on_crops(patches: PatchesConfig | None, step: int, num_steps: int) -> bool:
    """Whether step number `step`, from 0, of so many sees crops; the same on every worker and after every stop."""
    if patches is None or patches.share == 0 or step >= patches.until * num_steps:
        return False
    rate = patches.share / patches.until
    before, after = (math.floor(number * rate + _ROUNDING) for number in (step, step + 1))
    return after > before


def crop_draw(seed: int, step: int, batch_size: int, image_size: int, side: int) -> np.ndarray:
    """Where the crops of a global batch begin, row and column of each, int64 [B, 2]; all places are equally likely."""
    return np.random.default_rng([_CROPS, seed, step]).integers(image_size - side + 1, size=(batch_size, 2))


def cropped(x: Tensor, corners: Tensor, side: int) -> Tensor:
    """The crops that begin at rows and columns, long [B, 2], of x [B, C, H, W] or [C, H, W]: [B, C, side, side]."""
    rows, columns = (corners[:, axis, None] + torch.arange(side, device=corners.device) for axis in (0, 1))
    images = x if x.dim() == 4 else x.expand(len(corners), -1, -1, -1)
    of_image = torch.arange(len(corners), device=corners.device)[:, None, None]
    # indices on both sides of the channels: the channels come last
    return images[of_image, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()
