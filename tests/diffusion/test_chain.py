"""Samplers against exact moments, with denoisers that are known in closed form instead of trained ones.

For Gaussian data the best denoiser is affine in x_t, and so is every sampler around it. Moments can then be read off
exactly: `Impulses` puts a unit of each noise on a pixel of its own, and what arrives at that pixel is its gain.
"""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from lwddpm.config import DiffusionConfig, SamplingConfig
from lwddpm.diffusion.chain import denoise, make_scheduler
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.diffusion.timesteps import planned_timesteps, visited_timesteps

from .reference import T, reference_abar

pytestmark = pytest.mark.filterwarnings(
    # diffusers 0.42 wraps torch tensors by np.array; NumPy 2 finds torch's __array__ outdated.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
TRAILING = ("ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++", "unipc")
SAMPLERS = (*TRAILING, "heun")  # on the noise levels of Karras et al. alone
STOCHASTIC = ("ddpm", "ddim", "sde-dpmsolver++")  # DDIM with eta above 0
DIFFUSION = DiffusionConfig(prediction_type="v_prediction")


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


def test_scheduler_has_the_levels_of_the_visited_timesteps():
    """Even where a product of float32 alphas would underflow: abar_T / abar_499 is 5e-9."""
    scheduler = make_scheduler(DIFFUSION, SamplingConfig(sampler="dpmsolver++", num_inference_steps=2))
    visited = visited_timesteps(T, 2)
    torch.testing.assert_close(
        scheduler.alphas_cumprod.flip(0), DiffusionProcess(DIFFUSION).alphas_cumprod[visited], atol=0, rtol=1e-6
    )
