"""Slices without a network and without a training: the Gaussian of the training slices, every comparison's baseline.

It knows the mean slice and how pixels vary together, and nothing else: what a trained network does not do better than
this is not worth its training.

    x = mean + C^(1/2) z        C: covariance of the training slices in [-1, 1], z: unit noise

The noise of slice i is the samplers' noise of slice i, and x is where its probability-flow path ends if the slices are
Gaussian (Wang & Vastola 2023, arXiv:2311.10892): the same number is the same slice as far as a Gaussian can draw it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lwddpm.diffusion.intensity import from_uint8, to_uint8
from lwddpm.diffusion.streams import noise_streams

MOST_DIRECTIONS = 1024
_BATCH = 64  # slices drawn at a time
_SHORTEST = 1e-6  # of a direction that is used, in intensities: shorter ones are rounding errors


@dataclass(frozen=True)
class SliceGaussian:
    """A Gaussian of slices in [-1, 1].

    Attributes:
        mean: float32 [S, S].
        axes: orthogonal directions of largest variance, each as long as the standard deviation along it,
            float32 [K, S, S].
    """

    mean: Tensor
    axes: Tensor

    def draw(self, indices: Sequence[int], seed: int) -> Tensor:
        """Slices of the endless sequence of a seed, uint8 [N, S, S]; slice i depends on (seed, i) alone."""
        axes, lengths = self.axes.flatten(1), self.axes.flatten(1).norm(dim=1, keepdim=True)
        unit = axes / lengths
        drawn = [torch.empty(0, *self.mean.shape, dtype=torch.uint8)]
        for start in range(0, len(indices), _BATCH):
            streams = noise_streams(seed, indices[start : start + _BATCH])
            noise = torch.stack([torch.randn(1, *self.mean.shape, generator=stream) for stream in streams])
            x = self.mean.flatten() + (noise.flatten(1) @ unit.T) @ axes
            drawn.append(to_uint8(x.reshape(-1, *self.mean.shape)))
        return torch.cat(drawn)


def fit_gaussian(images: Tensor, most_directions: int = MOST_DIRECTIONS) -> SliceGaussian:
    """The Gaussian of slices, with the variance that they have along each direction.

    Args:
        images: uint8 [N, S, S], N of 2 or more. Takes the eigenvectors of a matrix of the smaller of N and S * S.
        most_directions: those of largest variance are kept; N slices vary along at most N - 1.

    Raises:
        ValueError: a single slice, which has no variance.
    """
    if len(images) < 2:
        raise ValueError(f"a Gaussian needs 2 or more slices, got {len(images)}")
    flat = from_uint8(images).flatten(1)
    mean = flat.mean(0)
    centred = (flat - mean) / (len(images) - 1) ** 0.5
    few_slices = len(images) <= centred.shape[1]
    matrix = centred @ centred.T if few_slices else centred.T @ centred
    values, vectors = torch.linalg.eigh(matrix.double())  # rising
    values, vectors = values.flip(0)[:most_directions], vectors.flip(1)[:, :most_directions].float()
    axes = vectors.T @ centred if few_slices else (vectors * values.clamp(min=0).sqrt().float()).T
    axes = axes[axes.norm(dim=1) > _SHORTEST]
    return SliceGaussian(mean.reshape(images.shape[1:]), axes.reshape(-1, *images.shape[1:]))
