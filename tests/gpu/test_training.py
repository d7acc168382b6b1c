"""Training and sampling on a GPU, without Ray, against the same on a CPU."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lwddpm.config import SamplingConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.sampling import generate
from lwddpm.models.precision import NumberFormat
from lwddpm.training.batches import BatchLoader
from lwddpm.training.checkpoint import TrainingState, latest_checkpoint
from lwddpm.training.checkpoint_writer import CheckpointWriter
from lwddpm.training.loop import train
from lwddpm.training.reporter import RecordingReporter
from lwddpm.training.stored_model import load_for_drawing, load_model

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
Build = Callable[..., TrainJob]
BEYOND = (
    "diffusion.prediction_type=edm",
    "training.timestep_sampling=log_normal",
    "training.loss_weighting=learned",
    "training.augment=0.3",
    "training.ema_lengths=[0.1]",
)
LONGER = ("training.max_steps=40", "training.lr=4e-3")


def _series(recorder: RecordingReporter, name: str) -> list[float]:
    return list(recorder.series(name).values())


@pytest.fixture
def same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise from the CPU's generator on every device, and float32 without TF32: what is left is the arithmetic."""

    def gaussian(self: BatchLoader, seeds: np.ndarray, *shape: int) -> torch.Tensor:
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
        return torch.stack(drawn).to(self.device)

    monkeypatch.setattr(BatchLoader, "gaussian", gaussian)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def _train(job: TrainJob, dataset: Dataset, folder: Path, device: torch.device, **options: object) -> RecordingReporter:
    recorder = RecordingReporter()
    train(job, dataset, folder, recorder, device, **options)  # type: ignore[arg-type]
    return recorder


@pytest.mark.usefixtures("same_noise")
@pytest.mark.parametrize("further", [(), BEYOND], ids=["plain", "beyond"])
def test_the_loss_curve_is_that_of_a_cpu(
    further: tuple[str, ...], tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    job = tiny_job(*LONGER, *further)
    on_cpu = _train(job, tiny_dataset, tmp_path / "cpu", CPU)
    on_gpu = _train(job, tiny_dataset, tmp_path / "gpu", GPU)
    for name in ("train/loss", "val/loss", "train/grad_norm"):
        np.testing.assert_allclose(_series(on_gpu, name), _series(on_cpu, name), rtol=2e-3, err_msg=name)


@pytest.mark.usefixtures("same_noise")
@pytest.mark.parametrize("options", [("training.precision=auto",), ("training.compile=true",)])
def test_what_makes_steps_fast_keeps_the_curve(
    options: tuple[str, ...], tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    plain = _train(tiny_job(*LONGER), tiny_dataset, tmp_path / "plain", GPU)
    fast = _train(tiny_job(*LONGER, *options), tiny_dataset, tmp_path / "fast", GPU)
    np.testing.assert_allclose(_series(fast, "train/loss"), _series(plain, "train/loss"), rtol=0.05)
    assert load_file(tmp_path / "fast/model/model.safetensors").keys() == (
        load_file(tmp_path / "plain/model/model.safetensors").keys()
    )


@pytest.mark.parametrize("further", [(), ("training.precision=bf16",), ("training.compile=true",)])
def test_stopped_and_continued_equals_uninterrupted(
    further: tuple[str, ...], tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    job = tiny_job(*further)
    whole = _train(job, tiny_dataset, tmp_path / "whole", GPU)
    first = _train(job, tiny_dataset, tmp_path / "parts", GPU, until=4)
    second = _train(job, tiny_dataset, tmp_path / "parts", GPU)
    # not bit by bit: cuDNN's weight gradients add up in an order that changes
    np.testing.assert_allclose(
        _series(first, "train/loss") + _series(second, "train/loss"), _series(whole, "train/loss"), rtol=1e-2
    )


def test_a_checkpoint_of_a_gpu_goes_on_on_a_cpu_and_back(
    tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    job = tiny_job("training.precision=auto")
    _train(job, tiny_dataset, tmp_path, GPU, until=3)
    _train(job, tiny_dataset, tmp_path, CPU, until=6)
    last = _train(job, tiny_dataset, tmp_path, GPU)
    assert max(last.values) == 8
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.name.endswith("8")


@pytest.mark.parametrize("family", ["gan", "wgan", "lsgan"])
def test_gans_train(family: str, tiny_gan: Build, tiny_dataset: Dataset, tmp_path: Path) -> None:
    penalty = ("adversarial.gradient_penalty=10", "adversarial.n_critic=2") if family == "wgan" else ()
    found = _train(tiny_gan(f"model.family={family}", *penalty), tiny_dataset, tmp_path, GPU)
    assert np.isfinite(_series(found, "train/loss")).all()
    model, _ = load_model(tmp_path / "model", GPU)
    images = generate(model, None, SamplingConfig(sampler="generator"), range(5), 16, GPU)
    assert images.shape == (5, 16, 16)


def test_peak_memory_is_the_gpus(tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path) -> None:
    torch.cuda.reset_peak_memory_stats()
    found = _train(tiny_job(), tiny_dataset, tmp_path, GPU)
    assert _series(found, "train/peak_memory_mib")[-1] == pytest.approx(
        torch.cuda.max_memory_allocated() / 2**20, rel=0.5
    )
    assert _series(found, "train/peak_memory_mib")[-1] < 100  # the process itself takes gigabytes


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmsolver++", "sde-dpmsolver++"])
def test_an_image_does_not_depend_on_its_batch(sampler: str, model_dir: Path) -> None:
    model, saved = load_model(model_dir, GPU)
    sampling = SamplingConfig(sampler=sampler, num_inference_steps=6, batch_size=8)
    whole = generate(model, saved.diffusion, sampling, range(8), 16, GPU).int()
    alone = generate(model, saved.diffusion, sampling, [5], 16, GPU).int()
    assert (whole[5] - alone[0]).abs().max() <= 1
    assert (whole[5] - whole[4]).abs().max() > 1


@pytest.mark.parametrize("num_calls", [0, 10**9])
def test_drawing_in_bf16_compiled_or_not_is_close_to_float32_and_the_same_in_any_batch(
    num_calls: int, model_dir: Path
) -> None:
    file, generator = model_dir / "model.safetensors", torch.Generator().manual_seed(0)
    save_file({n: v + 0.05 * torch.randn(v.shape, generator=generator) for n, v in load_file(file).items()}, file)
    sampling = SamplingConfig(sampler="dpmsolver++", num_inference_steps=6, batch_size=4)

    def drawn(precision: NumberFormat, indices: Sequence[int]) -> torch.Tensor:
        network, saved = load_for_drawing(model_dir, precision, GPU, 4, num_calls)
        return generate(network, saved.diffusion, sampling, indices, 16, GPU).int()

    exact, fast = drawn("fp32", range(7)), drawn("bf16", range(7))
    assert 0 < (fast - exact).abs().float().mean() < 2
    assert (drawn("bf16", [5])[0] - fast[5]).abs().max() <= 1


def test_a_checkpoint_of_a_gpu_holds_the_moment_of_saving(tmp_path: Path) -> None:
    network = torch.nn.Linear(1000, 1000).to(GPU)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    network(torch.ones(1, 1000, device=GPU)).sum().backward()
    optimizer.step()
    before = network.weight.detach().cpu()
    with CheckpointWriter(tmp_path, keep=1) as writer:
        state = TrainingState(step=1, training_digest="d", dataset_version="v", initial_loss=None)
        writer.save(state, {"model": network}, {"optimizer": optimizer})
        for _ in range(20):
            optimizer.step()
        step, path = writer.finished(wait=True) or (0, tmp_path)
    assert step == 1
    assert torch.equal(load_file(path / "model.safetensors")["weight"], before)
    assert not torch.equal(network.weight.detach().cpu(), before)
