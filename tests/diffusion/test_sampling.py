import pytest
import torch
from torch import Tensor, nn

from lwddpm.config import DiffusionConfig, ModelConfig, SamplingConfig
from lwddpm.diffusion.intensity import from_uint8
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.diffusion.sampling import denoising_trajectory, generate, reconstruct, truncated
from lwddpm.models.build import build_model

from .reference import reference_abar

pytestmark = pytest.mark.filterwarnings(
    # diffusers 0.42 wraps torch tensors by np.array; NumPy 2 finds torch's __array__ outdated.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
SAMPLERS = ("ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++", "unipc", "heun")
DIFFUSION = DiffusionConfig(prediction_type="v_prediction")


def test_truncated_latents_have_the_distribution_cut_off_and_keep_their_order() -> None:
    from scipy import stats

    latents = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    assert truncated(latents, None) is latents
    for limit in (0.05, 0.7, 2.0):
        cut = truncated(latents, limit)
        assert float(cut.abs().max()) <= limit
        assert stats.kstest(cut.numpy(), stats.truncnorm(-limit, limit).cdf).pvalue > 0.01
        assert torch.equal(cut.argsort(stable=True), latents.argsort(stable=True)) or len(cut.unique()) < len(cut)
    torch.testing.assert_close(truncated(latents, 40.0), latents, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = build_model(ModelConfig(dim=8, dim_mults=(1, 2)))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_depends_on_its_index_alone(model, sampler):
    sampling = SamplingConfig(sampler=sampler, num_inference_steps=6, eta=0.5, batch_size=4)
    whole = generate(model, DIFFUSION, sampling, range(6), 16, "cpu")
    shard = generate(model, DIFFUSION, sampling.model_copy(update={"batch_size": 2}), [5, 1, 3], 16, "cpu")
    difference = whole[[5, 1, 3]].int() - shard.int()
    assert difference.abs().max() <= 1  # float32 sums may round differently in another batch
    assert (difference != 0).float().mean() < 0.01
    assert torch.equal(whole, generate(model, DIFFUSION, sampling, range(6), 16, "cpu"))
    assert len(whole.flatten(1).unique(dim=0)) == 6
    other = generate(model, DIFFUSION, sampling.model_copy(update={"seed": 1}), range(6), 16, "cpu")
    assert len(torch.cat([whole, other]).flatten(1).unique(dim=0)) == 12


def test_model_is_put_back_and_progress_reported(model):
    model.train()
    counts: list[int] = []
    sampling = SamplingConfig(num_inference_steps=1, batch_size=2)
    images = generate(model, DIFFUSION, sampling, range(5), 16, "cpu", on_batch=counts.append)
    assert counts == [2, 2, 1]
    assert model.training
    assert images.dtype == torch.uint8

    def fail(count: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        generate(model, DIFFUSION, sampling, range(1), 16, "cpu", on_batch=fail)
    assert model.training


def test_no_images_is_an_empty_result(model):
    assert generate(model, DIFFUSION, SamplingConfig(), [], 16, "cpu").shape == (0, 16, 16)
    empty = torch.empty(0, 16, 16, dtype=torch.uint8)
    assert reconstruct(model, DIFFUSION, empty, 5, seed=0, device="cpu", batch_size=2).shape == (0, 16, 16)


def test_trajectory_ends_in_the_generated_images(model):
    sampling = SamplingConfig(sampler="ddim", num_inference_steps=10)
    frames, steps = denoising_trajectory(model, DIFFUSION, sampling, [0, 3], 16, "cpu", num_frames=6)
    assert steps.tolist() == [1000, 800, 600, 400, 200, 0]
    assert torch.equal(frames[:, -1], generate(model, DIFFUSION, sampling, [0, 3], 16, "cpu"))
    variance = float(from_uint8(frames[:, 0]).var())  # the first frame is clamped unit noise
    clamped = torch.randn(100_000, generator=torch.Generator().manual_seed(0)).clamp(-1, 1).var()
    assert variance == pytest.approx(float(clamped), rel=0.15)
    with pytest.raises(ValueError, match="num_frames must be from 2 to 11, got 12"):
        denoising_trajectory(model, DIFFUSION, sampling, [0], 16, "cpu", num_frames=12)


class Recorder(nn.Module):
    """Predicts the velocity that leads back to known slices, and keeps what it was asked."""

    def __init__(self, images: Tensor, gamma: float = 1) -> None:
        super().__init__()
        self.x_0, self.asked = from_uint8(images, gamma)[:, None], []
        self.process = DiffusionProcess(DIFFUSION)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.asked.append((x, timesteps))
        a, sigma = (value[timesteps][:, None, None, None] for value in (self.process.signal, self.process.noise))
        return a * (x - a * self.x_0) / sigma - sigma * self.x_0


@pytest.mark.parametrize(("timestep", "num_steps"), [(0, 1), (30, 31), (50, 50), (999, 50)])
def test_reconstruction_starts_from_the_noised_slice(timestep, num_steps):
    images = torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    oracle = Recorder(images)
    restored = reconstruct(oracle, DIFFUSION, images, timestep, seed=1, device="cpu", batch_size=3)
    assert (restored.int() - images.int()).abs().max() <= 1
    timesteps = [int(asked[1][0]) for asked in oracle.asked]
    assert len(timesteps) == num_steps
    assert timesteps[0] == timestep
    assert timesteps == sorted(set(timesteps), reverse=True)
    abar = float(reference_abar("cosine")[timestep])
    noise = (oracle.asked[0][0] - abar**0.5 * oracle.x_0) / (1 - abar) ** 0.5
    assert noise.mean().abs() < 0.08
    assert noise.std() == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("gamma", [0.5, 1.5])
def test_all_that_draws_turns_the_tone_of_the_model_back(gamma):
    """A network that knows the slices in its own tone draws and restores them as they are stored."""
    images = torch.randint(0, 256, (2, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    oracle, diffusion = Recorder(images, gamma), DIFFUSION.model_copy(update={"intensity_gamma": gamma})
    sampling = SamplingConfig(sampler="ddim", num_inference_steps=10)
    drawn = generate(oracle, diffusion, sampling, range(2), 16, "cpu")
    frames, _ = denoising_trajectory(oracle, diffusion, sampling, range(2), 16, "cpu", num_frames=3)
    restored = reconstruct(oracle, diffusion, images, 400, seed=0, device="cpu", batch_size=2)
    for result in (drawn, frames[:, -1], restored):
        assert (result.int() - images.int()).abs().max() <= 1
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    black, white = ((noise == edge).float().mean().item() for edge in (-1, 1))
    assert (frames[:, 0] == 0).float().mean().item() == pytest.approx(black, abs=0.08)
    assert (frames[:, 0] == 255).float().mean().item() == pytest.approx(white, abs=0.08)


def test_reconstruction_of_a_shard_equals_that_of_the_whole(model):
    images = torch.randint(0, 256, (5, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    settings = {"timestep": 400, "seed": 3, "device": "cpu"}
    whole = reconstruct(model, DIFFUSION, images, batch_size=2, **settings)
    shard = reconstruct(model, DIFFUSION, images[3:], batch_size=4, indices=[3, 4], **settings)
    assert (whole[3:].int() - shard.int()).abs().max() <= 1
    same_noise = reconstruct(model, DIFFUSION, images[3:], batch_size=4, **settings)
    assert (whole[3:].int() - same_noise.int()).abs().max() > 1


def test_timestep_outside_the_model_is_refused(model):
    images = torch.zeros(1, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match="timestep must be from 0 to 999, got 1000"):
        reconstruct(model, DIFFUSION, images, 1000, seed=0, device="cpu", batch_size=1)
