"""Learned weights against the losses that they are to level out."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lwddpm.config import DiffusionConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.errors import ConfigError
from lwddpm.training.checkpoint import latest_checkpoint
from lwddpm.training.loop import train
from lwddpm.training.loss_weight import LossWeight
from lwddpm.training.reporter import RecordingReporter

CPU = torch.device("cpu")
T = 1000


@pytest.fixture
def levels() -> torch.Tensor:
    """Mean losses of the timesteps: up to 20 times as large at some noise levels as at others."""
    return (1.5 * torch.sin(-DiffusionProcess(DiffusionConfig()).snrs.log() / 2)).exp()


@pytest.fixture
def weight() -> LossWeight:
    return LossWeight(DiffusionProcess(DiffusionConfig()), torch.full((T,), 1 / T, dtype=torch.float64))


def test_at_the_optimum_every_level_weighs_alike(weight: LossWeight, levels: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(weight.parameters(), lr=1e-2)
    for step in range(2000):
        timesteps = torch.randint(T, (64,), generator=generator)
        noisy = levels[timesteps] * torch.randn(64, generator=generator).square()  # chi-squared, of mean 1
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 2000)
        optimizer.zero_grad()
        weight(noisy, timesteps).mean().backward()
        optimizer.step()
    learned = weight.log_losses().detach().exp()
    inside = slice(20, 980)  # beyond, a level has few neighbours
    ratio = (levels / learned)[inside]
    assert ratio.min() > 0.6
    assert ratio.max() < 1.6
    assert float(ratio.mean()) == pytest.approx(1, abs=0.1)
    assert levels[inside].max() / levels[inside].min() > 19, "what it has levelled out"


def test_the_network_sees_weights_of_mean_one_and_u_sees_the_loss_of_the_paper(
    weight: LossWeight, levels: torch.Tensor
) -> None:
    with torch.no_grad():
        weight.coefficients.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
    u = weight.log_losses().detach()
    losses, timesteps = levels.clone().requires_grad_(), torch.arange(T)
    weight(losses, timesteps).sum().backward()
    assert losses.grad is not None
    assert float(losses.grad.mean()) == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(losses.grad / losses.grad[0], (u[0] - u).exp(), rtol=1e-4, atol=0)
    coefficients = weight.coefficients.detach().clone().requires_grad_()
    (levels / (weight.features @ coefficients).exp() + weight.features @ coefficients).sum().backward()
    torch.testing.assert_close(weight.coefficients.grad, coefficients.grad, rtol=1e-4, atol=1e-3)


def test_a_training_starts_as_without_weights_and_goes_on_with_them(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, tmp_path: Path
) -> None:
    curves = {}
    for kind in ("fixed", "learned"):
        recorder = RecordingReporter()
        train(tiny_job(f"training.loss_weighting={kind}"), tiny_dataset, tmp_path / kind, recorder, CPU)
        curves[kind] = recorder
    fixed, learned = curves["fixed"].values, curves["learned"].values
    assert learned[1]["train/loss"] == pytest.approx(fixed[1]["train/loss"], rel=1e-5)
    assert learned[3]["train/loss"] != fixed[3]["train/loss"]
    assert learned[8]["train/loss"] == pytest.approx(fixed[8]["train/loss"], rel=0.2), "the same quantity"
    checkpoint = latest_checkpoint(tmp_path / "learned")
    assert checkpoint is not None
    assert load_file(checkpoint / "loss_weight.safetensors")["coefficients"].abs().max() > 0
    files = [{path.name for path in (tmp_path / kind / "model").iterdir()} for kind in ("fixed", "learned")]
    weights = [load_file(tmp_path / kind / "model" / "model.safetensors").keys() for kind in ("fixed", "learned")]
    assert files[0] == files[1]
    assert weights[0] == weights[1]


def test_weights_are_learned_or_given(tiny_job: Callable[..., TrainJob]) -> None:
    with pytest.raises(ConfigError, match=r"training\.loss_weighting.*min_snr_gamma"):
        tiny_job("training.loss_weighting=learned", "diffusion.min_snr_gamma=5")
