"""Planted copies: slices of which it is known that they are copies, by which an audit shows what it would have found.

Each kind changes a training slice in one way, by an amount drawn anew for each copy; `combined` in five ways at once.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lwddpm.audit.correlation import REACH_PX, blurred

Generator = np.random.Generator

_NOISE = (2.0, 8.0)  # standard deviation, grey levels of 255
_DEGREES = (2.0, 6.0)  # either way
_GAIN, _OFFSET = (0.7, 1.3), (-25.0, 25.0)  # around the mean; grey levels
_BLUR_PX = (0.5, 1.25)  # sigma at 64x64, in proportion at other sizes


def planted(images: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Changed copies of slices.

    Args:
        images: uint8 [N, S, S].
        kind: one of `KINDS`.
        seed: with it and the kind the changes are always the same.

    Returns:
        uint8 [N, S, S].
    """
    draw = np.random.default_rng([seed, list(KINDS).index(kind)])
    changed = KINDS[kind](torch.from_numpy(np.array(images)).float(), draw)
    return changed.round().clamp(0, 255).to(torch.uint8).numpy()


def _exact(images: Tensor, draw: Generator) -> Tensor:
    return images


def _noisy(images: Tensor, draw: Generator) -> Tensor:
    noise = torch.from_numpy(draw.normal(size=images.shape)).float()
    return images + noise * _each(draw, _NOISE, len(images))


def _flipped(images: Tensor, draw: Generator) -> Tensor:
    return images.flip(2)


def _shifted(images: Tensor, draw: Generator) -> Tensor:
    shifts = draw.integers(-REACH_PX, REACH_PX + 1, size=(len(images), 2))
    padded = F.pad(images[:, None], (REACH_PX,) * 4, mode="replicate")[:, 0]
    size, places = images.shape[1], (shifts + REACH_PX).tolist()
    return torch.stack([image[i : i + size, j : j + size] for image, (i, j) in zip(padded, places, strict=True)])


def _rotated(images: Tensor, draw: Generator) -> Tensor:
    angles = torch.deg2rad(_each(draw, _DEGREES, len(images)) * _sign(draw, len(images)))[:, 0, 0]
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    turns = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(turns, [len(images), 1, *images.shape[1:]], align_corners=False)
    return F.grid_sample(images[:, None], grid, align_corners=False, padding_mode="border")[:, 0]


def _contrast(images: Tensor, draw: Generator) -> Tensor:
    mean = images.mean((1, 2), keepdim=True)
    return (images - mean) * _each(draw, _GAIN, len(images)) + mean + _each(draw, _OFFSET, len(images))


def _blurred(images: Tensor, draw: Generator) -> Tensor:
    sigmas = (_each(draw, _BLUR_PX, len(images)) * images.shape[1] / 64)[:, 0, 0].tolist()
    return torch.cat([blurred(image[None], sigma) for image, sigma in zip(images, sigmas, strict=True)])


def _combined(images: Tensor, draw: Generator) -> Tensor:
    for change in (_flipped, _shifted, _rotated, _contrast, _noisy):
        images = change(images, draw)
    return images


def _each(draw: Generator, bounds: tuple[float, float], num: int) -> Tensor:
    """A number between the bounds for each slice, [N, 1, 1]."""
    return torch.from_numpy(draw.uniform(*bounds, num)).float()[:, None, None]


def _sign(draw: Generator, num: int) -> Tensor:
    return torch.from_numpy(draw.choice([-1.0, 1.0], num)).float()[:, None, None]


KINDS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "exact": _exact,
    "noisy": _noisy,
    "flipped": _flipped,
    "shifted": _shifted,
    "rotated": _rotated,
    "re-contrasted": _contrast,
    "blurred": _blurred,
    "combined": _combined,
}
