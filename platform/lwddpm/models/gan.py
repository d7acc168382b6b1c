"""Generator and discriminator in the manner of DCGAN (Radford et al. 2016, arXiv:1511.06434), for any power of two.

Widths are those of the U-Net's section: `dim` at full size, times `dim_mults` for each halving, the last entry for all
further ones; 4x4 is where both networks meet the vector. Three things differ from the publication:

* No batch norm, whose statistics tie an image to the others of its batch. With group norm (Wu & He 2018,
  arXiv:1803.08494) slice i depends on its latent vector alone, and a loss curve not on the number of workers.
* The generator upsamples and convolves, since transposed convolutions leave checkerboards (Odena et al. 2016).
* The discriminator's norm is a choice: `spectral` (Miyato et al. 2018, arXiv:1802.05957) keeps it from winning;
  `group` and `none` leave its bound to weight clipping or a gradient penalty, which need a critic without batch norm
  (Gulrajani et al. 2017, arXiv:1704.00028, section 4). Its group norm has no weights: clipping would shrink them.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lwddpm.conditions import Vocabulary
from lwddpm.config import ModelConfig
from lwddpm.models.blocks import NORM_GROUPS
from lwddpm.models.condition import ConditionEmbedding, told

BASE_SIZE = 4  # height and width at which the generator begins and the discriminator ends
INIT_STD = 0.02  # of all weights: Radford et al. 2016, section 4
SLOPE = 0.2  # of the discriminator's LeakyReLU: the same


def level_widths(config: ModelConfig, image_size: int) -> list[int]:
    """Channels at image_size, at half of it, and so on down to 4x4.

    Raises:
        ValueError: not a power of two of at least 8.
    """
    levels = (image_size // BASE_SIZE).bit_length() - 1
    if image_size < 2 * BASE_SIZE or BASE_SIZE * 2**levels != image_size:
        raise ValueError(f"image_size must be a power of two from {2 * BASE_SIZE} on, got {image_size}")
    mults = config.dim_mults
    return [config.dim * mults[min(level, len(mults) - 1)] for level in range(levels + 1)]


class Generator(nn.Module):
    """Latent vectors to slices: project to 4x4, then upsample, convolve, group norm, ReLU up to full size; tanh."""

    def __init__(self, config: ModelConfig, image_size: int, vocabulary: Vocabulary | None = None) -> None:
        super().__init__()
        assert config.latent_dim is not None
        self.config, self.latent_dim, self.vocabulary = config, config.latent_dim, vocabulary
        *rest, widest = level_widths(config, image_size)
        self.project = nn.Linear(self.latent_dim, widest * BASE_SIZE**2)
        self.norm = nn.GroupNorm(NORM_GROUPS, widest)
        self.up = nn.Sequential(*(_up(wide, narrow) for wide, narrow in pairwise([widest, *reversed(rest)])))
        self.to_image = nn.Conv2d(rest[0], 1, 3, padding=1)
        if vocabulary is not None:
            self.condition_embedding = ConditionEmbedding(vocabulary, widest * BASE_SIZE**2)
        self.apply(_initialise)
        if vocabulary is not None:  # as long as what the latents are projected to
            nn.init.normal_(self.condition_embedding.weight, std=INIT_STD * self.latent_dim**0.5)

    def forward(self, latents: Tensor, given: Tensor | None = None) -> Tensor:
        """Standard normal latents, float [B, latent_dim], and the conditions that a network with a vocabulary is told
        of, float32 [B, C], to slices [B, 1, S, S] in [-1, 1]."""
        x = self.project(latents)
        if self.vocabulary is not None:
            x = x + self.condition_embedding(told(given, len(latents), self.vocabulary, latents.device))
        x = x.unflatten(1, (-1, BASE_SIZE, BASE_SIZE))
        return self.to_image(self.up(torch.relu(self.norm(x)))).tanh()


class Discriminator(nn.Module):
    """Slices to scores: 4x4 convolutions with stride 2 and LeakyReLU down to 4x4, then one linear layer.

    A score is any real number: a logit for the non-saturating loss, a critic's value for the Wasserstein loss.

    Args:
        norm: `spectral`, `group` or `none`, as in `AdversarialConfig.discriminator_norm`.
        vocabulary: of the conditions that slices are judged for; None: none.
    """

    def __init__(self, config: ModelConfig, image_size: int, norm: str, vocabulary: Vocabulary | None = None) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        widths = level_widths(config, image_size)[:-1]
        self.down = nn.Sequential(*(_down(a, b, norm, first=a == 1) for a, b in pairwise([1, *widths])))
        self.to_score = nn.Linear(widths[-1] * BASE_SIZE**2, 1)
        if vocabulary is not None:
            self.condition_embedding = ConditionEmbedding(vocabulary, widths[-1] * BASE_SIZE**2)
        self.apply(_initialise)
        if norm == "spectral":
            for module in [m for m in self.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]:
                spectral_norm(module)

    def forward(self, images: Tensor, given: Tensor | None = None) -> Tensor:
        """Slices [B, 1, S, S] in [-1, 1], and what they are to show, float32 [B, C], to scores [B].

        What they show counts by its inner product with the features (Miyato & Koyama 2018, arXiv:1802.05637, eq. 3).
        """
        features = self.down(images).flatten(1)
        score = self.to_score(features).squeeze(1)
        if self.vocabulary is None:
            return score
        shown = self.condition_embedding(told(given, len(images), self.vocabulary, images.device))
        return score + (shown * features).sum(1)


def _up(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.GroupNorm(NORM_GROUPS, out_channels),
        nn.ReLU(),
    )


def _down(in_channels: int, out_channels: int, norm: str, first: bool) -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)]
    if norm == "group" and not first:  # the first layer has none in DCGAN either
        parts.append(nn.GroupNorm(NORM_GROUPS, out_channels, affine=False))
    return nn.Sequential(*parts, nn.LeakyReLU(SLOPE))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
