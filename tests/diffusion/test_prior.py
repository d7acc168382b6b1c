"""The prior against exact Gaussians, mixtures that are known, and scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, skew
from torch import Tensor, nn

from lwddpm.config import DiffusionConfig, SamplingConfig
from lwddpm.diffusion.intensity import from_uint8, to_uint8
from lwddpm.diffusion.prior import (
    NUM_DIRECTIONS,
    Prior,
    calibrate,
    calibrated_timesteps,
    fit_prior,
    num_directions,
)
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.diffusion.sampling import denoising_trajectory, generate
from lwddpm.diffusion.timesteps import LATEST_START, network_calls, start_timestep, visited_timesteps

pytestmark = pytest.mark.filterwarnings(
    # diffusers 0.42 wraps torch tensors by np.array; NumPy 2 finds torch's __array__ outdated.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
SIZE, T = 8, 1000
SAMPLERS = ("ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++", "unipc", "heun")
DIFFUSION = DiffusionConfig(prediction_type="v_prediction")


def slices(num: int, *, skewed: bool = False) -> Tensor:
    """uint8 [num, 8, 8] that vary along two directions, by 0.2 and 0.1 of the range, and a little everywhere."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(SIZE**2, 2)))
    weights = rng.gamma(2, size=(num, 2)) - 2 if skewed else rng.normal(size=(num, 2))
    x = -0.2 + weights * (1.6, 0.8) @ basis.T + 0.02 * rng.normal(size=(num, SIZE**2))
    return to_uint8(torch.tensor(x).reshape(num, SIZE, SIZE))


@pytest.fixture(scope="module")
def prior() -> Prior:
    return fit_prior(slices(4000), 2)


def test_directions_are_those_of_largest_variance():
    images = slices(500)
    flat = from_uint8(images).flatten(1).double().numpy()
    variances, vectors = np.linalg.eigh(np.cov(flat.T))
    prior = fit_prior(images, 5)
    directions = prior.directions.flatten(1).double().numpy()
    np.testing.assert_allclose(directions @ directions.T, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(np.abs(directions[:2] @ vectors[:, [-1, -2]]), np.eye(2), atol=1e-4)
    np.testing.assert_allclose(prior.deviations.square(), variances[::-1][:5], rtol=1e-2)
    np.testing.assert_allclose(prior.mean.flatten(), flat.mean(0), atol=1e-6)
    assert torch.equal(prior.directions, fit_prior(images, 5).directions)


def draws(prior: Prior, num: int) -> Tensor:
    return torch.randn(num, prior.num_draws, generator=torch.Generator().manual_seed(5))


def test_noisy_slices_have_the_moments_of_noised_ones(prior):
    noise = torch.randn(20_000, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    signal, noise_level = 0.8, 0.6
    x = prior.noisy(draws(prior, 20_000), noise, signal, noise_level).flatten(1).double()
    clean = from_uint8(slices(4000)).flatten(1).double()
    torch.testing.assert_close(x.mean(0), signal * clean.mean(0), atol=0.06, rtol=0)
    directions = prior.directions.flatten(1).double()
    expected = signal**2 * torch.cov((clean @ directions.T).T) + noise_level**2 * torch.eye(2)
    torch.testing.assert_close(torch.cov((x @ directions.T).T), expected, rtol=0.06, atol=0.03)
    across = x - x.mean(0) - ((x - x.mean(0)) @ directions.T) @ directions
    assert float(across.square().sum() / len(x) / (SIZE**2 - 2)) == pytest.approx(noise_level**2, rel=0.02)


def test_a_mixture_keeps_what_a_gaussian_does_not():
    """Brightness is skewed: one Gaussian of the same variance draws too few bright slices."""
    images = slices(4000, skewed=True)
    real = from_uint8(images).flatten(1)

    def drawn_along(components: int) -> tuple[np.ndarray, np.ndarray]:
        prior = fit_prior(images, 2, components=components)
        directions = prior.directions.flatten(1)
        return (
            (real @ directions.T).numpy(),
            (prior.clean(draws(prior, 4000)).float().flatten(1) @ directions.T).numpy(),
        )

    for components, close in ((1, False), (8, True)):
        wanted, drawn = drawn_along(components)
        assert np.abs(skew(wanted, axis=0)).min() > 0.7
        distances = [ks_2samp(wanted[:, k] - wanted[:, k].mean(), drawn[:, k] - drawn[:, k].mean()) for k in range(2)]
        assert all((distance.statistic < 0.04) == close for distance in distances)


def test_slices_of_two_kinds_stay_two_kinds():
    """As planes do: nothing is drawn between them, and each kind as often as it is there."""
    kinds = torch.cat([slices(1400) // 2, 255 - slices(600) // 2])
    prior = fit_prior(kinds, 2, components=2)
    assert sorted(prior.weights.tolist()) == pytest.approx([0.3, 0.7], abs=0.02)
    brightness = to_uint8(prior.clean(draws(prior, 4000)).float()).flatten(1).float().mean(1)
    assert float((brightness > 128).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(((brightness > 100) & (brightness < 155)).float().mean()) < 0.02


def test_clean_slices_have_scikit_learn_s_likelihood():
    """Draws are as likely under the fitted mixture as the training slices themselves."""
    from sklearn.mixture import GaussianMixture

    images = slices(4000, skewed=True)
    prior = fit_prior(images, 2)
    mixture = GaussianMixture(len(prior.weights))
    mixture.weights_, mixture.means_ = prior.weights.double().numpy(), prior.centres.double().numpy()
    mixture.precisions_cholesky_ = np.linalg.inv(prior.factors.double().numpy()).transpose(0, 2, 1)

    def likelihood(x: Tensor) -> float:
        along = (x.double().flatten(1) - prior.mean.flatten()) @ prior.directions.flatten(1).double().T
        return mixture.score((along / prior.deviations).numpy())

    assert likelihood(prior.clean(draws(prior, 4000))) == pytest.approx(likelihood(from_uint8(images)), abs=0.06)


def test_no_component_stands_for_a_few_slices():
    """Ten slices of their own kind would get a component, and could be told from it."""
    images = torch.cat([slices(2000), 255 - slices(10) // 4])
    prior = fit_prior(images, 4)
    assert float(prior.weights.min()) * len(images) >= 64
    assert 1 < len(prior.weights) <= 7  # one for each 256
    assert len(fit_prior(images[:511]).weights) == 1


class BestDenoiser(nn.Module):
    """Predicts the velocity of the best estimate, if slices vary along the prior's directions as a Gaussian does."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior, self.process, self.calls = prior, DiffusionProcess(DIFFUSION), []

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        t = int(timesteps[0])
        self.calls.append(t)
        signal, noise = float(self.process.signal[t]), float(self.process.noise[t])
        return (signal * x - self.prior.expected_x_0(x, signal, noise)) / noise


def test_expected_slices_are_the_gaussian_s_conditional_mean(prior):
    signal, noise_level = 0.6, 0.8
    x = torch.randn(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(4))
    u = prior.directions.flatten(1).double().numpy().T
    covariance = u @ np.diag(prior.deviations.numpy().astype(float) ** 2) @ u.T
    mean = prior.mean.flatten().double().numpy()
    gain = signal * covariance @ np.linalg.inv(signal**2 * covariance + noise_level**2 * np.eye(SIZE**2))
    wanted = mean + (x.flatten(1).double().numpy() - signal * mean) @ gain.T
    np.testing.assert_allclose(prior.expected_x_0(x, signal, noise_level).flatten(1), wanted, atol=1e-5)


class Knowing(nn.Module):
    """Predicts what leads to known slices, or to slices that have nothing to do with them."""

    def __init__(self, images: Tensor, diffusion: DiffusionConfig = DIFFUSION) -> None:
        super().__init__()
        self.x_0, self.process = from_uint8(images)[:, None], DiffusionProcess(diffusion)

    def forward(self, given: Tensor, timesteps: Tensor) -> Tensor:
        factors = (self.process.signal, self.process.noise, self.process.input_scales)
        signal, noise, scale = (value[timesteps][:, None, None, None] for value in factors)
        return self.process.target(self.x_0, timesteps, (given / scale - signal * self.x_0) / noise)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "edm", "flow"])
def test_trust_is_what_the_network_deserves(prior, prediction_type):
    config = DiffusionConfig(prediction_type=prediction_type)
    images, process = slices(64), DiffusionProcess(config)
    knows = calibrate(prior, Knowing(images, config), process, images).trust
    torch.testing.assert_close(knows, torch.ones_like(knows), atol=0.02, rtol=0)
    guesses = calibrate(prior, Knowing(torch.randint(0, 256, (64, SIZE, SIZE)), config), process, images).trust
    assert guesses.max() < 0.05


def test_trust_between_calibrated_timesteps_is_linear(prior):
    knots = calibrated_timesteps(T).tolist()
    assert (knots[0], knots[-1], len(knots)) == (0, T - 1, len(prior.trust))
    falling = replace(prior, trust=torch.linspace(1, 0, len(knots)))
    for t in (0, 1, 300, 500, 998, 999):
        assert falling.trust_at(t, T) == pytest.approx(1 - t / (T - 1), abs=1e-3)


@pytest.mark.parametrize(("num", "directions"), [(31, 0), (32, 1), (100, 3), (100_000, NUM_DIRECTIONS)])
def test_few_slices_allow_few_directions(num, directions):
    assert num_directions(num) == directions


def test_it_is_the_same_whatever_the_network_s_precision():
    images = slices(200)
    single, process = fit_prior(images), DiffusionProcess(DIFFUSION)
    torch.set_default_dtype(torch.float64)
    try:
        double = calibrate(fit_prior(images), Knowing(images), process, images)
        drawn = double.expected_x_0(torch.randn(2, 1, SIZE, SIZE), 0.5, 0.8)
    finally:
        torch.set_default_dtype(torch.float32)
    assert drawn.dtype == torch.float64
    assert all(tensor.dtype == torch.float32 for tensor in double.tensors().values())
    torch.testing.assert_close(single.directions, double.directions)


def test_too_few_slices_are_refused():
    with pytest.raises(ValueError, match="32 or more slices, got 20"):
        fit_prior(slices(20))


def test_slices_that_are_all_one_have_a_prior():
    images = torch.full((40, SIZE, SIZE), 90, dtype=torch.uint8)
    prior = fit_prior(images)
    torch.testing.assert_close(prior.clean(draws(prior, 3)).float(), from_uint8(images[:3])[:, None], atol=1e-4, rtol=0)
    assert prior.centres.shape == (1, 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 3, 1000])
def test_samplers_begin_where_the_signal_is_strong(prior, sampler, steps):
    network, process = BestDenoiser(prior), DiffusionProcess(DIFFUSION)
    first = start_timestep(process, prior, sampler)  # of a network that nobody has measured
    assert process.signal[first] >= LATEST_START[sampler] > process.signal[first + 1]
    sampling = SamplingConfig(sampler=sampler, num_inference_steps=steps)
    images = generate(network, DIFFUSION, sampling, [0], SIZE, "cpu", prior=prior)
    visited = list(dict.fromkeys(network.calls))  # Heun's method asks at all but the first twice
    assert visited[0] == first
    assert len(visited) == min(steps, first + 1)
    assert visited == sorted(visited, reverse=True)
    assert len(network.calls) == network_calls(DIFFUSION, sampling, prior)
    assert images.shape == (1, SIZE, SIZE)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_network_that_is_trusted_takes_over_earlier(prior, sampler):
    """Down to the timestep where its trust falls below 0.87; one that is trusted everywhere starts from noise."""
    process = DiffusionProcess(DIFFUSION)

    def first(trust: Tensor) -> int:
        trusted = replace(prior, trust=trust)
        return start_timestep(process, trusted, sampler)

    falling = torch.linspace(1, 0.7, 16)
    assert first(falling) == pytest.approx((1 - 0.87) / 0.3 * (T - 1), abs=2) or sampler in ("ddpm", "sde-dpmsolver++")
    assert first(torch.cat([torch.ones(10), torch.zeros(6)])) == pytest.approx((9 + 0.13) / 15 * (T - 1), abs=2)
    assert first(torch.ones(16)) == T - 1
    latest = first(torch.zeros(16))
    assert process.signal[latest] >= LATEST_START[sampler]
    assert first(falling) >= latest


def test_an_image_depends_on_its_index_alone(prior):
    sampling = SamplingConfig(sampler="sde-dpmsolver++", num_inference_steps=4, batch_size=4)
    network = BestDenoiser(prior)
    whole = generate(network, DIFFUSION, sampling, range(6), SIZE, "cpu", prior=prior)
    part = generate(network, DIFFUSION, sampling, [5, 1], SIZE, "cpu", prior=prior)
    assert (whole[[5, 1]].int() - part.int()).abs().max() <= 1


def test_a_job_may_leave_the_prior_out(prior):
    network = BestDenoiser(prior)
    plain = SamplingConfig(sampler="ddim", num_inference_steps=4)
    without = generate(network, DIFFUSION, plain, range(3), SIZE, "cpu")
    from_noise = plain.model_copy(update={"start": "noise"})
    assert torch.equal(generate(network, DIFFUSION, from_noise, range(3), SIZE, "cpu", prior=prior), without)
    assert not torch.equal(generate(network, DIFFUSION, plain, range(3), SIZE, "cpu", prior=prior), without)
    for setting in ({"start": "gaussian"}, {"calibrate": True}):
        with pytest.raises(ValueError, match="take a model that has one"):
            generate(network, DIFFUSION, plain.model_copy(update=setting), range(3), SIZE, "cpu")


def test_distrust_pulls_towards_the_prior(prior):
    """A network that is not believed at all leaves the prior's own estimate: less spread than unit noise would have."""
    nowhere = replace(prior, trust=torch.zeros(16))
    guessing = Knowing(torch.randint(0, 256, (8, SIZE, SIZE), generator=torch.Generator().manual_seed(0)))
    sampling = SamplingConfig(sampler="ddim", num_inference_steps=4, calibrate=True)
    drawn = from_uint8(generate(guessing, DIFFUSION, sampling, range(8), SIZE, "cpu", prior=nowhere)).flatten(1)
    directions = prior.directions.flatten(1)
    centred = drawn - prior.mean.flatten()
    assert (centred - centred @ directions.T @ directions).abs().max() < 0.02


def test_trajectory_shows_the_noise_before_the_start(prior):
    sampling = SamplingConfig(sampler="ddim", num_inference_steps=5)
    network = BestDenoiser(prior)
    frames, steps = denoising_trajectory(network, DIFFUSION, sampling, [0, 3], SIZE, "cpu", 7 - 1, prior=prior)
    first = start_timestep(DiffusionProcess(DIFFUSION), prior, "ddim")
    assert steps[0] == T
    assert steps[1] in (first + 1, *visited_timesteps(first + 1, 5).add(1).tolist())
    assert steps[-1] == 0
    drawn = generate(network, DIFFUSION, sampling, [0, 3], SIZE, "cpu", prior=prior)
    assert torch.equal(frames[:, -1], drawn)


def test_a_prior_sees_intensities_as_its_model_does():
    """A prior fitted to toned intensities agrees with a network that knows them."""
    images = slices(500)
    toned = DIFFUSION.model_copy(update={"intensity_gamma": 0.5})
    prior = fit_prior(images, 2, gamma=0.5)
    torch.testing.assert_close(prior.mean, from_uint8(images, 0.5).mean(0), atol=1e-5, rtol=0)
    process = DiffusionProcess(toned)

    class Toned(Knowing):
        def __init__(self) -> None:
            super().__init__(images[:64])
            self.x_0 = from_uint8(images[:64], 0.5)[:, None]

    assert calibrate(prior, Toned(), process, images[:64]).trust.min() > 0.95


def test_a_class_is_drawn_from_its_own_components() -> None:
    """Two classes of bright and dark slices, one too small, and slices of no known class."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.tensor([200] * 150 + [40] * 100 + [120] * 20 + [90] * 30)
    noise = torch.randint(-30, 31, (300, 1, 1), generator=generator)
    pixels = torch.randint(-4, 5, (300, 16, 16), generator=generator)
    images = (levels[:, None, None] + noise + pixels).clamp(0, 255).to(torch.uint8)
    classes = np.array([0] * 150 + [1] * 100 + [2] * 20 + [np.nan] * 30, np.float32)
    prior = fit_prior(images, classes=classes)
    assert prior.classes is not None
    assert sorted(set(prior.classes.tolist())) == [0, 1], "50 others are too few for a component"
    draws = torch.randn(400, prior.num_draws, generator=generator)

    def brightness(code: float) -> float:
        slices = prior.clean(draws, torch.full((400,), code))
        return float((slices.mean() + 1) * 127.5)

    assert brightness(0) == pytest.approx(200, abs=6)
    assert brightness(1) == pytest.approx(40, abs=6)
    mixture = float((prior.clean(draws).mean() + 1) * 127.5)
    assert brightness(float("nan")) == brightness(2) == pytest.approx(mixture)
    assert mixture == pytest.approx((200 * 150 + 40 * 100) / 250, abs=15)
    alone = prior.clean(draws[5:6], torch.tensor([1.0]))
    together = prior.clean(draws, torch.tensor([0.0, 1.0] * 200))
    torch.testing.assert_close(together[5:6], alone)


def test_without_classes_the_prior_is_what_it_was() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (600, 16, 16), dtype=torch.uint8, generator=generator)
    plain, one = fit_prior(images), fit_prior(images, classes=np.zeros(600, np.float32))
    assert plain.classes is None
    assert "classes" not in plain.tensors()
    for name, tensor in plain.tensors().items():
        assert torch.equal(one.tensors()[name], tensor)
