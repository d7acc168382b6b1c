"""What the step of the diffusion models learns from, by the equations of its parts."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.intensity import from_uint8
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.errors import ConfigError
from lwddpm.models.build import build_model
from lwddpm.training.batches import BatchLoader, validation_draw
from lwddpm.training.checkpoint import latest_checkpoint
from lwddpm.training.denoising import DenoisingStep
from lwddpm.training.loop import train
from lwddpm.training.reporter import RecordingReporter
from lwddpm.training.schedule import Schedule
from lwddpm.training.stored_model import load_model

CPU = torch.device("cpu")
Build = Callable[..., DenoisingStep]


@pytest.fixture
def build(tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset) -> Build:
    """Builds a step that is ready to be taken; arguments are overrides of the smallest job."""

    def make(*overrides: str) -> DenoisingStep:
        job = tiny_job(*overrides)
        step = DenoisingStep(job, tiny_dataset, Schedule.of(job.training, tiny_dataset.num("train")), CPU)
        step.distribute()
        return step

    return make


def test_adam_has_the_betas_of_the_job(build: Build) -> None:
    """Without memory of earlier gradients (both 0) each weight moves by the learning rate, whatever its gradient."""
    step = build("training.adam_betas=[0,0]", "training.lr=1e-2", "training.lr_schedule=constant")
    for number in range(2):
        before = torch.cat([p.detach().clone().flatten() for p in step.model.parameters()])
        step.take(number)
        moved = (torch.cat([p.detach().flatten() for p in step.model.parameters()]) - before).abs()
        moved = moved[moved > 0]  # layers that start at zero let no gradient through in the first step
        assert len(moved) > 0
        most = moved.quantile(0.8)  # a gradient near Adam's epsilon moves a weight by less
        torch.testing.assert_close(most, torch.tensor(1e-2), rtol=1e-3, atol=0)
    assert build().optimizers["optimizer"].param_groups[0]["betas"] == (0.9, 0.999)


def test_of_several_averages_the_one_with_the_least_validation_loss_is_kept(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, tmp_path: Path
) -> None:
    lengths = "training.ema_lengths=[0.02,0.28]"
    job = tiny_job(lengths, "training.max_steps=40", "training.lr=4e-3", "training.ema_decay=0.5")
    recorder = RecordingReporter()
    train(job, tiny_dataset, tmp_path, recorder, CPU)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert job.diffusion is not None
    images, process = tiny_dataset.images("validation"), DiffusionProcess(job.diffusion)
    draw = validation_draw(job.seed, len(images), len(images), 1000)
    noise = BatchLoader(images, CPU).gaussian(draw.noise_seeds, 1, 16, 16)
    x_0, timesteps = from_uint8(torch.tensor(images[draw.indices]))[:, None], torch.from_numpy(draw.timesteps)
    losses = {}
    for length, name in {None: "ema", 0.02: "ema_0.02", 0.28: "ema_0.28"}.items():
        network = build_model(job.model)
        network.load_state_dict(load_file(checkpoint / f"{name}.safetensors"))
        with torch.no_grad():
            prediction = network(process.q_sample(x_0, timesteps, noise), timesteps)
        losses[length] = process.losses(prediction, x_0, timesteps, noise).mean().item()
        assert recorder.values[40][f"val/loss_{name}"] == pytest.approx(losses[length], rel=1e-4)
    best = min(losses, key=losses.__getitem__)
    assert len({round(loss, 4) for loss in losses.values()}) == 3, "three different networks"
    model, saved = load_model(tmp_path / "model")
    assert saved.ema_length == best
    expected = load_file(checkpoint / f"ema{'' if best is None else f'_{best}'}.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    others = {load_model(folder)[1].ema_length for folder in (tmp_path / "averages").iterdir()}
    assert others == losses.keys() - {best}


def test_further_averages_change_nothing_that_is_learnt(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, tmp_path: Path
) -> None:
    plain, several = RecordingReporter(), RecordingReporter()
    train(tiny_job(), tiny_dataset, tmp_path / "plain", plain, CPU)
    train(tiny_job("training.ema_lengths=[0.1]"), tiny_dataset, tmp_path / "several", several, CPU)
    assert several.series("train/loss") == plain.series("train/loss")
    weights = [load_file(tmp_path / run / "snapshots/epoch_1/model.safetensors") for run in ("plain", "several")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not (tmp_path / "plain" / "averages").exists()
    assert "ema_length" not in (tmp_path / "plain" / "model" / "config.json").read_text()


def test_choosing_takes_validation_slices(tiny_job: Callable[..., TrainJob]) -> None:
    with pytest.raises(ConfigError, match=r"training\.ema_lengths.*validation slices.*data\.splits"):
        tiny_job("training.ema_lengths=[0.1]", "data.splits=[0.8,0,0.2]")


@pytest.mark.parametrize("prediction_type", ["v_prediction", "flow", "edm"])
def test_the_network_is_trained_on_what_its_prediction_type_says(build: Build, prediction_type: str) -> None:
    step = build(f"diffusion.prediction_type={prediction_type}", "diffusion.loss=l2")
    x_0, noise = torch.rand(3, 1, 16, 16) * 2 - 1, torch.randn(3, 1, 16, 16)
    timesteps = torch.tensor([20, 500, 950])
    abar = (
        torch.cos((timesteps / 1000 + 1e-3 + 0.008) / 1.008 * torch.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
    ) ** 2
    a, n = (value[:, None, None, None] for value in (abar.sqrt(), (1 - abar).sqrt()))
    spread = (0.25 * a**2 + n**2).sqrt()

    class Perfect(torch.nn.Module):
        def forward(self, given: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            x_t = a * x_0 + n * noise
            match prediction_type:
                case "flow":
                    torch.testing.assert_close(given, x_t / (a + n), atol=1e-4, rtol=0)
                    return noise - x_0
                case "edm":
                    torch.testing.assert_close(given, x_t / spread, atol=1e-4, rtol=0)
                    return (x_0 - 0.25 * a / spread**2 * x_t) * spread / (0.5 * n)
            torch.testing.assert_close(given, x_t, atol=1e-4, rtol=0)
            return a * noise - n * x_0

    losses = step._losses(Perfect(), x_0, timesteps, noise)
    torch.testing.assert_close(losses, torch.zeros(3), atol=1e-6, rtol=0)


def test_noise_levels_are_those_that_the_job_asks_for(build: Build) -> None:
    """Without the network: the timesteps of many steps have the mean and spread of ln sigma."""
    step = build("training.timestep_sampling=log_normal", "training.log_sigma_mean=-1", "training.log_sigma_std=0.7")
    levels = -step.process.snrs.double().log() / 2
    drawn: list[torch.Tensor] = []
    step.network = torch.nn.Module()
    step.network.forward = lambda given, timesteps: drawn.append(timesteps) or step.model(given, timesteps)  # type: ignore
    for number in range(60):
        step.take(number)
    seen = levels[torch.cat(drawn)]
    assert float(seen.mean()) == pytest.approx(-1, abs=0.03)
    assert float(seen.std()) == pytest.approx(0.7, abs=0.05)
