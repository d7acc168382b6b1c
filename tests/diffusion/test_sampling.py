"""Samplers against exact moments, with denoisers that are known in closed form instead of trained ones.

For Gaussian data the best denoiser is affine in x_t, and so is every sampler around it. Moments can then be read off
exactly: `Impulses` puts a unit of each noise on a pixel of its own, and what arrives at that pixel is its gain.
"""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from lwddpm.config import DiffusionConfig, ModelConfig, SamplingConfig
from lwddpm.diffusion.intensity import from_uint8
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.diffusion.sampling import (
    denoise,
    denoising_trajectory,
    generate,
    make_scheduler,
    planned_timesteps,
    reconstruct,
    visited_timesteps,
)
from lwddpm.models.build import build_model

pytestmark = pytest.mark.filterwarnings(
    # diffusers 0.42 wraps torch tensors by np.array; NumPy 2 finds torch's __array__ outdated.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
TRAILING = ("ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++", "unipc")
SAMPLERS = (*TRAILING, "heun")  # on the noise levels of Karras et al. alone
STOCHASTIC = ("ddpm", "ddim", "sde-dpmsolver++")  # DDIM with eta above 0
T = 1000


def test_truncated_latents_have_the_distribution_cut_off_and_keep_their_order() -> None:
    from scipy import stats

    from lwddpm.diffusion.sampling import truncated

    latents = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    assert truncated(latents, None) is latents
    for limit in (0.05, 0.7, 2.0):
        cut = truncated(latents, limit)
        assert float(cut.abs().max()) <= limit
        assert stats.kstest(cut.numpy(), stats.truncnorm(-limit, limit).cdf).pvalue > 0.01
        assert torch.equal(cut.argsort(stable=True), latents.argsort(stable=True)) or len(cut.unique()) < len(cut)
    torch.testing.assert_close(truncated(latents, 40.0), latents, rtol=1e-4, atol=1e-4)


def reference_abar(schedule: str) -> Tensor:
    """Float64 [T + 1]; the last entry, index -1, is the clean slice."""
    if schedule == "linear":
        betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    else:
        f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)]
        betas = torch.tensor([min(1 - f[t + 1] / f[t], 0.999) for t in range(T)], dtype=torch.float64)
    return torch.cat([(1 - betas).cumprod(0), torch.ones(1, dtype=torch.float64)])


class GaussianOracle(nn.Module):
    """The best denoiser of independent pixels N(mean, std^2), as a network of any prediction type."""

    def __init__(self, config: DiffusionConfig, mean: float, std: float) -> None:
        super().__init__()
        self.prediction_type = config.prediction_type
        self.abar, self.mean, self.std = reference_abar(config.beta_schedule), mean, std

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        abar = self.abar[timesteps][:, None, None, None]
        a, n, x = abar.sqrt(), (1 - abar).sqrt(), x.double()
        spread = (0.25 * abar + 1 - abar).sqrt()  # of x_t, if that of the slices is sigma_data = 0.5
        x = x * {"edm": spread, "flow": a + n}.get(self.prediction_type, 1)
        x_0 = self.mean + self.std**2 * a / (abar * self.std**2 + 1 - abar) * (x - a * self.mean)
        noise = (x - a * x_0) / (1 - abar).sqrt()
        match self.prediction_type:
            case "epsilon":
                return noise.float()
            case "v_prediction":
                return (a * noise - n * x_0).float()
            case "flow":
                return (noise - x_0).float()
        # Karras et al. 2022, eq. 8, with sigma = n / a
        sigma = n / a
        skip, out = 0.25 / (sigma**2 + 0.25), 0.5 * sigma / (sigma**2 + 0.25).sqrt()
        return ((x_0 - skip * x / a) / out).float()


class Impulses:
    """Stands in for diffusers' randn_tensor: the k-th noise is SIZE at pixel k and zero elsewhere."""

    SIZE = 0.1

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, shape: tuple[int, ...], **_: object) -> Tensor:
        noise = torch.zeros(shape)
        noise[..., self.count] = self.SIZE
        self.count += 1
        return noise


@pytest.fixture
def moments(monkeypatch):
    """Runs a sampler; returns mean and variance (float64 [n + 1]) of its states, given those of the first one."""

    def run(model: nn.Module, config: DiffusionConfig, sampling: SamplingConfig, mean: float, variance: float):
        impulses, n = Impulses(), sampling.num_inference_steps
        for module in ("ddpm", "ddim", "dpmsolver_multistep"):
            monkeypatch.setattr(f"diffusers.schedulers.scheduling_{module}.randn_tensor", impulses)
        x = torch.zeros(1, 1, 1, n + 2)  # pixel n: gain of the first state; pixel n + 1: no noise at all
        x[..., n] = Impulses.SIZE
        states = [x]
        with torch.no_grad():
            process = DiffusionProcess(config)
            denoise(model, process, sampling, visited_timesteps(T, n), x, [], on_step=states.append)
        pixels = torch.cat(states).squeeze((1, 2)).double()
        offset = pixels[:, -1]
        gains = (pixels[:, :-1] - offset[:, None]) / Impulses.SIZE
        return offset + gains[:, -1] * mean, gains[:, -1] ** 2 * variance + (gains[:, :-1] ** 2).sum(1)

    return run


def visited_abar(schedule: str, n: int) -> Tensor:
    """abar of the n + 1 states, by the definition of trailing spacing; the last is clean."""
    steps = [round(T - k * T / n) - 1 for k in range(n)]
    return reference_abar(schedule)[[*steps, -1]]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "edm", "flow"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("n", [1, 2, 20, 30])  # 30 does not divide 1000
@pytest.mark.parametrize("sampler", TRAILING)
def test_point_mass_keeps_the_forward_marginals(moments, sampler, n, schedule, prediction_type):
    """If every slice is the same one, each state must be distributed as that slice noised to the step's level."""
    config = DiffusionConfig(beta_schedule=schedule, prediction_type=prediction_type)
    sampling = SamplingConfig(sampler=sampler, num_inference_steps=n, eta=0.7)
    abar = visited_abar(schedule, n)
    oracle = GaussianOracle(config, mean=0.3, std=0.0)
    mean, variance = moments(oracle, config, sampling, float(abar[0].sqrt() * 0.3), float(1 - abar[0]))
    # Early epsilon predictions of x_0 divide float32 rounding by sqrt(abar): up to 1e-3 with the cosine schedule.
    tolerance = 2e-3 if prediction_type == "epsilon" else 2e-5
    torch.testing.assert_close(mean, abar.sqrt() * 0.3, atol=tolerance, rtol=0)
    torch.testing.assert_close(variance, 1 - abar, atol=tolerance, rtol=0)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, None])
@pytest.mark.parametrize("n", [20, 30])
def test_ddpm_and_ddim_states_follow_their_equations(moments, eta, n):
    """Against Ho et al. 2020, eq. 7, strided, and Song et al. 2021 (arXiv:2010.02502), eq. 12 and 16."""
    config, m, s = DiffusionConfig(prediction_type="v_prediction"), 0.2, 0.1
    sampling = SamplingConfig(sampler="ddpm" if eta is None else "ddim", eta=eta or 0.0, num_inference_steps=n)
    actual = moments(GaussianOracle(config, m, s), config, sampling, 0.0, 1.0)
    abar = visited_abar("cosine", n).tolist()
    mean, variance = [0.0], [1.0]
    for t, s_ in pairwise(abar):
        slope = s**2 * t**0.5 / (t * s**2 + 1 - t)
        constant = m - slope * t**0.5 * m
        added = (1 - s_) / (1 - t) * (1 - t / s_)
        if eta is None:
            on_x_0, on_x_t = s_**0.5 * (1 - t / s_) / (1 - t), (t / s_) ** 0.5 * (1 - s_) / (1 - t)
        else:
            added *= eta**2
            on_noise = (1 - s_ - added) ** 0.5
            on_x_0, on_x_t = s_**0.5 - on_noise * (t / (1 - t)) ** 0.5, on_noise / (1 - t) ** 0.5
        gain = on_x_t + on_x_0 * slope
        mean.append(gain * mean[-1] + on_x_0 * constant)
        variance.append(gain**2 * variance[-1] + added)
    torch.testing.assert_close(actual[0], torch.tensor(mean, dtype=torch.float64), atol=5e-5, rtol=0)
    torch.testing.assert_close(actual[1], torch.tensor(variance, dtype=torch.float64), atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "edm", "flow"])
@pytest.mark.parametrize("sampler", TRAILING)
def test_samplers_converge_to_the_data(moments, sampler, prediction_type):
    config = DiffusionConfig(prediction_type=prediction_type)
    sampling = SamplingConfig(sampler=sampler, num_inference_steps=500)
    mean, variance = moments(GaussianOracle(config, 0.2, 0.1), config, sampling, 0.0, 1.0)
    assert mean[-1] == pytest.approx(0.2, abs=1e-3)
    assert variance[-1].sqrt() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_states_stay_bounded_when_the_predicted_noise_is_wrong(sampler):
    """With cosine, epsilon and no clamp, a 2 % error makes x_0 400 times too large at the first step."""

    class Biased(nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
            return 0.98 * x

    sampling, x = SamplingConfig(sampler=sampler, num_inference_steps=20), torch.randn(2, 1, 8, 8)
    states: list[Tensor] = []
    streams = [torch.Generator().manual_seed(i) for i in range(2)]
    process = DiffusionProcess(DiffusionConfig(prediction_type="epsilon"))
    denoise(Biased(), process, sampling, planned_timesteps(process, sampling, None), x, streams, on_step=states.append)
    assert max(state.abs().max() for state in states) < 6
    assert states[-1].abs().max() <= 1.001


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = build_model(ModelConfig(dim=8, dim_mults=(1, 2)))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


DIFFUSION = DiffusionConfig(prediction_type="v_prediction")


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


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_every_step_draws_from_the_image_s_own_stream(sampler):
    """With a constant denoiser, only the noise distinguishes images: it must be unit Gaussian and independent."""
    sampling = SamplingConfig(sampler=sampler, num_inference_steps=20, eta=1.0)
    oracle, process = GaussianOracle(DIFFUSION, 0.0, 0.0), DiffusionProcess(DIFFUSION)
    states: list[Tensor] = []
    streams = [torch.Generator().manual_seed(i) for i in range(4)]
    denoise(oracle, process, sampling, visited_timesteps(T, 20), torch.zeros(4, 1, 64, 64), streams, states.append)
    halfway = states[9].flatten(1)  # the noise of ten steps, from a start without any
    correlation = torch.corrcoef(halfway)
    assert (correlation - torch.eye(4)).abs().max() < 0.08  # five standard errors of 4096 pixels
    assert halfway.std(1).min() > 0.1


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


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50, 333, 999, 1000])
def test_visited_timesteps_fall_from_the_last_one(n):
    visited = visited_timesteps(T, n)
    assert len(visited) == n
    assert visited[0] == T - 1
    assert (visited.diff() < 0).all()
    gaps = -torch.cat([visited, torch.tensor([-1])]).diff()
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("n", [0, 1001])
def test_impossible_numbers_of_steps_are_refused(n):
    with pytest.raises(ValueError, match=f"num_inference_steps must be from 1 to 1000, got {n}"):
        visited_timesteps(T, n)


def test_scheduler_has_the_levels_of_the_visited_timesteps():
    """Even where a product of float32 alphas would underflow: abar_T / abar_499 is 5e-9."""
    scheduler = make_scheduler(DIFFUSION, SamplingConfig(sampler="dpmsolver++", num_inference_steps=2))
    visited = visited_timesteps(T, 2)
    torch.testing.assert_close(
        scheduler.alphas_cumprod.flip(0), DiffusionProcess(DIFFUSION).alphas_cumprod[visited], atol=0, rtol=1e-6
    )
