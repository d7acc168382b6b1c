"""Second-order samplers and the noise levels of Karras et al. against closed forms, diffusers and SciPy."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from lwddpm.config import DiffusionConfig, SamplingConfig
from lwddpm.diffusion.chain import denoise
from lwddpm.diffusion.denoiser import noise_level
from lwddpm.diffusion.karras import MAX_SIGMA, karras_timesteps
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.diffusion.sampling import generate
from lwddpm.diffusion.timesteps import network_calls, planned_timesteps, visited_timesteps
from lwddpm.errors import ConfigError
from lwddpm.jobfile import validate_job

pytestmark = pytest.mark.filterwarnings(
    # diffusers 0.42 wraps torch tensors by np.array; NumPy 2 finds torch's __array__ outdated.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
DIFFUSION, T = DiffusionConfig(prediction_type="v_prediction"), 1000


class MixtureOracle(nn.Module):
    """The best denoiser of pixels that are N(-0.3, 0.1^2) or N(0.3, 0.1^2): not affine in x, so that order counts."""

    def __init__(self) -> None:
        super().__init__()
        self.process, self.asked = DiffusionProcess(DIFFUSION), []

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.asked.append(int(timesteps[0]))
        a, n = (float(value[int(timesteps[0])]) for value in (self.process.signal, self.process.noise))
        x_0 = torch.from_numpy(clean(x.double().numpy() / a, n / a)).to(x.dtype)
        return (a * x - x_0) / n


def clean(scaled: np.ndarray, sigma: float) -> np.ndarray:
    variance = 0.1**2 + sigma**2
    right = 1 / (1 + np.exp(-2 * 0.3 * scaled / variance))
    centre = 0.3 * (2 * right - 1)
    mean = centre * sigma**2 / variance + 0.1**2 / variance * scaled
    return np.asarray(mean)


def exact(scaled: np.ndarray, high: float, low: float) -> np.ndarray:
    """Where the probability-flow ODE dx / dsigma = (x - D) / sigma leads, by SciPy."""
    solved = solve_ivp(
        lambda u, x: x - clean(x, math.exp(u)), (math.log(high), math.log(low)), scaled, rtol=1e-10, atol=1e-12
    )
    return np.asarray(solved.y[:, -1])


def error(sampler: str, steps: int, spacing: str = "auto") -> float:
    """Of the state at timestep 100, on the way from 800 at equal distances."""
    process, oracle = DiffusionProcess(DIFFUSION), MixtureOracle()
    visited = torch.linspace(800, 100, steps + 1).round().long()
    x = torch.linspace(-1.5, 1.5, 7)
    states: list[Tensor] = []
    sampling = SamplingConfig(sampler=sampler, num_inference_steps=steps)
    denoise(oracle, process, sampling, visited, x.reshape(7, 1, 1, 1), [], on_step=states.append)
    reached = states[steps - 1].flatten().double().numpy() / float(process.signal[100])
    begin = x.double().numpy() / float(process.signal[800])
    return float(np.abs(reached - exact(begin, noise_level(process, 800), noise_level(process, 100))).max())


@pytest.mark.parametrize(
    ("sampler", "low", "high"), [("ddim", 0.8, 1.3), ("heun", 1.7, 3), ("unipc", 1.7, 4), ("dpmsolver++", 1.7, 3)]
)
def test_the_error_falls_with_the_order_of_the_method(sampler, low, high):
    """Twice the steps: half the error of a first-order method, a quarter or less of a second-order one."""
    coarse, fine = error(sampler, 35), error(sampler, 140)
    assert low < math.log(coarse / fine, 4) < high


def test_second_order_is_more_exact_in_as_many_calls():
    assert error("heun", 35) < 0.5 * error("ddim", 70)
    assert error("unipc", 70) < 0.2 * error("ddim", 70)


def test_heun_is_that_of_diffusers():
    """Step by step, on the same noise levels; diffusers' predicts the noise, and works on x_0 + sigma noise."""
    from diffusers import HeunDiscreteScheduler

    process, oracle = DiffusionProcess(DIFFUSION), MixtureOracle()
    sampling = SamplingConfig(sampler="heun", num_inference_steps=12)
    visited = planned_timesteps(process, sampling, None)
    x = torch.linspace(-1.5, 1.5, 9).reshape(9, 1, 1, 1)
    ours = denoise(oracle, process, sampling, visited, x, []).flatten()

    sigmas = torch.tensor([*(noise_level(process, t) for t in visited.tolist()), 0.0], dtype=torch.float64)
    scheduler = HeunDiscreteScheduler(num_train_timesteps=T, prediction_type="epsilon")
    scheduler.set_timesteps(12)
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    theirs = x.double() / float(process.signal[int(visited[0])])
    for index, timestep in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[index])
        noise = (theirs - torch.from_numpy(clean(theirs.numpy(), sigma))) / sigma
        theirs = scheduler.step(noise, timestep, theirs).prev_sample
    torch.testing.assert_close(ours.double(), theirs.flatten(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("sampler", ["ddim", "dpmsolver++", "unipc", "heun"])
def test_slices_end_where_the_flow_leads(sampler):
    process, oracle = DiffusionProcess(DIFFUSION), MixtureOracle()
    sampling = SamplingConfig(sampler=sampler, num_inference_steps=200, timestep_spacing="karras")
    visited = planned_timesteps(process, sampling, None)
    x = torch.linspace(-1.4, 1.4, 8).reshape(8, 1, 1, 1)
    ends = denoise(oracle, process, sampling, visited, x, []).flatten().double().numpy()
    first = int(visited[0])
    begin = x.flatten().double().numpy() / float(process.signal[first])
    expected = exact(begin, noise_level(process, first), 1e-4)
    assert np.abs(ends - expected).max() < (0.02 if sampler == "ddim" else 0.004)


@pytest.mark.parametrize("num", [1, 2, 5, 10, 50, 500, 950])
@pytest.mark.parametrize("first", [T - 1, 600])
def test_karras_timesteps_fall_and_come_near_their_levels(num, first):
    process = DiffusionProcess(DIFFUSION)
    num = min(num, first + 1)
    timesteps = karras_timesteps(process, first, num).tolist()
    assert len(timesteps) == num
    assert all(before > after >= 0 for before, after in pairwise([*timesteps, -1][:-1]))
    assert timesteps[0] <= first
    high, low = min(noise_level(process, first), MAX_SIGMA), noise_level(process, 0)
    assert noise_level(process, timesteps[0]) == pytest.approx(high, rel=0.1)
    if 2 <= num <= 10:
        assert timesteps[-1] == 0
        for i, timestep in enumerate(timesteps):
            wanted = (high ** (1 / 7) + i / (num - 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7
            neighbours = [noise_level(process, t) for t in (timestep - 1, timestep + 1) if 0 <= t < T]
            assert min(*neighbours, noise_level(process, timestep)) <= wanted * 1.001
            assert max(*neighbours, noise_level(process, timestep)) >= wanted * 0.999


def test_spacing_is_the_one_asked_for():
    process = DiffusionProcess(DIFFUSION)

    def planned(**settings: object) -> list[int]:
        return planned_timesteps(process, SamplingConfig(num_inference_steps=10, **settings), None).tolist()

    karras = karras_timesteps(process, T - 1, 10).tolist()
    assert planned(sampler="heun") == planned(sampler="ddim", timestep_spacing="karras") == karras
    assert planned(sampler="ddim") == planned(sampler="ddim", timestep_spacing="trailing")
    assert planned(sampler="ddim") == visited_timesteps(T, 10).tolist() != karras


def test_heun_calls_the_network_twice_a_step_but_for_the_last():
    oracle = MixtureOracle()
    sampling = SamplingConfig(sampler="heun", num_inference_steps=7)
    generate(oracle, DIFFUSION, sampling, [0], 16, "cpu")
    assert len(oracle.asked) == network_calls(DIFFUSION, sampling, None) == 13
    visited = planned_timesteps(DiffusionProcess(DIFFUSION), sampling, None).tolist()
    assert oracle.asked == [visited[0], *(t for t in visited[1:] for _ in range(2))]


def test_heun_on_another_spacing_is_refused():
    job = {"kind": "sample", "name": "s", "model_uri": "models:/a@b", "sampling": {"sampler": "heun"}}
    assert "timestep_spacing" not in validate_job(job, "s").model_dump()["sampling"]  # digests stay
    job["sampling"] = {"sampler": "heun", "timestep_spacing": "trailing"}
    with pytest.raises(ConfigError, match=r"timestep_spacing: must be karras for heun.*choose another sampler"):
        validate_job(job, "s")
