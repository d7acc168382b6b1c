"""The forward process against diffusers, and the posterior against the forward marginals."""

from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from denoising_diffusion_pytorch import denoising_diffusion_pytorch as lucidrains
from diffusers import DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_snr

from lwddpm.config import DiffusionConfig
from lwddpm.diffusion.process import DiffusionProcess, noise_schedule, timestep_cdf

SCHEDULES = ("linear", "cosine", "sigmoid")
DIFFUSERS_NAMES = {"linear": {"beta_schedule": "linear"}, "cosine": {"beta_schedule": "squaredcos_cap_v2"}}
CLOSE = {"atol": 1e-6, "rtol": 1e-5}


def reference_scheduler(name: str, **options) -> DDPMScheduler:
    if name in DIFFUSERS_NAMES:
        return DDPMScheduler(**DIFFUSERS_NAMES[name], **options)
    return DDPMScheduler(trained_betas=lucidrains.sigmoid_beta_schedule(1000).tolist(), **options)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.rand(6, 1, 8, 8, generator=generator) * 2 - 1
    return x_0, torch.tensor([0, 1, 250, 500, 998, 999]), torch.randn(x_0.shape, generator=generator)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_train_timesteps", [50, 1000])
def test_schedules_equal_those_of_denoising_diffusion_pytorch(name, num_train_timesteps):
    expected = getattr(lucidrains, f"{name}_beta_schedule")(num_train_timesteps)
    tolerance = 1e-5 if name == "sigmoid" else 1e-12  # its end points are rounded to float32 there
    torch.testing.assert_close(noise_schedule(name, num_train_timesteps), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", DIFFUSERS_NAMES)
def test_schedules_equal_those_of_diffusers(name):
    process, scheduler = DiffusionProcess(DiffusionConfig(beta_schedule=name)), reference_scheduler(name)
    torch.testing.assert_close(process.betas, scheduler.betas, atol=1e-6, rtol=0)
    torch.testing.assert_close(process.alphas_cumprod, scheduler.alphas_cumprod, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_train_timesteps", [2, 10, 1000])
def test_noise_only_ever_grows(name, num_train_timesteps):
    config = DiffusionConfig(beta_schedule=name, num_train_timesteps=num_train_timesteps)
    abar = DiffusionProcess(config).alphas_cumprod
    assert len(abar) == num_train_timesteps
    assert (abar.diff() < 0).all()
    assert abar[-1] > 0
    assert abar[0] < 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_noising_and_velocity_equal_those_of_diffusers(name, batch):
    x_0, timesteps, noise = batch
    process = DiffusionProcess(DiffusionConfig(beta_schedule=name, prediction_type="v_prediction"))
    # In float64: diffusers' own float32 cumulative product is off by up to 1e-6, sixty times more than ours.
    scheduler = reference_scheduler(name)
    scheduler.alphas_cumprod = (1 - scheduler.betas.double()).cumprod(0)
    expected = scheduler.add_noise(x_0.double(), noise.double(), timesteps)
    torch.testing.assert_close(process.q_sample(x_0, timesteps, noise).double(), expected, atol=1e-6, rtol=1e-6)
    expected = scheduler.get_velocity(x_0.double(), noise.double(), timesteps)
    torch.testing.assert_close(process.target(x_0, timesteps, noise).double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_snr_and_min_snr_weights_equal_those_of_diffusers(prediction_type):
    process = DiffusionProcess(DiffusionConfig(prediction_type=prediction_type, loss="l2", min_snr_gamma=5))
    scheduler = reference_scheduler("cosine")
    scheduler.alphas_cumprod = (1 - noise_schedule("cosine", 1000)).cumprod(0)
    timesteps = torch.arange(1000)
    snr = compute_snr(scheduler, timesteps)
    torch.testing.assert_close(process.snr(timesteps), snr, atol=0, rtol=1e-6)
    divisor = snr if prediction_type == "epsilon" else snr + 1
    prediction, zeros = torch.ones(1000, 1, 1, 1), torch.zeros(1000, 1, 1, 1)
    losses = process.losses(prediction, zeros, timesteps, zeros)
    torch.testing.assert_close(losses, snr.clamp(max=5) / divisor, atol=0, rtol=1e-6)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("loss", "oracle"), [("smooth_l1", F.smooth_l1_loss), ("l1", F.l1_loss), ("l2", F.mse_loss)])
def test_mean_of_losses_is_the_loss_of_the_batch(prediction_type, loss, oracle, batch):
    x_0, timesteps, noise = batch
    process = DiffusionProcess(DiffusionConfig(prediction_type=prediction_type, loss=loss))
    scheduler = reference_scheduler("cosine")
    target = noise if prediction_type == "epsilon" else scheduler.get_velocity(x_0, noise, timesteps)
    prediction = 2 * torch.randn(x_0.shape).bfloat16()
    losses = process.losses(prediction, x_0, timesteps, noise)
    assert losses.shape == (6,)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.mean(), oracle(prediction.float(), target), **CLOSE)
    torch.testing.assert_close(losses[2], oracle(prediction[2].float(), target[2]), **CLOSE)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("prediction_type", get_args(DiffusionConfig.model_fields["prediction_type"].annotation))
def test_perfect_prediction_gives_back_the_slice_and_the_noise(prediction_type, name, batch):
    x_0, timesteps, noise = (part[:4] for part in batch)
    process = DiffusionProcess(DiffusionConfig(beta_schedule=name, prediction_type=prediction_type))
    x_t, target = process.q_sample(x_0, timesteps, noise), process.target(x_0, timesteps, noise)
    torch.testing.assert_close(process.predict_x_0(x_t, timesteps, target), x_0, atol=1e-5, rtol=0)
    # where there is next to no noise, rounding of the slice is divided by it
    torch.testing.assert_close(process.predict_noise(x_t, timesteps, target), noise, atol=5e-5, rtol=0)


@pytest.mark.parametrize("sigma_data", [0.5, 0.3, 1.0])
@pytest.mark.parametrize("timestep", [0, 5, 250, 500, 900, 990])
def test_edm_is_the_preconditioning_of_diffusers(timestep, sigma_data, batch):
    """On x_0 + sigma noise, which is x_t / a: Karras et al. 2022, table 1 and eq. 8."""
    x_0, _, noise = batch
    config = DiffusionConfig(prediction_type="edm", sigma_data=sigma_data, loss="l2")
    process, oracle = DiffusionProcess(config), EDMEulerScheduler(sigma_data=sigma_data)
    abar = float((1 - noise_schedule("cosine", 1000)).cumprod(0)[timestep])
    sigma, timesteps = torch.tensor((1 / abar - 1) ** 0.5), torch.full((6,), timestep)
    x_t, noisy = process.q_sample(x_0, timesteps, noise), x_0 + sigma * noise
    expected = oracle.precondition_inputs(noisy, sigma)
    torch.testing.assert_close(process.network_input(x_t, timesteps), expected, atol=2e-6, rtol=1e-5)
    network = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1))
    denoised = oracle.precondition_outputs(noisy, network, sigma)
    torch.testing.assert_close(process.predict_x_0(x_t, timesteps, network), denoised, atol=2e-5, rtol=1e-4)
    # the loss: EDM's weight, table 1, of the squared error of the denoised slices
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    losses = process.losses(network, x_0, timesteps, noise)
    torch.testing.assert_close(losses, weight * (denoised - x_0).square().mean((1, 2, 3)), rtol=2e-3, atol=1e-4)


def test_edm_inputs_and_targets_have_unit_variance():
    """What the preconditioning is for: slices of spread sigma_data around 0, at every level."""
    generator = torch.Generator().manual_seed(0)
    x_0 = 0.3 * torch.randn(1, 1, 200, 200, generator=generator)
    noise = torch.randn(x_0.shape, generator=generator)
    process = DiffusionProcess(DiffusionConfig(prediction_type="edm", sigma_data=0.3))
    for t in (0, 100, 500, 900, 999):
        timesteps = torch.tensor([t])
        x_t = process.q_sample(x_0, timesteps, noise)
        assert process.network_input(x_t, timesteps).var() == pytest.approx(1, abs=0.03)
        assert process.target(x_0, timesteps, noise).var() == pytest.approx(1, abs=0.03)


def test_edm_of_unit_spread_is_v_of_the_other_sign(batch):
    x_0, timesteps, noise = batch
    edm = DiffusionProcess(DiffusionConfig(prediction_type="edm", sigma_data=1))
    v = DiffusionProcess(DiffusionConfig(prediction_type="v_prediction"))
    expected = -v.target(x_0, timesteps, noise)
    torch.testing.assert_close(edm.target(x_0, timesteps, noise), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(edm.network_input(x_0, timesteps), x_0, atol=1e-6, rtol=0)


@pytest.mark.parametrize("timestep", [0, 5, 250, 500, 900, 990])
def test_flow_is_the_linear_path_of_diffusers(timestep, batch):
    x_0, _, noise = batch
    process, oracle = DiffusionProcess(DiffusionConfig(prediction_type="flow")), FlowMatchEulerDiscreteScheduler()
    abar = float((1 - noise_schedule("cosine", 1000)).cumprod(0)[timestep])
    time = (1 - abar) ** 0.5 / (abar**0.5 + (1 - abar) ** 0.5)
    oracle.set_timesteps(sigmas=[time, time / 2])
    oracle.set_begin_index(0)
    timesteps = torch.full((6,), timestep)
    on_path = oracle.scale_noise(x_0, oracle.timesteps[:1], noise)
    x_t = process.q_sample(x_0, timesteps, noise)
    torch.testing.assert_close(process.network_input(x_t, timesteps), on_path, atol=2e-6, rtol=0)
    # walking along the target from there arrives at the path's slices, and at time 0 at the clean ones
    target = process.target(x_0, timesteps, noise)
    half = oracle.step(target, oracle.timesteps[0], on_path).prev_sample
    torch.testing.assert_close(half, (1 - time / 2) * x_0 + time / 2 * noise, atol=2e-6, rtol=0)
    network = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(process.predict_x_0(x_t, timesteps, network), on_path - time * network, **CLOSE)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "edm", "flow"])
def test_the_least_loss_is_that_of_the_mean_of_the_clean_slices(prediction_type):
    """For Gaussian pixels: least squares on (input, target) must find the denoiser that is known in closed form."""
    mean, std = 0.2, 0.4
    generator = torch.Generator().manual_seed(0)
    x_0 = mean + std * torch.randn(1, 1, 400, 400, generator=generator)
    noise = torch.randn(x_0.shape, generator=generator)
    process = DiffusionProcess(DiffusionConfig(prediction_type=prediction_type))
    for t in (50, 500, 900):
        timesteps, abar = torch.tensor([t]), float(process.alphas_cumprod[t])
        x_t = process.q_sample(x_0, timesteps, noise)
        given, target = process.network_input(x_t, timesteps).flatten(), process.target(x_0, timesteps, noise).flatten()
        slope, offset = np.polyfit(given.double().numpy(), target.double().numpy(), 1)
        fitted = process.predict_x_0(x_t, timesteps, slope * process.network_input(x_t, timesteps) + offset)
        expected = mean + std**2 * abar**0.5 / (abar * std**2 + 1 - abar) * (x_t - abar**0.5 * mean)
        torch.testing.assert_close(fitted, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("prediction_type", ["edm", "flow"])
def test_min_snr_weighs_the_error_of_the_clean_slice(prediction_type, batch):
    """Hang et al. 2023: min(SNR, gamma) times the squared error of x_0, whatever is predicted."""
    x_0, timesteps, noise = (part[2:5] for part in batch)
    process = DiffusionProcess(DiffusionConfig(prediction_type=prediction_type, loss="l2", min_snr_gamma=5))
    prediction = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1))
    denoised = process.predict_x_0(process.q_sample(x_0, timesteps, noise), timesteps, prediction)
    expected = process.snr(timesteps).clamp(max=5) * (denoised - x_0).square().mean((1, 2, 3))
    torch.testing.assert_close(process.losses(prediction, x_0, timesteps, noise), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("mean", "std"), [(-0.8, 1.6), (0, 1), (-3, 0.2)])
def test_timesteps_of_normal_levels_have_their_probabilities(name, mean, std):
    """Against levels that SciPy draws, each moved to the nearest one of the chain."""
    cdf = timestep_cdf(DiffusionConfig(beta_schedule=name, num_train_timesteps=50), mean, std).numpy()
    abar = np.cumprod(1 - noise_schedule(name, 50).numpy())
    levels = np.log((1 - abar) / abar) / 2
    drawn = scipy.stats.norm(mean, std).rvs(20_000, random_state=0)
    nearest = np.abs(drawn[:, None] - levels).argmin(1)
    np.testing.assert_allclose(cdf, (nearest[:, None] <= np.arange(50)).mean(0), atol=0.012)
    assert cdf[-1] == 1


def test_a_spread_is_for_edm_alone():
    with pytest.raises(ValueError, match=r"is for prediction_type: edm, not for flow, got 0\.4; leave it out"):
        DiffusionConfig(prediction_type="flow", sigma_data=0.4)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stride", [1, 20])
def test_posterior_equals_that_of_diffusers(name, stride, batch):
    x_0, _, noise = batch
    process = DiffusionProcess(DiffusionConfig(beta_schedule=name))
    scheduler = reference_scheduler(name, prediction_type="sample", clip_sample=False, timestep_spacing="trailing")
    scheduler.alphas_cumprod = (1 - scheduler.betas.double()).cumprod(0)
    scheduler.set_timesteps(1000 // stride)
    for t in (999, 499, 2 * stride - 1):
        timesteps = torch.full((6,), t)
        mean, variance = process.posterior(noise, x_0, timesteps, timesteps - stride)
        torch.testing.assert_close(variance[0, 0, 0, 0], scheduler._get_variance(t).float(), atol=1e-6, rtol=0)
        sigma = variance.sqrt()
        drawn = scheduler.step(x_0, t, noise, generator=torch.Generator().manual_seed(1)).prev_sample
        z = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(mean + sigma * z, drawn.float(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stride", [1, 37])
def test_posterior_chain_keeps_the_forward_marginal(name, stride):
    process = DiffusionProcess(DiffusionConfig(beta_schedule=name)).double()
    abar = process.alphas_cumprod
    x_0 = torch.full((1, 1, 1, 1), 0.7, dtype=torch.float64)
    steps = [*range(999, -1, -stride), -1]
    mean, variance = abar[999].sqrt() * x_0, 1 - abar[999]
    for t, s in pairwise(steps):
        t, s = torch.tensor([t]), torch.tensor([s])
        at_0, added = process.posterior(0 * x_0, x_0, t, s)
        gain = process.posterior(0 * x_0 + 1, x_0, t, s)[0] - at_0
        mean, variance = at_0 + gain * mean, gain**2 * variance + added
        abar_s = abar[s] if s >= 0 else torch.ones(1, dtype=torch.float64)
        torch.testing.assert_close(mean.flatten(), abar_s.sqrt() * 0.7, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(variance.flatten(), 1 - abar_s, atol=1e-6, rtol=1e-6)


def test_posterior_must_move_towards_the_data(batch):
    x_0, timesteps, noise = batch
    with pytest.raises(ValueError, match="s must be before t"):
        DiffusionProcess(DiffusionConfig()).posterior(noise, x_0, timesteps, timesteps)


def test_process_adds_nothing_to_a_checkpoint():
    process = DiffusionProcess(DiffusionConfig())
    assert process.state_dict() == {}
    assert list(process.parameters()) == []


def test_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="linear, cosine or sigmoid, got 'square'"):
        noise_schedule("square", 10)
