"""Blocks against diffusers' ones and against their definitions, written out."""

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from lwddpm.models.blocks import (
    FullAttention,
    LinearAttention,
    ResidualBlock,
    SqueezeExcitation,
    TimeEmbedding,
    attention_stage,
    upsample,
)


def randomise(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_time_features_are_those_of_diffusers():
    embedding = TimeEmbedding(16, 64)
    embedding.mlp = nn.Identity()
    timesteps = torch.tensor([0, 1, 500, 999])
    expected = get_timestep_embedding(timesteps, 16, downscale_freq_shift=1)
    torch.testing.assert_close(embedding(timesteps), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("in_channels", "out_channels"), [(16, 16), (32, 16)])
def test_residual_block_equals_that_of_diffusers(in_channels, out_channels):
    block = randomise(ResidualBlock(in_channels, out_channels, time_dim=24))
    theirs = ResnetBlock2D(in_channels=in_channels, out_channels=out_channels, temb_channels=24, groups=8, eps=1e-5)
    pairs = {
        "norm1": block.norm_in,
        "conv1": block.conv_in,
        "time_emb_proj": block.time,
        "norm2": block.norm_out,
        "conv2": block.conv_out,
        "conv_shortcut": block.shortcut,
    }
    theirs.load_state_dict(
        {f"{name}.{key}": value for name, part in pairs.items() for key, value in part.state_dict().items()}
    )
    x, time = torch.randn(2, in_channels, 8, 8), torch.randn(2, 24)
    torch.testing.assert_close(block(x, nn.functional.silu(time)), theirs(x, time), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("block", [ResidualBlock(16, 16, 8), FullAttention(16), LinearAttention(16)])
def test_residual_branches_start_at_zero(block):
    x = torch.randn(2, 16, 8, 8)
    out = block(x, torch.randn(2, 8)) if isinstance(block, ResidualBlock) else block(x)
    assert torch.equal(out, x)


def test_squeeze_excitation_gates_channels():
    stage = randomise(SqueezeExcitation(16, reduction=4))
    x = torch.randn(3, 16, 5, 5)
    pooled = x.flatten(2).mean(2)
    gate = torch.sigmoid((pooled @ stage.squeeze.weight.T).clamp(min=0) @ stage.excite.weight.T)
    torch.testing.assert_close(stage(x), x + x * gate[:, :, None, None])


def test_squeeze_excitation_keeps_one_hidden_unit():
    assert SqueezeExcitation(8, reduction=64).squeeze.weight.shape == (1, 8)


def heads_of(stage, x):
    """Queries, keys and values of every head, each [B, heads, width, positions]."""
    qkv = stage.to_qkv(stage.norm(x)).flatten(2)
    return (part.unflatten(1, (4, 8)) for part in qkv.chunk(3, dim=1))


def test_full_attention_is_softmax_over_positions():
    stage = randomise(FullAttention(16))
    x = torch.randn(2, 16, 4, 6)
    q, k, v = heads_of(stage, x)
    weights = torch.einsum("bhdi,bhdj->bhij", q, k).div(8**0.5).softmax(-1)
    mixed = torch.einsum("bhij,bhdj->bhdi", weights, v).reshape(2, 32, 4, 6)
    torch.testing.assert_close(stage(x), x + stage.to_out(mixed), atol=1e-4, rtol=1e-4)


def test_linear_attention_equals_its_quadratic_form():
    stage = randomise(LinearAttention(16))
    x = torch.randn(2, 16, 4, 6)
    q, k, v = heads_of(stage, x)
    weights = torch.einsum("bhdi,bhdj->bhij", q.softmax(2), k.softmax(3)) / 8**0.5
    mixed = torch.einsum("bhij,bhdj->bhdi", weights, v).reshape(2, 32, 4, 6)
    torch.testing.assert_close(stage(x), x + stage.norm_out(stage.to_out(mixed)), atol=1e-4, rtol=1e-4)


def test_upsampling_repeats_pixels_before_it_convolves():
    stage = upsample(8)
    nn.init.dirac_(stage[1].weight)
    nn.init.zeros_(stage[1].bias)
    x = torch.randn(1, 8, 3, 3)
    assert torch.equal(stage(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_unknown_attention_is_refused():
    with pytest.raises(ValueError, match="'se', 'linear' or 'none'"):
        attention_stage("softmax", 16, 4)
