"""LightweightUNet, the denoising network of LW-DDPM (Peng et al. 2024), and its linear-attention baseline.

The paper gives no widths. Those of `ModelConfig` were found by search: they meet its Table 1 exactly, with
13,341,041 parameters (13.34 M) for LW-DDPM (`attention: se`) and 13,476,081 (13.48 M) for the DDPM with linear
attention (`attention: linear`). The paper's prose has four down-samplings, but no natural network has both those and
the table's sizes. The default follows the table: three down-samplings for four levels, the last level keeps its size
and the first level's skip connection is unused, as in the widely used annotated implementation of DDPM.
`downsample_last: true` follows the prose: four down-samplings and four skip connections, with 16,114,481 and
16,259,361 parameters.

Two settings leave the paper's network, for better slices at equal cost (docs/model.md has the figures): `head_skip`
joins the first level's skip connection to the head, as U-Nets since Ronneberger et al. 2015 (arXiv:1505.04597) do;
`patch` folds squares of pixels into channels before the stem and unfolds them after the head (space-to-depth: Shi et
al. 2016, arXiv:1609.05158; at both ends of a denoiser: Zhang et al. 2018, arXiv:1710.04026). A third, `coordinates`,
tells it where in the slice each pixel lies, as networks that are trained on crops must know (Wang et al. 2023,
arXiv:2304.12526, section 3.2; CoordConv: Liu et al. 2018, arXiv:1807.03247).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lwddpm.conditions import Vocabulary
from lwddpm.config import ModelConfig
from lwddpm.models.blocks import (
    FullAttention,
    ResidualBlock,
    TimeEmbedding,
    attention_stage,
    downsample,
    upsample,
    zeroed,
)
from lwddpm.models.condition import ConditionEmbedding, told


def whole_coordinates(slices: Tensor) -> Tensor:
    """Where each pixel of whole slices [B, C, H, W] lies, x and y from -1 (left, top) to 1, float [2, H, W]."""
    height, width = slices.shape[2:]
    x, y = (torch.linspace(-1, 1, length, dtype=slices.dtype, device=slices.device) for length in (width, height))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


class Stage(nn.Module):
    """One level on the way down or up: residual block, attention, then `resample`."""

    def __init__(self, block: ResidualBlock, attention: nn.Module, resample: nn.Module) -> None:
        super().__init__()
        self.block, self.attention, self.resample = block, attention, resample

    def forward(self, x: Tensor, time_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Features before resampling, [B, C, H, W] (on the way down: the skip connection), and after it.

        Args:
            x: float [B, in_channels, H, W].
            time_embedding: float [B, time_dim].
        """
        features = self.attention(self.block(x, time_embedding))
        return features, self.resample(features)


class LightweightUNet(nn.Module):
    """Predicts the noise, or another target, from noisy slices.

    Args:
        config: widths (`dim` times each of `dim_mults`), attention of the stages, and layout.
        vocabulary: of a conditional network; None: it has no condition.
    """

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary | None = None) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        time_dim = 4 * config.dim
        widths = [config.dim * mult for mult in config.dim_mults]
        last = len(widths) - 1

        def stage(in_channels: int, out_channels: int, resample: nn.Module) -> Stage:
            attention = attention_stage(str(config.attention), out_channels, config.se_reduction)
            return Stage(ResidualBlock(in_channels, out_channels, time_dim), attention, resample)

        pixels, kernel = (
            config.patch**2,
            7 if config.patch == 1 else 3,
        )  # 3 x 3 patches see about as far as 7 x 7 pixels
        channels = pixels * (3 if config.coordinates else 1)
        self.stem = nn.Conv2d(channels, config.dim, kernel, padding=kernel // 2)
        self.time_embedding = TimeEmbedding(config.dim, time_dim)
        self.down = nn.ModuleList()
        for level, (narrow, wide) in enumerate(zip([config.dim, *widths], widths, strict=False)):
            shrinks = level < last or config.downsample_last
            self.down.append(stage(narrow, wide, downsample(wide) if shrinks else nn.Identity()))

        self.bottleneck_in = ResidualBlock(widths[-1], widths[-1], time_dim)
        self.bottleneck_attention = FullAttention(widths[-1])
        self.bottleneck_out = ResidualBlock(widths[-1], widths[-1], time_dim)
        self.bottleneck_resample = upsample(widths[-1]) if config.downsample_last else nn.Identity()

        self.up = nn.ModuleList()
        for level in range(last, -1 if config.downsample_last else 0, -1):
            narrow = widths[max(level - 1, 0)]
            self.up.append(stage(2 * widths[level], narrow, upsample(narrow) if level > 0 else nn.Identity()))
        self.head = ResidualBlock(2 * widths[0] if config.head_skip else widths[0], config.dim, time_dim)
        self.to_out = zeroed(nn.Conv2d(config.dim, pixels, 1))
        if vocabulary is not None:
            self.condition_embedding = ConditionEmbedding(vocabulary, config.dim)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        condition: Tensor | None = None,
        given: Tensor | None = None,
        coordinates: Tensor | None = None,
    ) -> Tensor:
        """Predict from noisy slices.

        Args:
            x: noisy slices, as `DiffusionProcess.network_input` gives them, float [B, 1, H, W], H and W divisible by
                `config.downsampling`.
            timesteps: long [B], from 0 (least noise) to num_train_timesteps - 1.
            condition: what else is known of the slices, in training only, float [B, dim]; zeros are the same as None.
            given: conditions of the slices, of a network that has a vocabulary, float32 [B, C], NaN where nothing is
                said; None: nothing is said at all.
            coordinates: of a network with `config.coordinates`, where the pixels lie in the slices that these are crops
                of, float [B, 2, H, W], cut from `whole_coordinates`; None: these are whole slices.

        Returns:
            The prediction, [B, 1, H, W]: noise or another target, as the network was trained.

        Raises:
            ValueError: height or width not divisible by the down-sampling.
        """
        if x.shape[2] % self.config.downsampling or x.shape[3] % self.config.downsampling:
            raise ValueError(
                f"height and width must be divisible by {self.config.downsampling} for "
                f"{len(self.config.dim_mults)} levels, got {tuple(x.shape[2:])}"
            )
        if self.vocabulary is not None:
            embedded = self.condition_embedding(told(given, len(x), self.vocabulary, x.device))
            condition = embedded if condition is None else condition + embedded
        time = self.time_embedding(timesteps, condition)
        patch = self.config.patch
        if self.config.coordinates:
            if coordinates is None:
                coordinates = whole_coordinates(x).expand(len(x), -1, -1, -1)
            x = torch.cat([x, coordinates], dim=1)
        x = self.stem(F.pixel_unshuffle(x, patch) if patch > 1 else x)
        skips = []
        for stage in self.down:
            skip, x = stage(x, time)
            skips.append(skip)
        x = self.bottleneck_attention(self.bottleneck_in(x, time))
        x = self.bottleneck_resample(self.bottleneck_out(x, time))
        for stage in self.up:
            _, x = stage(torch.cat([x, skips.pop()], dim=1), time)
        if self.config.head_skip:
            x = torch.cat([x, skips.pop()], dim=1)
        out = self.to_out(self.head(x, time))
        return F.pixel_shuffle(out, patch) if patch > 1 else out
