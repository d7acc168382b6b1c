"""Between stored intensities (uint8, 0 to 255) and those the network sees (float, -1 to 1)."""

import torch
from torch import Tensor


def from_uint8(images: Tensor) -> Tensor:
    """Stored intensities, uint8 of any shape, to float32 in [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Float of any shape to the nearest stored intensities; values outside [-1, 1] are clamped."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
