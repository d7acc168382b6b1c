"""Consistency tuning: which two noise levels meet, what is compared there, and where the training begins."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.prior import fit_prior
from lwddpm.diffusion.timesteps import start_timestep
from lwddpm.files import link_or_copy
from lwddpm.training.consistency import TEACHER_FOLDER, ConsistencyStep
from lwddpm.training.loop import train
from lwddpm.training.reporter import RecordingReporter
from lwddpm.training.schedule import Schedule
from lwddpm.training.stored_guide import GUIDE_FOLDER, write_guide
from lwddpm.training.stored_prior import read_prior, write_prior

CPU = torch.device("cpu")


@pytest.fixture
def build(tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, model_dir: Path) -> Callable[..., ConsistencyStep]:
    def make(*overrides: str) -> ConsistencyStep:
        job = tiny_job(f"consistency.teacher={model_dir}", *overrides)
        step = ConsistencyStep(job, tiny_dataset, Schedule.of(job.training, tiny_dataset.num("train")), CPU)
        step.begin_from(model_dir)
        step.distribute()
        return step

    return make


def test_the_lower_level_is_clean_at_first_and_comes_closer(build: Callable[..., ConsistencyStep]) -> None:
    step = build()
    timesteps = torch.arange(len(step.sigmas))
    assert (step.earlier(timesteps) == -1).all()
    distances = []
    for step.gap in (0.5, 0.1, 0.01, 1e-6):
        earlier = step.earlier(timesteps)
        assert (earlier < timesteps).all()
        distances.append((timesteps - earlier).float().mean())
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] == 1  # neighbours on the chain


def test_the_gap_is_halved_as_often_as_the_job_says(build: Callable[..., ConsistencyStep]) -> None:
    step = build("training.max_steps=4", "consistency.halvings=2")
    gaps = []
    for number in range(4):
        step.take(number)
        gaps.append(step.gap)
    assert gaps == pytest.approx([2**-0.0, 2**-0.5, 2**-1.0, 2**-1.5])


def test_at_the_full_gap_the_loss_is_the_distance_to_the_clean_slice(build: Callable[..., ConsistencyStep]) -> None:
    step = build("consistency.huber=0.5")
    torch.manual_seed(0)
    x_0, noise = torch.rand(3, 1, 16, 16) * 2 - 1, torch.randn(3, 1, 16, 16)
    timesteps = torch.tensor([0, 40, 90])
    x_t = step.process.q_sample(x_0, timesteps, noise)
    seen = step.process.predict_x_0(x_t, timesteps, step.model(x_t, timesteps))
    sigmas = step.process.noise[timesteps] / step.process.signal[timesteps]
    rms = (seen - x_0).square().mean((1, 2, 3)).sqrt()
    wanted = 0.5 * ((1 + (rms / 0.5) ** 2).sqrt() - 1) * sigmas.clamp(max=1) / sigmas
    torch.testing.assert_close(step._losses(step.model, x_0, timesteps, noise), wanted)


def test_a_network_that_sees_the_same_at_all_levels_has_no_loss(
    build: Callable[..., ConsistencyStep], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = build()
    step.gap = 0.01
    x_0, noise = torch.rand(4, 1, 16, 16) * 2 - 1, torch.randn(4, 1, 16, 16)
    timesteps = torch.tensor([30, 60, 80, 99])
    seen = torch.rand(4, 1, 16, 16) * 2 - 1
    monkeypatch.setattr(step, "_clean", lambda *arguments: seen)
    torch.testing.assert_close(step._losses(step.model, x_0, timesteps, noise), torch.zeros(4))


def test_a_teacher_that_sees_the_slices_themselves_leads_along_their_own_noise(
    build: Callable[..., ConsistencyStep], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x_0, noise = torch.rand(4, 1, 16, 16) * 2 - 1, torch.randn(4, 1, 16, 16)
    timesteps = torch.tensor([1, 30, 60, 90])
    losses = []
    for overrides in ((), ("consistency.guidance=1",)):
        step = build(*overrides)
        step.gap = 0.25
        monkeypatch.setattr(step, "_taught", lambda *arguments: x_0)
        losses.append(step._losses(step.model, x_0, timesteps, noise))
    torch.testing.assert_close(*losses)
    assert (losses[0] > 0).all()


def test_at_the_full_gap_a_guided_teacher_is_the_target(build: Callable[..., ConsistencyStep], model_dir: Path) -> None:
    weights = load_file(model_dir / "model.safetensors")
    write_guide(model_dir, model_dir)
    weaker = {name: value * 0.9 for name, value in weights.items()}
    save_file(weaker, model_dir / GUIDE_FOLDER / "model.safetensors")
    step = build("consistency.guidance=2", "consistency.huber=0.5")
    with torch.no_grad():
        for parameter in step.model.parameters():
            parameter.mul_(1.1)  # a student that has moved on; its teacher stays
    torch.manual_seed(0)
    x_0, noise = torch.rand(3, 1, 16, 16) * 2 - 1, torch.randn(3, 1, 16, 16)
    timesteps = torch.tensor([0, 40, 90])
    x_t = step.process.q_sample(x_0, timesteps, noise)
    views = []
    for state in (weights, weaker):
        network = build().model
        network.load_state_dict(state)
        views.append(step.process.predict_x_0(x_t, timesteps, network(x_t, timesteps)).clamp(-1, 1))
    target = (views[1] + 2 * (views[0] - views[1])).clamp(-1, 1)
    seen = step.process.predict_x_0(x_t, timesteps, step.model(x_t, timesteps))
    sigmas = step.process.noise[timesteps] / step.process.signal[timesteps]
    rms = (seen - target).square().mean((1, 2, 3)).sqrt()
    wanted = 0.5 * ((1 + (rms / 0.5) ** 2).sqrt() - 1) * sigmas.clamp(max=1) / sigmas
    torch.testing.assert_close(step._losses(step.model, x_0, timesteps, noise), wanted)


def test_it_begins_with_the_teacher_and_keeps_its_prior(
    build: Callable[..., ConsistencyStep], tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, model_dir: Path
) -> None:
    size = tiny_dataset.manifest.image_size
    slices = torch.randint(256, (200, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_prior(model_dir, fit_prior(slices, gamma=1))
    taught, prior = load_file(model_dir / "model.safetensors"), read_prior(model_dir, size)
    step = build()
    for name, weights in step.model.state_dict().items():
        torch.testing.assert_close(weights, taught[name], rtol=0, atol=0)
    assert prior is not None
    assert step.num_timesteps == start_timestep(step.process, prior, "ddim") + 1

    job = tiny_job(f"consistency.teacher={model_dir}", "training.max_steps=3")
    folder = Path(job.output) / "student"
    for file in ("config.json", "model.safetensors", "prior.safetensors"):
        (folder / TEACHER_FOLDER).mkdir(parents=True, exist_ok=True)
        link_or_copy(model_dir / file, folder / TEACHER_FOLDER / file)
    train(job, tiny_dataset, folder, RecordingReporter(), CPU)
    assert (folder / "model" / "prior.safetensors").read_bytes() == (model_dir / "prior.safetensors").read_bytes()
    student = load_file(folder / "model" / "model.safetensors")
    assert any((student[name] != taught[name]).any() for name in taught)


@pytest.mark.parametrize("overrides", [(), ("consistency.guidance=1",)])
def test_a_training_in_two_parts_ends_as_one_in_a_piece(
    tiny_job: Callable[..., TrainJob],
    tiny_dataset: Dataset,
    model_dir: Path,
    tmp_path: Path,
    overrides: tuple[str, ...],
) -> None:
    job = tiny_job(f"consistency.teacher={model_dir}", "training.max_steps=6", *overrides)
    weights = []
    for name, pauses in (("whole", [None]), ("parts", [3, None])):
        folder = tmp_path / name
        (folder / TEACHER_FOLDER).mkdir(parents=True)
        for file in model_dir.glob("*.*"):
            link_or_copy(file, folder / TEACHER_FOLDER / file.name)
        for until in pauses:
            train(job, tiny_dataset, folder, RecordingReporter(), CPU, until=until)
        weights.append(load_file(folder / "model" / "model.safetensors"))
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=0, atol=0)
