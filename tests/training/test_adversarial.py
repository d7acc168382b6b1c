"""The losses against independent formulas, and what a step of a GAN does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lwddpm.config import SamplingConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.sampling import generate
from lwddpm.evaluation.distances import ReferenceStatistics
from lwddpm.training.adversarial import LOSSES, AdversarialStep, clip_weights, gradient_penalty
from lwddpm.training.estimate import estimate_resources
from lwddpm.training.loop import train
from lwddpm.training.reporter import SilentReporter
from lwddpm.training.schedule import Schedule
from lwddpm.training.stored_model import load_model

CPU = torch.device("cpu")
Build = Callable[..., TrainJob]


@pytest.fixture
def scores() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return 3 * torch.randn(50, dtype=torch.float64), 3 * torch.randn(50, dtype=torch.float64)


def test_the_non_saturating_loss_is_binary_cross_entropy(scores: tuple[Tensor, Tensor]) -> None:
    real, fake = scores
    judged = F.binary_cross_entropy(torch.cat([real, fake]).sigmoid(), torch.tensor([1.0] * 50 + [0.0] * 50).double())
    torch.testing.assert_close(LOSSES["gan"].discriminator(real, fake), 2 * judged)
    torch.testing.assert_close(LOSSES["gan"].generator(fake), -fake.sigmoid().log().mean())
    lost = torch.tensor([-200.0], requires_grad=True)  # a discriminator that is certain still teaches the generator
    LOSSES["gan"].generator(lost).backward()
    assert lost.grad == pytest.approx(-1)


def test_the_least_squares_loss_is_half_the_mean_squared_error(scores: tuple[Tensor, Tensor]) -> None:
    real, fake = scores
    expected = (F.mse_loss(real, torch.ones_like(real)) + F.mse_loss(fake, torch.zeros_like(fake))) / 2
    torch.testing.assert_close(LOSSES["lsgan"].discriminator(real, fake), expected)
    torch.testing.assert_close(LOSSES["lsgan"].generator(fake), F.mse_loss(fake, torch.ones_like(fake)) / 2)


def test_the_wasserstein_loss_is_minus_the_critics_margin(scores: tuple[Tensor, Tensor]) -> None:
    real, fake = scores
    margin = np.mean(real.numpy()) - np.mean(fake.numpy())
    assert LOSSES["wgan"].discriminator(real, fake).item() == pytest.approx(-margin)
    assert LOSSES["wgan"].generator(fake).item() == pytest.approx(-np.mean(fake.numpy()))


def test_the_penalty_of_a_linear_critic_is_that_of_its_slope() -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, dtype=torch.float64, requires_grad=True)
    real, fake = torch.randn(2, 5, 1, 4, 4, dtype=torch.float64)
    penalty = gradient_penalty(lambda x: x.flatten(1) @ weight + 7, real, fake, torch.rand(5).double())
    norm = weight.detach().norm()
    torch.testing.assert_close(penalty, (weight.norm() - 1) ** 2)
    (slope,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(slope, 2 * (norm - 1) * weight.detach() / norm)  # it reaches the critic's weights


def test_the_penalty_is_taken_between_the_pairs() -> None:
    """The slope of |x|^2 / 2 at x is x itself."""
    real, fake = torch.full((3, 1, 2, 2), 4.0), torch.zeros(3, 1, 2, 2)
    mixing = torch.tensor([1.0, 0.25, 0.0])  # real, a quarter of the way, generated
    penalty = gradient_penalty(lambda x: 0.5 * x.square().sum((1, 2, 3)), real, fake, mixing)
    norms = torch.tensor([8.0, 2.0, 0.0])
    torch.testing.assert_close(penalty, ((norms - 1) ** 2).mean())


def test_clipping_bounds_every_weight_and_no_more() -> None:
    layer = nn.Linear(50, 50)
    before = layer.weight.detach().clone()
    clip_weights(layer, 0.05)
    assert torch.equal(layer.weight, before.clamp(-0.05, 0.05))
    assert layer.bias.abs().max() <= 0.05


def _step(job: TrainJob, dataset: Dataset) -> AdversarialStep:
    schedule = Schedule.of(job.training, dataset.num("train"), job.batches_per_step)
    step = AdversarialStep(job, dataset, schedule, CPU)
    step.distribute()
    return step


def test_a_wgan_steps_within_its_bound_and_trains_both_sides(tiny_gan: Build, tiny_dataset: Dataset) -> None:
    step = _step(tiny_gan("model.family=wgan", "adversarial.clip=0.01"), tiny_dataset)
    before = {name: [p.detach().clone() for p in module.parameters()] for name, module in step.modules.items()}
    values = step.take(0)
    assert set(values) == set(step.values)
    weights = torch.cat([p.flatten() for p in step.discriminator.parameters()])
    assert weights.abs().max() <= 0.01
    for name, module in step.modules.items():
        assert any(not torch.equal(a, b) for a, b in zip(before[name], module.parameters(), strict=True)), name
    assert all(p.requires_grad for p in step.discriminator.parameters())


def test_each_update_of_the_critic_sees_new_slices_and_an_epoch_shows_each_once(
    tiny_gan: Build, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_gan("model.family=wgan", "adversarial.n_critic=3", "training.horizontal_flip=false")
    step = _step(job, tiny_dataset)
    seen: list[bytes] = []
    slices = step.loader.slices
    monkeypatch.setattr(
        step.loader, "slices", lambda draw: seen.extend(i.tobytes() for i in slices(draw).numpy()) or slices(draw)
    )
    for number in range(int(step.schedule.steps_per_epoch)):
        step.take(number)
    assert len(set(seen)) == len(seen) == 3 * 8 * step.schedule.steps_per_epoch <= tiny_dataset.num("train")


def test_the_generators_step_leaves_the_discriminator_alone(tiny_gan: Build, tiny_dataset: Dataset) -> None:
    step = _step(tiny_gan("model.family=lsgan"), tiny_dataset)
    step.take(0)
    assert all(p.grad is None for module in (step.discriminator, step.model) for p in module.parameters())
    moments = [step.optimizers[name].state_dict()["state"][0]["step"].item() for name in step.optimizers]
    assert moments == [1, 1]


def test_the_work_of_a_step_grows_with_the_critics_updates_and_its_penalty(tiny_gan: Build) -> None:
    one, three, five = (
        estimate_resources(tiny_gan("model.family=wgan", f"adversarial.n_critic={n}", "model.dim=32")).step_tflop
        for n in (1, 3, 5)
    )
    assert five - three == pytest.approx(three - one, abs=2e-4)  # printed to four digits
    assert five > three > one
    penalised = tiny_gan("model.family=wgan", "adversarial.gradient_penalty=10", "model.dim=32")
    assert estimate_resources(penalised).step_tflop > five


@pytest.mark.parametrize("family", ["gan", "lsgan"])
def test_a_small_gan_learns_what_the_slices_look_like(
    family: str, tiny_gan: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    """Fréchet distance of coarse pixels, before and after."""
    job = tiny_gan(f"model.family={family}", "training.max_steps=120", "training.lr=2e-3", "training.ema_decay=0.9")
    train(job, tiny_dataset, tmp_path, SilentReporter(), CPU, until=1)
    train(job, tiny_dataset, tmp_path, SilentReporter(), CPU)
    real = ReferenceStatistics.of(_coarse(torch.from_numpy(np.array(tiny_dataset.images("train")))))
    distances = []
    for folder in ("paused", "model"):
        network, saved = load_model(tmp_path / folder)
        images = generate(network, saved.diffusion, SamplingConfig(sampler="generator"), range(48), 16, CPU)
        distances.append(real.distance(_coarse(images)))
    assert distances[1] < 0.3 * distances[0], distances


def _coarse(images: Tensor) -> Tensor:
    return F.avg_pool2d(images[:, None].float() / 255, 4).flatten(1)
