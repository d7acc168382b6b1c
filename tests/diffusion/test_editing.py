"""Edits against conditional distributions that are known in closed form: slices whose 64 pixels are jointly Gaussian.

The oracle network knows their mean and covariance, so that what inpainting should draw given some pixels is textbook
conditioning of a Gaussian, computed here without any of the code under test.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lwddpm.config import DiffusionConfig, ModelConfig, SamplingConfig
from lwddpm.diffusion.editing import Between, Edit, Inpainting, Variation, spherical, variation
from lwddpm.diffusion.intensity import from_uint8
from lwddpm.diffusion.prior import fit_prior
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.diffusion.sampling import generate
from lwddpm.diffusion.streams import noise_streams
from lwddpm.diffusion.timesteps import network_calls
from lwddpm.models.build import build_model

pytestmark = pytest.mark.filterwarnings(
    # diffusers 0.42 wraps torch tensors by np.array; NumPy 2 finds torch's __array__ outdated.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
SIDE, T = 8, 1000
MEAN, STD = 0.1, 0.15
HALF = torch.zeros(SIDE, SIDE, dtype=torch.bool)
HALF[:, 4:] = True  # drawn anew


def covariance() -> Tensor:
    """Of pixels that vary together along their rows: exp(-distance / 6) within a row, nothing between rows."""
    place = torch.arange(SIDE, dtype=torch.float64)
    along = torch.exp(-(place[:, None] - place[None]).abs() / 6)
    return STD**2 * torch.block_diag(*[along] * SIDE)


class GaussianSlices(nn.Module):
    """The best denoiser of slices N(MEAN, covariance()), as a network of any prediction type."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.process, self.prediction_type = DiffusionProcess(config), config.prediction_type
        self.values, self.vectors = torch.linalg.eigh(covariance())

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        t = int(timesteps[0])
        x = x.double() / float(self.process.input_scales[t])
        a, n = float(self.process.signal[t]), float(self.process.noise[t])
        along = (x.flatten(1) - a * MEAN) @ self.vectors * (a * self.values / (a**2 * self.values + n**2))
        x_0 = (MEAN + along @ self.vectors.T).reshape(x.shape)
        noise = (x - a * x_0) / n
        return (float(self.process.of_noise[t]) * noise + float(self.process.of_x_0[t]) * x_0).float()


def source() -> Tensor:
    """A slice of that distribution, uint8 [8, 8]."""
    drawn = torch.linalg.cholesky(covariance()) @ torch.randn(64, generator=torch.Generator().manual_seed(3)).double()
    return ((MEAN + drawn.reshape(SIDE, SIDE) + 1) * 127.5).round().to(torch.uint8)


def conditional(known: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the pixels that are not known, [64 - k] and [64 - k, 64 - k]."""
    c, k = covariance(), known.flatten()
    gain = c[~k][:, k] @ torch.linalg.inv(c[k][:, k])
    return MEAN + gain @ (values.flatten()[k] - MEAN), c[~k][:, ~k] - gain @ c[k][:, ~k]


def drawn(config: DiffusionConfig, sampler: str, steps: int, edit: Edit | None = None) -> Tensor:
    sampling = SamplingConfig(sampler=sampler, num_inference_steps=steps, batch_size=256)
    edit = edit or Inpainting(source(), HALF)
    return generate(GaussianSlices(config), config, sampling, range(512), SIDE, "cpu", edit=edit)


def check_moments(images: Tensor) -> None:
    """Mean (in standard deviations), spread and correlation of the pixels that were drawn, by distance to the edge."""
    mean, spread = conditional(~HALF, from_uint8(source()).double())
    x = from_uint8(images).double().flatten(1)[:, HALF.flatten()]
    deviations = spread.diagonal().sqrt()
    off = ((x.mean(0) - mean) / deviations).reshape(SIDE, 4).abs().mean(0)
    assert (off < 0.12).all(), off
    ratios = (x.std(0) / deviations).reshape(SIDE, 4).mean(0)
    assert ((ratios - 1).abs() < 0.12).all(), ratios
    found, wanted = torch.corrcoef(x.T), spread / deviations[:, None] / deviations
    assert (found - wanted).abs().mean() < 0.06


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "edm", "flow"])
def test_inpainting_draws_the_conditional_distribution(prediction_type):
    check_moments(drawn(DiffusionConfig(prediction_type=prediction_type), "dpmsolver++", 80))


STEPS = {"ddpm": 200, "ddim": 150, "sde-dpmsolver++": 80, "unipc": 60, "heun": 40}


@pytest.mark.parametrize("sampler", STEPS)
def test_inpainting_takes_every_sampler(sampler):
    check_moments(drawn(DiffusionConfig(prediction_type="v_prediction"), sampler, STEPS[sampler]))


def test_replacing_the_known_pixels_alone_would_not_do(monkeypatch):
    """The test above is one that the naive method fails: the edge does not hear of its neighbours in time."""
    monkeypatch.setattr("lwddpm.diffusion.editing._solved", lambda covariance, known, missed: 0 * missed)
    images = drawn(DiffusionConfig(prediction_type="v_prediction"), "ddpm", 200)
    assert (images[:, ~HALF] == source()[~HALF]).all()
    with pytest.raises(AssertionError):
        check_moments(images)


def test_a_prior_given_pixels_is_what_importance_sampling_says():
    """Against the prior's own draws, weighted by how well they meet the pixels."""
    generator = torch.Generator().manual_seed(0)
    images = ((torch.linalg.cholesky(covariance()) @ torch.randn(64, 900, generator=generator).double()).T + 1) * 127.5
    prior = fit_prior(images.clamp(0, 255).round().to(torch.uint8).reshape(-1, SIDE, SIDE), 3, components=3)
    draws = torch.randn(200_000, prior.num_draws, generator=generator)
    ordinary = prior.clean(draws)
    seen, level = ordinary[7:8], 0.3
    off = ((ordinary - seen)[:, 0, ~HALF].square()).sum(1) / level**2
    weights = (-off / 2).softmax(0)
    assert 1 / weights.square().sum() > 2_000  # draws that count
    given = prior.given(seen.expand(20_000, 1, SIDE, SIDE), ~HALF.expand(20_000, 1, SIDE, SIDE), level, draws[:20_000])
    mean = (weights[:, None] * ordinary.flatten(1)).sum(0)
    spread = (weights[:, None] * (ordinary.flatten(1) - mean).square()).sum(0).sqrt()
    torch.testing.assert_close(given.flatten(1).mean(0), mean, atol=0.006, rtol=0)
    torch.testing.assert_close(given.flatten(1).std(0), spread, atol=0.006, rtol=0)
    nothing = prior.given(seen.expand(50, 1, SIDE, SIDE), ~HALF.expand(50, 1, SIDE, SIDE), float("inf"), draws[:50])
    torch.testing.assert_close(nothing, ordinary[:50], atol=1e-5, rtol=0)
    by_class = replace(prior, classes=torch.arange(len(prior.weights)))
    asked = torch.arange(50.0) % len(prior.weights)
    told = by_class.given(
        seen.expand(50, 1, SIDE, SIDE), ~HALF.expand(50, 1, SIDE, SIDE), float("inf"), draws[:50], asked
    )
    torch.testing.assert_close(told, by_class.clean(draws[:50], asked), atol=1e-5, rtol=0)


class Small:
    """An untrained network with all that a drawing may take: its edits must keep their promises all the same."""

    def __init__(self, prediction_type: str = "v_prediction", gamma: float = 0.5) -> None:
        torch.manual_seed(0)
        model = ModelConfig(dim=8, dim_mults=(1, 2))
        self.model, self.guide = build_model(model).eval(), build_model(model).eval()
        for network in (self.model, self.guide):
            network.requires_grad_(False)
        self.config = DiffusionConfig(prediction_type=prediction_type, intensity_gamma=gamma, num_train_timesteps=100)
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(0, 256, (70, 16, 16), generator=generator, dtype=torch.uint8)
        self.prior, self.source = fit_prior(images, 4, components=2, gamma=gamma), images[0]
        self.mask = torch.zeros(16, 16, dtype=torch.bool)
        self.mask[3:9, 5:12] = True

    def draw(self, edit: Edit | None, indices: Sequence[int] = range(3), **settings: Any) -> Tensor:
        sampling = SamplingConfig(**{"num_inference_steps": 4, "seed": 5} | settings)
        return generate(
            self.model, self.config, sampling, indices, 16, "cpu", prior=self.prior, guide=self.guide, edit=edit
        )


EVERY_WAY = [
    {"sampler": sampler, "start": start, "guidance": guidance, "eta": 0.5}
    for sampler in ("ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++", "unipc", "heun")
    for start, guidance in (("noise", 1.0), ("gaussian", 1.7))
]


@pytest.mark.parametrize("prediction_type", ["epsilon", "flow"])
@pytest.mark.parametrize("way", EVERY_WAY, ids=lambda way: "-".join(str(value) for value in way.values()))
def test_outside_the_mask_nothing_changes_and_inside_it_all_is_new(way, prediction_type):
    small = Small(prediction_type)
    images = small.draw(Inpainting(small.source, small.mask), **way)
    assert (images[:, ~small.mask] == small.source[~small.mask]).all()
    assert (images[0, small.mask] != images[1, small.mask]).any()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("start", ["noise", "gaussian"])
def test_strength_0_is_the_source_and_strength_1_an_ordinary_drawing(start, gamma):
    small = Small(gamma=gamma)
    way = {"sampler": "sde-dpmsolver++", "start": start}
    assert (small.draw(variation(small.source, 0, 100), **way) == small.source).all()
    assert (small.draw(variation(small.source, 1, 100), **way) == small.draw(None, **way)).all()


def test_a_variation_leaves_less_of_the_source_the_stronger_it_is():
    config, slice_ = DiffusionConfig(prediction_type="v_prediction"), source()
    x_0 = from_uint8(slice_).flatten().double() - MEAN
    left = []
    for strength in (0.1, 0.4, 0.7, 1.0):
        edit = variation(slice_, strength, T)
        x = from_uint8(drawn(config, "dpmsolver++", 20, edit)).double().flatten(1).mean(0) - MEAN
        left.append(float(x @ x_0 / (x_0 @ x_0)))
    # E[x | x_0] for Gaussian slices: the part that noise at t leaves, along every direction of the covariance
    process, values = DiffusionProcess(config), torch.linalg.eigh(covariance())
    along = values.eigenvectors.T @ x_0
    for strength, found in zip((0.1, 0.4, 0.7), left, strict=False):
        a, n = float(process.signal[round(strength * T) - 1]), float(process.noise[round(strength * T) - 1])
        ratio = (a**2 * values.eigenvalues / (a**2 * values.eigenvalues + n**2)).sqrt()  # of the deterministic path
        assert found == pytest.approx(float((ratio * along**2).sum() / (along**2).sum()), abs=0.06)
    assert left[0] > left[1] > left[2] > left[3]
    assert abs(left[3]) < 0.1


@pytest.mark.parametrize("start", ["noise", "gaussian"])
@pytest.mark.parametrize("sampler", ["ddim", "dpmsolver++", "unipc", "heun"])
def test_the_end_frames_are_what_the_two_seeds_draw(sampler, start):
    small = Small()
    way = {"sampler": sampler, "start": start}
    frames = small.draw(Between((3, 11), 5), range(5), **way)
    assert (frames[0] == small.draw(None, [0], **way | {"seed": 3})).all()
    assert (frames[4] == small.draw(None, [0], **way | {"seed": 11})).all()
    assert (frames[1:] != frames[:-1]).flatten(1).any(1).all()


def test_frames_lie_on_the_great_circle_between_both_ends():
    """Angles from the first end grow evenly, and no frame's noise is smaller than random noise is."""
    first, last = torch.randn(2, 1, 4096, generator=torch.Generator().manual_seed(0)).double()
    fractions = torch.linspace(0, 1, 7).double()
    way = spherical(first.expand(7, -1), last.expand(7, -1), fractions)
    angles = torch.arccos(torch.nn.functional.cosine_similarity(way[0], way, dim=1).clamp(-1, 1))
    torch.testing.assert_close(angles, fractions * angles[-1], atol=0.02, rtol=0)
    torch.testing.assert_close(way.std(1), torch.ones(7).double(), atol=0.03, rtol=0)
    assert (way[0] == first).all()
    assert (way[6] == last).all()
    assert (spherical(first, first, torch.tensor([0.5])) == first).all()


@pytest.mark.parametrize("kind", ["inpainting", "variation", "between"])
def test_an_image_does_not_depend_on_its_batch(kind):
    small = Small()
    edits = {"inpainting": Inpainting(small.source, small.mask), "variation": Variation(small.source, 95)}
    edit = edits.get(kind, Between((0, 1), 5))
    way = {"sampler": "dpmsolver++", "guidance": 1.5}
    whole = small.draw(edit, range(5), **way)
    for index in range(5):
        alone = small.draw(edit, [index], **way)[0]
        assert (alone.int() - whole[index].int()).abs().max() <= 1
        assert (alone != whole[index]).float().mean() < 0.02
    by_two = small.draw(edit, range(5), **way, batch_size=2)
    assert (by_two.int() - whole.int()).abs().max() <= 1


def test_what_an_edit_costs_is_what_the_network_is_called(monkeypatch):
    small, calls = Small(), []
    small.model.register_forward_hook(lambda *_: calls.append("model"))
    small.guide.register_forward_hook(lambda *_: calls.append("guide"))
    backward, gradient = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: backward.append(1) or gradient(*args, **kwargs))
    for edit in (Inpainting(small.source, small.mask), Variation(small.source, 30), Between((0, 1), 3), None):
        for settings in ({"sampler": "heun"}, {"sampler": "ddim", "guidance": 2.0, "guidance_interval": [0.5, 5]}):
            calls.clear()
            backward.clear()
            small.draw(edit, range(1), **settings)
            sampling = SamplingConfig(num_inference_steps=4, **settings)
            counted = network_calls(small.config, sampling, small.prior, edit)
            assert counted == len(calls) + len(backward), (edit, settings)


def test_a_generators_way_goes_through_its_latents():
    class Generator(nn.Module):
        latent_dim = 16

        def forward(self, z: Tensor) -> Tensor:
            return torch.tanh(z).reshape(-1, 1, 4, 4)

    sampling = SamplingConfig(sampler="generator", num_inference_steps=1)
    frames = generate(Generator(), None, sampling, range(4), 4, "cpu", edit=Between((8, 9), 4))
    ends = [noise_streams(seed, [0])[0] for seed in (8, 9)]
    z = torch.stack([torch.randn(16, generator=end) for end in ends])
    wanted = ((torch.tanh(z).reshape(-1, 4, 4) + 1) * 127.5).round().to(torch.uint8)
    assert (frames[0] == wanted[0]).all()
    assert (frames[3] == wanted[1]).all()
    assert (frames[1] != frames[0]).any()
