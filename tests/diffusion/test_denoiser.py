"""Guidance against what it must not change, and against the closed form of its path where pixels are Gaussian."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from lwddpm.config import DiffusionConfig, ModelConfig, SamplingConfig
from lwddpm.diffusion.chain import denoise
from lwddpm.diffusion.denoiser import Denoiser, noise_level
from lwddpm.diffusion.prior import Prior, calibrated_timesteps, fit_prior
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.diffusion.sampling import generate
from lwddpm.diffusion.timesteps import network_calls, visited_timesteps
from lwddpm.models.build import build_model

pytestmark = pytest.mark.filterwarnings(
    # diffusers 0.42 wraps torch tensors by np.array; NumPy 2 finds torch's __array__ outdated.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
SAMPLERS = ("ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++", "unipc", "heun")
DIFFUSION = DiffusionConfig(prediction_type="v_prediction")
SIZE, T = 16, 1000


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = build_model(ModelConfig(dim=8, dim_mults=(1, 2)))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return network(0)


@pytest.fixture(scope="module")
def prior() -> Prior:
    images = torch.randint(0, 256, (200, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prior = fit_prior(images)
    return Prior(**prior.tensors() | {"trust": torch.linspace(1, 0, len(prior.trust))})


def draw(model: nn.Module, guide: nn.Module | None, **settings: object) -> Tensor:
    sampling = SamplingConfig(num_inference_steps=5, **settings)
    return generate(model, DIFFUSION, sampling, range(3), SIZE, "cpu", guide=guide)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_without_a_weight_or_a_difference_nothing_changes(model, sampler):
    plain = draw(model, None, sampler=sampler)
    assert torch.equal(plain, draw(model, network(1), sampler=sampler, guidance=1.0))
    assert torch.equal(plain, draw(model, model, sampler=sampler, guidance=2.5))
    assert not torch.equal(plain, draw(model, network(1), sampler=sampler, guidance=2.5))


def test_guidance_takes_a_guide(model):
    with pytest.raises(ValueError, match="takes a model that has a guide"):
        draw(model, None, guidance=1.5)


class GaussianOracle(nn.Module):
    """The best denoiser of independent pixels N(mean, std^2), as a network that predicts the velocity; counts calls."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.process, self.mean, self.std, self.asked = DiffusionProcess(DIFFUSION), mean, std, []

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.asked.append(int(timesteps[0]))
        abar = self.process.alphas_cumprod[timesteps].double()[:, None, None, None]
        a, x = abar.sqrt(), x.double()
        x_0 = self.mean + self.std**2 * a / (abar * self.std**2 + 1 - abar) * (x - a * self.mean)
        return (a * (x - a * x_0) / (1 - abar).sqrt() - (1 - abar).sqrt() * x_0).float()


def sigma(timestep: int) -> float:
    return noise_level(DiffusionProcess(DIFFUSION), timestep)


@pytest.mark.parametrize("interval", [None, (0.3, 3.0)])
@pytest.mark.parametrize("sampler", ["ddim", "dpmsolver++"])
def test_the_guided_path_of_gaussian_pixels_is_the_closed_form(sampler, interval):
    """With D = D_weak + w (D - D_weak), dx/dsigma = (x - D) / sigma moves x - mean in proportion to
    (s^2 + sigma^2)^(w/2) (s_weak^2 + sigma^2)^((1-w)/2), and outside the interval to (s^2 + sigma^2)^(1/2)."""
    mean, std, weaker, weight, begin = 0.1, 0.1, 0.25, 1.8, 900
    sampling = SamplingConfig(sampler=sampler, num_inference_steps=1, guidance=weight, guidance_interval=interval)
    process, visited = DiffusionProcess(DIFFUSION), torch.arange(begin, -1, -1)
    deviation = torch.tensor([-0.2, 0.1, 0.2])  # of the noisy pixels, in units of their standard deviation
    signal, noise = float(process.signal[begin]), float(process.noise[begin])
    x = signal * mean + deviation * (signal**2 * std**2 + noise**2) ** 0.5
    ends = denoise(
        GaussianOracle(mean, std),
        process,
        sampling,
        visited,
        x.reshape(3, 1, 1, 1),
        [torch.Generator() for _ in range(3)],
        guide=GaussianOracle(mean, weaker),
    )

    def growth(low: float, high: float, w: float) -> float:
        strong, weak = ((low**2 + s**2) / (high**2 + s**2) for s in (std, weaker))
        return float(strong ** (w / 2) * weak ** ((1 - w) / 2))

    high = noise / signal
    if interval is None:
        factor = growth(0, high, weight)
    else:
        factor = growth(0, interval[0], 1) * growth(*interval, weight) * growth(interval[1], high, 1)
        assert factor != pytest.approx(growth(0, high, weight), rel=0.1)
    assert factor != pytest.approx(growth(0, high, 1), rel=0.1)
    torch.testing.assert_close((ends.flatten() - mean), (x / signal - mean) * factor, rtol=0.02, atol=2e-4)


def test_the_guide_is_asked_within_the_interval_alone():
    strong, weak = GaussianOracle(0, 0.1), GaussianOracle(0, 0.3)
    sampling = SamplingConfig(
        sampler="dpmsolver++", num_inference_steps=20, guidance=2, guidance_interval=(sigma(299), sigma(699))
    )
    generate(strong, DIFFUSION, sampling, range(2), SIZE, "cpu", guide=weak)
    assert strong.asked == visited_timesteps(T, 20).tolist()
    assert weak.asked == [t for t in strong.asked if 299 < t <= 699] != []  # the lower end is left out
    plain = sampling.model_copy(update={"guidance_interval": (1e5, 1e6)})  # beyond all noise levels
    assert torch.equal(
        generate(strong, DIFFUSION, plain, range(2), SIZE, "cpu", guide=weak),
        generate(strong, DIFFUSION, sampling.model_copy(update={"guidance": 1.0}), range(2), SIZE, "cpu"),
    )


@pytest.mark.parametrize(
    ("sampler", "start", "guidance"), list(itertools.product(SAMPLERS, ("noise", "gaussian"), (1.0, 1.7)))
)
def test_network_calls_are_those_that_are_made(prior, sampler, start, guidance):
    strong, weak = GaussianOracle(0, 0.1), GaussianOracle(0, 0.3)
    sampling = SamplingConfig(
        sampler=sampler, num_inference_steps=9, start=start, guidance=guidance, guidance_interval=(0.4, 1.5)
    )
    generate(strong, DIFFUSION, sampling, range(2), SIZE, "cpu", prior=prior, guide=weak)
    made = len(strong.asked) + len(weak.asked)
    assert network_calls(DIFFUSION, sampling, prior) == made
    assert made > 9 or guidance == 1 or start == "gaussian"


def test_a_generator_makes_one_call():
    assert network_calls(None, SamplingConfig(sampler="generator", num_inference_steps=1), None) == 1


def test_what_is_not_trusted_is_not_guided_either(prior):
    """`calibrate` acts on the guided slices: where the network is not believed, the prior's estimate is left."""
    process, sampling = DiffusionProcess(DIFFUSION), SamplingConfig(guidance=3)
    denoiser = Denoiser(GaussianOracle(0, 0.1), process, sampling, GaussianOracle(0.5, 0.3), prior)
    x = torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    last = int(calibrated_timesteps(T)[-1])  # trust 0
    expected = prior.expected_x_0(x, float(process.signal[last]), float(process.noise[last]))
    torch.testing.assert_close(denoiser.clean(x, last), expected.clamp(-1, 1))
    halfway = Denoiser(GaussianOracle(0, 0.1), process, sampling, GaussianOracle(0.5, 0.3))
    assert (halfway.clean(x, last) - expected).abs().max() > 0.1
