"""Generator and discriminator: properties that hold at every size."""

import itertools

import pytest
import torch
from torch import nn

from lwddpm.conditions import NULL, Category, Combination, Vocabulary
from lwddpm.config import ModelConfig
from lwddpm.models.build import build_model, count_parameters
from lwddpm.models.gan import Discriminator, Generator, level_widths

SIZES = (16, 32, 64, 128, 256)
NORMS = ("spectral", "group", "none")


def config(**settings: object) -> ModelConfig:
    return ModelConfig.model_validate({"family": "gan", "dim": 8, "latent_dim": 12, **settings})


@pytest.mark.parametrize("size", SIZES)
def test_slices_are_in_range_and_depend_on_their_own_latents_alone(size: int) -> None:
    torch.manual_seed(0)
    generator = Generator(config(), size)
    latents = 5 * torch.randn(3, 12)  # far out
    images = generator(latents)
    assert images.shape == (3, 1, size, size)
    assert images.abs().max() <= 1
    torch.testing.assert_close(generator(latents[1:2]), images[1:2])
    changed = (generator(latents + 0.1) - images).abs().amax((0, 1))
    assert (changed > 0).all(), "a pixel does not depend on the latents"


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", SIZES)
def test_a_score_depends_on_every_pixel_of_its_own_slice_alone(size: int, norm: str) -> None:
    torch.manual_seed(0)
    judge = Discriminator(config(), size, norm).double().eval()
    images = torch.rand(2, 1, size, size, dtype=torch.float64).mul(2).sub(1).requires_grad_(True)
    scores = judge(images)
    assert scores.shape == (2,)
    (slope,) = torch.autograd.grad(scores[0], images)
    assert (slope[0] != 0).all()
    assert (slope[1] == 0).all()


def test_widths_double_with_each_halving_as_in_dcgan() -> None:
    published = ModelConfig(family="gan", dim=64)
    assert level_widths(published, 64) == [64, 128, 256, 512, 512]
    judge = Discriminator(published, 64, "none")
    convolutions = [m for m in judge.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(1, 64), (64, 128), (128, 256), (256, 512)]


def test_the_default_generator_is_about_as_large_as_the_papers_networks() -> None:
    gan, unet = count_parameters(ModelConfig(family="gan"), 128), count_parameters(ModelConfig())
    assert 0.5 < gan / unet < 1.5
    assert gan == sum(parameter.numel() for parameter in build_model(ModelConfig(family="gan"), 128).parameters())


def test_a_spectral_norm_holds_every_layer_at_one() -> None:
    torch.manual_seed(0)
    judge = Discriminator(config(), 32, "spectral")
    for _ in range(30):  # each pass refines the estimate
        judge(torch.randn(2, 1, 32, 32))
    judge.eval()
    layers = [m for m in judge.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 4
    for layer in layers:
        largest = torch.linalg.svdvals(layer.weight.flatten(1)).max().item()
        assert largest == pytest.approx(1, rel=0.02)


def test_a_critic_whose_weights_are_clipped_has_no_weights_in_its_norms() -> None:
    judge = Discriminator(config(), 32, "group")
    assert all(parameter.dim() > 1 or "bias" in name for name, parameter in judge.named_parameters())


@pytest.mark.parametrize("size", [4, 24, 48, 100])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"power of two from 8 on, got {size}"):
        level_widths(config(), size)


def test_a_generator_needs_its_size() -> None:
    with pytest.raises(ValueError, match="one image_size"):
        build_model(config())


def test_a_conditional_gan_is_told_what_to_draw_and_what_to_judge() -> None:
    """The score's part that depends on the class is the inner product of Miyato & Koyama 2018, eq. 3."""
    config = ModelConfig(family="gan", dim=8, dim_mults=(1, 2), conditions=("label",))
    vocabulary = Vocabulary(
        conditions=(Category(name="label", values=("a", "b")),),
        combinations=(Combination(codes=(0,), count=1),),
        dropout=0.1,
    )
    torch.manual_seed(0)
    plain, plain_judge = Generator(config, 16), Discriminator(config, 16, "none")
    torch.manual_seed(0)
    generator, judge = Generator(config, 16, vocabulary), Discriminator(config, 16, "none", vocabulary)
    more = set(generator.state_dict()) - set(plain.state_dict())
    assert more == set(judge.state_dict()) - set(plain_judge.state_dict()) == {"condition_embedding.weight"}
    latents, codes = torch.randn(3, 100), torch.tensor([[0.0], [1.0], [NULL]])
    same = latents[:1].expand(3, -1)
    images = generator(same, codes)
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(images, 2))
    assert torch.equal(generator(same), generator(same, torch.full((3, 1), NULL)))
    features = judge.down(images).flatten(1)
    shown = judge.condition_embedding.weight.T[[1, 2, 0]]
    torch.testing.assert_close(judge(images, codes), judge.to_score(features)[:, 0] + (features * shown).sum(1))
