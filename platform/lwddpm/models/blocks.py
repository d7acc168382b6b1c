"""What the U-Net is made of: residual blocks, attention stages and resampling.

Every block maps [B, C, H, W] to [B, C', H', W'], keeps the memory format it is given, and starts as (close to) the
identity: the last layer of each residual branch is initialised to zero.
"""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

NORM_GROUPS = 8
ATTENTION_HEADS = 4
ATTENTION_WIDTH = 32  # of all heads together


def zeroed(module: M) -> M:
    """The module with all its parameters set to zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class TimeEmbedding(nn.Module):
    """Sinusoidal features of the timestep (Ho et al. 2020, section 4) and a two-layer perceptron.

    The closing SiLU is applied here once, not in each residual block that reads the embedding.
    """

    frequencies: Tensor

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        exponents = torch.arange(dim // 2) / (dim // 2 - 1)
        self.register_buffer("frequencies", torch.exp(-math.log(10_000) * exponents), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(dim, out_dim), nn.SiLU(), nn.Linear(out_dim, out_dim), nn.SiLU())

    def forward(self, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        """Timesteps, long [B], to embeddings, float [B, out_dim]; a condition [B, dim] is added to the features."""
        angles = timesteps[:, None] * self.frequencies
        features = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.mlp(features if condition is None else features + condition)


class ResidualBlock(nn.Module):
    """Pre-activation residual block: twice norm, SiLU, 3x3 convolution, the time embedding added in between."""

    def __init__(self, in_channels: int, out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(NORM_GROUPS, in_channels)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_dim, out_channels)
        self.norm_out = nn.GroupNorm(NORM_GROUPS, out_channels)
        self.conv_out = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time_embedding: Tensor) -> Tensor:
        """[B, in_channels, H, W] and embeddings [B, time_dim] to [B, out_channels, H, W]."""
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = h + self.time(time_embedding)[:, :, None, None]
        h = self.conv_out(F.silu(self.norm_out(h)))
        return h + self.shortcut(x)


class SqueezeExcitation(nn.Module):
    """Channel attention (Hu et al. 2018, arXiv:1709.01507): x + x * gate, one gate per image and channel.

    As in the paper that this platform follows: no biases and no norm, so 2 C^2 / reduction parameters.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        gate = self.excite(F.relu(self.squeeze(x.mean((2, 3))))).sigmoid()
        return x * (1 + gate)[:, :, None, None].to(x.dtype)


class LinearAttention(nn.Module):
    """Attention in O(H W) (Shen et al. 2021, arXiv:1812.01243), residual, with pre-norm and output norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.to_qkv = nn.Conv2d(channels, 3 * ATTENTION_WIDTH, 1, bias=False)
        self.to_out = nn.Conv2d(ATTENTION_WIDTH, channels, 1)
        self.norm_out = zeroed(nn.GroupNorm(1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        height, width = x.shape[2:]
        q, k, v = self.to_qkv(self.norm(x)).flatten(2).unflatten(1, (3, ATTENTION_HEADS, -1)).unbind(1)
        q = q.softmax(dim=2) * q.shape[2] ** -0.5
        context = k.softmax(dim=3).to(v.dtype) @ v.transpose(2, 3)  # [B, heads, keys, values]
        out = context.transpose(2, 3) @ q.to(v.dtype)
        return x + self.norm_out(self.to_out(out.reshape(-1, ATTENTION_WIDTH, height, width)))


class FullAttention(nn.Module):
    """Softmax attention over all positions, O((H W)^2), residual, with pre-norm; for the bottleneck."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.to_qkv = nn.Conv2d(channels, 3 * ATTENTION_WIDTH, 1, bias=False)
        self.to_out = zeroed(nn.Conv2d(ATTENTION_WIDTH, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        height, width = x.shape[2:]
        qkv = self.to_qkv(self.norm(x)).flatten(2).unflatten(1, (3, ATTENTION_HEADS, -1))
        q, k, v = qkv.transpose(3, 4).unbind(1)  # each [B, heads, positions, width]
        out = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        return x + self.to_out(out.reshape(-1, ATTENTION_WIDTH, height, width))


def attention_stage(kind: str, channels: int, se_reduction: int) -> nn.Module:
    """The attention of one stage, [B, C, H, W] to the same shape; `kind` as in `ModelConfig.attention`.

    Raises:
        ValueError: unknown kind.
    """
    match kind:
        case "se":
            return SqueezeExcitation(channels, se_reduction)
        case "linear":
            return LinearAttention(channels)
        case "none":
            return nn.Identity()
    raise ValueError(f"attention must be 'se', 'linear' or 'none', got {kind!r}")


def downsample(channels: int) -> nn.Module:
    """Half the height and width, by a strided 4x4 convolution."""
    return nn.Conv2d(channels, channels, 4, stride=2, padding=1)


def upsample(channels: int) -> nn.Module:
    """Twice the height and width: nearest neighbour, then a 3x3 convolution (Odena et al. 2016)."""
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(channels, channels, 3, padding=1))
