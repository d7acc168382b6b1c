"""The network as a whole: the paper's parameter counts, and properties that any input must have."""

import pytest
import torch
from torch import nn

from lwddpm.config import ModelConfig
from lwddpm.models.build import build_model, count_parameters

VARIANTS = [(attention, last) for attention in ("se", "linear", "none") for last in (False, True)]
BEYOND = (
    {"head_skip": True},
    {"patch": 2},
    {"coordinates": True, "patch": 2},
    {"patch": 4, "head_skip": True, "dim_mults": (1, 2)},
)


def small_model(**settings) -> nn.Module:
    """A small network with no zero-initialised layer left, so that every part acts."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(**{"dim": 8, "dim_mults": (1, 2, 3)} | settings))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.normal_(parameter, mean=0.5, std=0.5)
    return model


@pytest.mark.parametrize(
    ("family", "downsample_last", "expected"),
    [
        ("lw_ddpm", False, 13_341_041),  # Table 1: 13.34 M
        ("ddpm", False, 13_476_081),  # Table 1: 13.48 M
        ("lw_ddpm", True, 16_114_481),  # the prose's four down-samplings
        ("ddpm", True, 16_259_361),
    ],
)
def test_parameter_counts(family, downsample_last, expected):
    config = ModelConfig(family=family, dim=80, dim_mults=(1, 2, 3, 4), downsample_last=downsample_last)
    assert count_parameters(config) == expected


def test_counting_agrees_with_building():
    config = ModelConfig(dim=16, dim_mults=(1, 2))
    assert count_parameters(config) == sum(parameter.numel() for parameter in build_model(config).parameters())


@pytest.mark.parametrize("downsample_last", [False, True])
@pytest.mark.parametrize(("levels", "size"), [(2, 32), (3, 64), (4, 128), (5, 256), (6, 128)])
def test_bottleneck_is_as_small_as_the_config_says(levels, size, downsample_last):
    config = ModelConfig(dim=8, dim_mults=(1,) * levels, downsample_last=downsample_last)
    model = build_model(config)
    seen = []
    model.bottleneck_attention.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[2:]))
    x = torch.randn(1, 1, size, size)
    assert torch.equal(model(x, torch.tensor([3])), torch.zeros_like(x))  # a new network predicts zero
    assert seen == [(size // config.downsampling, size // config.downsampling)]


@pytest.mark.parametrize(("attention", "downsample_last"), VARIANTS)
def test_every_parameter_gets_a_gradient(attention, downsample_last):
    model = small_model(attention=attention, downsample_last=downsample_last, se_reduction=1)
    model(torch.randn(2, 1, 16, 16), torch.tensor([0, 999])).square().mean().backward()
    dead = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("settings", BEYOND)
def test_every_parameter_gets_a_gradient_beyond_the_paper(settings):
    model = small_model(**settings, se_reduction=1)
    model(torch.randn(2, 1, 32, 32), torch.tensor([0, 999])).square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0] == []


def test_the_head_skip_is_a_way_around_all_other_levels():
    """With the way up cut off, the head still sees the image; in the paper's network it does not."""
    for head_skip in (False, True):
        model = small_model(head_skip=head_skip)
        model.up[-1].register_forward_hook(lambda module, inputs, output: (output[0], torch.zeros_like(output[1])))
        one, other = (model(torch.randn(1, 1, 16, 16), torch.tensor([7])) for _ in range(2))
        assert torch.allclose(one, other) != head_skip


def test_the_head_skip_costs_one_wider_block():
    """Its norm, first convolution and shortcut take twice the channels: 2 C + 9 C^2, and a shortcut of 2 C^2 + C."""
    sizes = [count_parameters(ModelConfig(dim=32, dim_mults=(1, 3), head_skip=skip)) for skip in (False, True)]
    assert sizes[1] - sizes[0] == 2 * 32 + 9 * 32**2 + 2 * 32**2 + 32
    with pytest.raises(ValueError, match="leave one of the two out"):
        ModelConfig(head_skip=True, downsample_last=True)


@pytest.mark.parametrize("patch", [2, 4])
def test_patches_are_folded_and_unfolded_in_place(patch):
    """With the network between cut down to its stem and last convolution, a pixel comes back where it was."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(dim=16, dim_mults=(1, 2), patch=patch))
    with torch.no_grad():
        for layer in (model.stem, model.to_out):
            layer.weight.zero_()
            layer.bias.zero_()
            for channel in range(patch**2):
                layer.weight[channel, channel, layer.kernel_size[0] // 2, layer.kernel_size[0] // 2] = 1
    model.head.forward = lambda x, time: model.stem_output
    model.stem.register_forward_hook(lambda module, inputs, output: setattr(model, "stem_output", output))
    x = torch.randn(2, 1, 16, 24)
    assert torch.equal(model(x, torch.tensor([1, 2])), x)
    assert model.stem_output.shape == (2, 16, 16 // patch, 24 // patch)
    with pytest.raises(ValueError, match=f"divisible by {2 * patch} for 2 levels"):
        model(torch.randn(1, 1, patch * 3, 16), torch.tensor([1]))


def test_the_paper_s_network_has_no_coordinates_and_another_takes_two_channels_more():
    sizes = [count_parameters(ModelConfig(coordinates=given)) for given in (False, True)]
    assert sizes == [13_341_041, 13_341_041 + 2 * 80 * 7 * 7]


@pytest.mark.parametrize("patch", [1, 2])
def test_a_network_with_coordinates_knows_where_a_pixel_lies(patch):
    """Whole slices need not say so; the same content elsewhere is seen as something else."""
    model, x, timesteps = small_model(coordinates=True, patch=patch), torch.randn(2, 1, 16, 24), torch.tensor([3, 700])
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 24), indexing="ij")
    whole = torch.stack([columns, rows]).expand(2, -1, -1, -1)
    assert torch.equal(model(x, timesteps, coordinates=whole), model(x, timesteps))
    for axis in (0, 1):
        moved = whole.clone()
        moved[:, axis] += 0.5
        assert not torch.allclose(model(x, timesteps, coordinates=moved), model(x, timesteps), atol=1e-3)


@pytest.mark.parametrize("attention", ["se", "linear"])
def test_images_of_a_batch_do_not_mix(attention):
    model = small_model(attention=attention)
    x, timesteps = torch.randn(3, 1, 16, 16), torch.tensor([0, 500, 999])
    alone = torch.cat([model(x[i : i + 1], timesteps[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x, timesteps), alone, atol=1e-4, rtol=1e-4)


def test_prediction_depends_on_the_timestep():
    model = small_model()
    x = torch.randn(1, 1, 16, 16)
    assert not torch.allclose(model(x, torch.tensor([10])), model(x, torch.tensor([11])), atol=1e-4)


@pytest.mark.parametrize(("attention", "downsample_last"), VARIANTS)
def test_channels_last_changes_nothing_and_is_kept(attention, downsample_last):
    model = small_model(attention=attention, downsample_last=downsample_last)
    x, timesteps = torch.randn(2, 1, 16, 16), torch.tensor([5, 700])
    expected = model(x, timesteps)
    model = model.to(memory_format=torch.channels_last)
    strayed = []

    def check(module, inputs, output):
        if output.dim() == 4 and not output.is_contiguous(memory_format=torch.channels_last):
            strayed.append(module)

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(check)
    out = model(x.contiguous(memory_format=torch.channels_last), timesteps)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    assert strayed == []


@pytest.mark.parametrize("settings", BEYOND)
def test_channels_last_changes_nothing_beyond_the_paper(settings):
    model = small_model(**settings)
    x, timesteps = torch.randn(2, 1, 32, 32), torch.tensor([5, 700])
    expected = model(x, timesteps)
    out = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), timesteps)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attention", ["se", "linear"])
def test_bf16_autocast_stays_close(attention):
    model = small_model(attention=attention)
    x, timesteps = torch.randn(2, 1, 16, 16), torch.tensor([5, 700])
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x, timesteps)
    assert out.dtype == torch.bfloat16
    expected = model(x, timesteps)
    assert (out.float() - expected).norm() / expected.norm() < 0.05


def test_indivisible_sizes_are_refused():
    with pytest.raises(ValueError, match=r"divisible by 4 for 3 levels, got \(16, 18\)"):
        small_model()(torch.randn(1, 1, 16, 18), torch.tensor([0]))
