"""Which image, timestep, flip and noise each sample of each step gets.

Everything is a function of (seed, step, position in the global batch). So the loss curve does not depend on how
many workers share the batch, and a resumed run needs no saved random state.
"""

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lwddpm.diffusion.intensity import from_uint8
from lwddpm.training.schedule import batches_per_epoch

_ROWS = 10  # 7 to 9 are those of `augmentation` and `vocabulary`
_ORDER, _DRAW, _VALIDATION, _LATENT, _MIXING, _STRATA = 1, 2, 3, 4, 5, 6  # separate random streams of one seed


@dataclass(frozen=True)
class Draw:
    """Random choices for a run of samples; all arrays have shape [B].

    Attributes:
        indices: rows of the split.
        timesteps: 0 <= t < T.
        flips: whether the slice is mirrored left to right.
        noise_seeds: one seed per sample for its Gaussian noise.
    """

    indices: np.ndarray
    timesteps: np.ndarray
    flips: np.ndarray
    noise_seeds: np.ndarray

    def part(self, start: int, stop: int) -> "Draw":
        return Draw(*(values[start:stop] for values in vars(self).values()))


def training_draw(
    seed: int,
    step: int,
    batch_size: int,
    num_images: int,
    num_timesteps: int,
    flip: bool,
    timestep_sampling: str = "uniform",
    cdf: np.ndarray | None = None,
) -> Draw:
    """The global batch of a step (counted from 0).

    An epoch is as many whole batches of a fresh permutation as there are; the remainder is left to later epochs.

    Args:
        timestep_sampling: as in `TrainingConfig`; all but "uniform" have strata, which are those of the global batch.
        cdf: `timestep_cdf` of a normal ln sigma; None: all timesteps are equally likely.
    """
    epoch, position = divmod(step, batches_per_epoch(num_images, batch_size))
    indices = _permutation(seed, epoch, num_images)[position * batch_size : (position + 1) * batch_size]
    draw = _draw(np.random.default_rng([_DRAW, seed, step]), indices, num_timesteps, flip)
    if timestep_sampling == "uniform":
        return draw
    return dataclasses.replace(draw, timesteps=_stratified(seed, step, batch_size, num_timesteps, cdf))


def validation_draw(
    seed: int, num_samples: int, num_images: int, num_timesteps: int, cdf: np.ndarray | None = None
) -> Draw:
    """The same slices, evenly spaced timesteps and noise at every call, so that val/loss curves compare.

    Args:
        cdf: as in `training_draw`; then timesteps are evenly spaced in probability, and val/loss is train/loss on other
            slices.
    """
    rng = np.random.default_rng([_VALIDATION, seed])
    indices = np.sort(rng.permutation(num_images)[:num_samples])
    draw = _draw(rng, indices, num_timesteps, flip=False)
    timesteps = _timesteps((np.arange(len(indices)) + 0.5) / len(indices), num_timesteps, cdf)
    return Draw(draw.indices, rng.permutation(timesteps), draw.flips, draw.noise_seeds)


def latent_draw(seed: int, step: int, batch_size: int) -> np.ndarray:
    """One seed for each latent vector of a generator's step, int64 [B]."""
    return np.random.default_rng([_LATENT, seed, step]).integers(2**63, size=batch_size)


def rows_draw(seed: int, step: int, batch_size: int, num_images: int) -> np.ndarray:
    """Rows of the split whose conditions a generator's step draws, int64 [B]."""
    return np.random.default_rng([_ROWS, seed, step]).integers(num_images, size=batch_size)


def mixing_draw(seed: int, update: int, batch_size: int) -> np.ndarray:
    """Where between its real and its generated slice each point of a gradient penalty lies, float32 [B] in [0, 1)."""
    return np.random.default_rng([_MIXING, seed, update]).random(batch_size, dtype=np.float32)


def _stratified(seed: int, step: int, batch_size: int, num_timesteps: int, cdf: np.ndarray | None) -> np.ndarray:
    """Timesteps at the quantiles frac(u + i / B), one u a step, in random order, int64 [B]; each alone is uniform, or
    distributed as the cdf has it.

    The low-discrepancy sampler of Kingma et al. 2021 (arXiv:2107.00630), appendix I.1. The order is random so that the
    share of a worker, or a part of an accumulated batch, has timesteps from the whole chain too.
    """
    rng = np.random.default_rng([_STRATA, seed, step])
    places = (rng.random() + np.arange(batch_size) / batch_size) % 1
    return rng.permutation(_timesteps(places, num_timesteps, cdf))


def _timesteps(places: np.ndarray, num_timesteps: int, cdf: np.ndarray | None) -> np.ndarray:
    """Timesteps at quantiles [B] in [0, 1), int64 [B]."""
    if cdf is None:
        return (num_timesteps * places).astype(np.int64)
    return np.searchsorted(cdf, places, side="right").clip(max=num_timesteps - 1)


def _draw(rng: np.random.Generator, indices: np.ndarray, num_timesteps: int, flip: bool) -> Draw:
    n = len(indices)
    timesteps = rng.integers(num_timesteps, size=n)
    flips = rng.random(n) < 0.5 if flip else np.zeros(n, dtype=bool)
    return Draw(indices, timesteps, flips, rng.integers(2**63, size=n))


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_images: int) -> np.ndarray:
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(num_images)


class BatchLoader:
    """Turns draws into tensors on a device, in torch's default number format: float32 unless a caller changes it."""

    def __init__(self, images: np.ndarray, device: torch.device, gamma: float = 1) -> None:
        """`images`: uint8 [N, H, W], usually a read-only memory map; `gamma`: see `diffusion.intensity`."""
        self.images, self.device, self.gamma = images, device, gamma
        self._generator = torch.Generator(device)

    def load(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Slices float [B, 1, H, W] in [-1, 1], timesteps long [B], noise float [B, 1, H, W]."""
        x_0 = self.slices(draw)
        return x_0, self.move(draw.timesteps), self.gaussian(draw.noise_seeds, *x_0.shape[1:])

    def slices(self, draw: Draw) -> Tensor:
        """Slices, flipped where the draw says so, float [B, 1, H, W] in [-1, 1]."""
        pixels, flips = self.move(np.ascontiguousarray(self.images[draw.indices])), self.move(draw.flips)
        x_0 = from_uint8(pixels.unsqueeze(1), self.gamma)
        return torch.where(flips[:, None, None, None], x_0.flip(-1), x_0)

    def gaussian(self, seeds: np.ndarray, *shape: int) -> Tensor:
        """Standard normal noise, float [B, *shape]; each sample from its own seed."""
        noise = torch.empty(len(seeds), *shape, device=self.device)
        for sample, seed in zip(noise, seeds.tolist(), strict=True):
            sample.normal_(generator=self._generator.manual_seed(seed))
        return noise

    def move(self, values: np.ndarray) -> Tensor:
        """Values as a tensor on the device."""
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":  # pinned memory lets the copy overlap the previous step
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)
