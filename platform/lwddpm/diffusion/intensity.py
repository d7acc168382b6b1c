"""Between stored intensities (uint8, 0 to 255) and those the network sees (float, -1 to 1).

The network sees y = 2 (p / 255)^gamma - 1, where gamma is `DiffusionConfig.intensity_gamma`; it belongs to the model,
and what trains, draws or reconstructs passes it here.
"""

import torch
from torch import Tensor

from lwddpm.config import DiffusionConfig


def from_uint8(images: Tensor, gamma: float = 1) -> Tensor:
    """Stored intensities, uint8 of any shape, to torch's default number format (float32), in [-1, 1]."""
    x = images.to(torch.get_default_dtype())
    if gamma == 1:
        return x.div_(127.5).sub_(1)
    return x.div_(255).pow_(gamma).mul_(2).sub_(1)


def to_uint8(x: Tensor, gamma: float = 1) -> Tensor:
    """Float of any shape to the nearest stored intensities; values outside [-1, 1] are clamped."""
    clamped = x.clamp(-1, 1)
    if gamma == 1:
        return ((clamped + 1) * 127.5).round().to(torch.uint8)
    return (((clamped + 1) / 2) ** (1 / gamma) * 255).round().to(torch.uint8)


def gamma_of(diffusion: DiffusionConfig | None) -> float:
    """The gamma of a diffusion model's intensities; a GAN, which has no `diffusion`, sees them as they are."""
    return 1 if diffusion is None else diffusion.intensity_gamma
