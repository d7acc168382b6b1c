"""The loop as the platform runs it, without Ray: what it learns, how it stops, continues and shares a batch."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import CheckpointError, JobError
from lwddpm.training.checkpoint import latest_checkpoint, load_model
from lwddpm.training.loop import train

CPU = torch.device("cpu")
Build = Callable[..., TrainJob]


class Recorder:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.values: dict[int, dict[str, float]] = {}
        self.drawn: list[tuple[int, np.ndarray]] = []
        self.saved: list[int] = []

    def metrics(self, rows: dict[int, dict[str, float]]) -> None:
        for step, values in rows.items():
            self.values.setdefault(step, {}).update(values)

    def images(self, step: int, epoch: float, images: np.ndarray) -> None:
        self.drawn.append((step, images))

    def checkpoint(self, step: int, path: Path) -> None:
        self.saved.append(step)

    def losses(self) -> dict[int, float]:
        return {step: values["train/loss"] for step, values in self.values.items() if "train/loss" in values}


def _train(job: TrainJob, dataset: Dataset, folder: Path, **options: object) -> Recorder:
    recorder = Recorder()
    train(job, dataset, folder, recorder, CPU, **options)  # type: ignore[arg-type]
    return recorder


def test_the_loss_falls_and_everything_is_reported(tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path) -> None:
    job = tiny_job("training.max_steps=60", "training.lr=4e-3", "training.snapshot_epochs=[2]")
    recorder = _train(job, tiny_dataset, tmp_path)
    losses = recorder.losses()
    assert sorted(losses) == list(range(1, 61))
    validation = [values["val/loss"] for values in recorder.values.values() if "val/loss" in values]
    assert validation[-1] < 0.8 * validation[0]
    last = recorder.values[60]
    assert {"train/grad_norm", "train/lr", "train/images_per_s", "train/epoch", "val/loss"} <= last.keys()
    assert recorder.saved[-1] == 60
    assert [step for step, _ in recorder.drawn] == [12, 60]  # epoch 2 of 6 steps, and the end
    assert all(images.shape == (16, 16, 16) and images.dtype == np.uint8 for _, images in recorder.drawn)
    _, saved = load_model(tmp_path / "model")
    assert (saved.step, saved.dataset_version) == (60, tiny_dataset.version)
    assert load_model(tmp_path / "snapshots" / "epoch_2")[1].step == 12


@pytest.mark.parametrize("channels_last", ["true", "false"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stopped_and_continued_equals_uninterrupted(
    precision: str, channels_last: str, tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    formats = (f"training.precision={precision}", f"training.channels_last={channels_last}")
    job = tiny_job("training.lr_schedule=cosine", "training.warmup_steps=3", *formats)
    whole = _train(job, tiny_dataset, tmp_path / "whole")
    calls = iter([False] * 4 + [True] * 2)
    first = _train(job, tiny_dataset, tmp_path / "parts", should_stop=lambda: next(calls))
    stopped_at = max(first.losses())
    assert stopped_at < 8
    second = _train(job, tiny_dataset, tmp_path / "parts")
    assert min(second.losses()) == stopped_at + 1
    assert first.losses() | second.losses() == whole.losses()
    for file in ("model.safetensors", "ema.safetensors", "optimizer.safetensors"):
        a, b = (load_file(latest_checkpoint(tmp_path / part) / file) for part in ("whole", "parts"))  # type: ignore[operator]
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def _start(job: TrainJob, dataset: Dataset, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    job_file = folder / "job.json"
    job_file.write_text(job.model_dump_json())
    worker = Path(__file__).with_name("worker.py")
    return subprocess.Popen([sys.executable, worker, job_file, dataset.path, folder, *arguments])


def test_killed_and_continued_equals_uninterrupted(tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path) -> None:
    job = tiny_job()
    whole = _train(job, tiny_dataset, tmp_path / "whole")
    assert _start(job, tiny_dataset, tmp_path / "parts", "kill", "5").wait() == -signal.SIGKILL
    assert not (tmp_path / "parts" / "model").exists()
    rest = _train(job, tiny_dataset, tmp_path / "parts")
    assert 1 < min(rest.losses()) <= 6
    assert rest.losses().items() <= whole.losses().items()
    a, b = (load_file(tmp_path / part / "model" / "model.safetensors") for part in ("whole", "parts"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def _train_on(world: int, job: TrainJob, dataset: Dataset, folder: Path) -> dict[int, dict[str, float]]:
    """Values by step, from as many processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ranks = [_start(job, dataset, folder, "rank", str(rank), str(world), port) for rank in range(world)]
    assert [rank.wait() for rank in ranks] == [0] * world
    return {int(step): values for step, values in json.loads((folder / "values.json").read_text()).items()}


def test_several_processes_follow_the_loss_curve_of_one(tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path) -> None:
    one = _train(tiny_job(), tiny_dataset, tmp_path / "one")
    accumulated = _train(tiny_job("training.grad_accumulation_steps=4"), tiny_dataset, tmp_path / "accumulated")
    two = _train_on(2, tiny_job("workers.count=2"), tiny_dataset, tmp_path / "two")
    # 8 images over 3 workers and 2 chunks: shares of 2, 3 and 3, chunks of 1 and 2
    elastic = tiny_job("workers.count={max: 3}", "training.grad_accumulation_steps=2")
    three = _train_on(3, elastic, tiny_dataset, tmp_path / "three")
    for name in ("train/loss", "train/grad_norm", "val/loss"):
        for step, values in one.values.items():
            if name in values:
                for other in (two, three, accumulated.values):
                    assert other[step][name] == pytest.approx(values[name], rel=2e-4), (name, step)


def test_a_diverging_run_stops_and_names_step_and_setting(
    tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    job = tiny_job("training.lr=1", "training.max_grad_norm=null", "training.max_steps=200")
    with pytest.raises(JobError, match=r"diverged at step \d+: .*max_grad_norm: 1.0.*training\.lr \(now 1\)"):
        _train(job, tiny_dataset, tmp_path)
    assert not (tmp_path / "model").exists()


def test_nan_is_reported_with_its_step_and_never_saved(
    tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lwddpm.diffusion.process import DiffusionProcess

    losses, calls = DiffusionProcess.losses, iter(range(1, 100))

    def poisoned(self: DiffusionProcess, *inputs: torch.Tensor) -> torch.Tensor:
        return losses(self, *inputs) * (float("nan") if next(calls) == 2 else 1.0)

    monkeypatch.setattr(DiffusionProcess, "losses", poisoned)
    with pytest.raises(JobError, match=r"diverged at step 2: the loss is nan"):
        _train(tiny_job("training.checkpoint_every_epochs=1"), tiny_dataset, tmp_path)
    assert latest_checkpoint(tmp_path) is None


def test_a_run_is_not_continued_with_other_settings(tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path) -> None:
    _train(tiny_job(), tiny_dataset, tmp_path)
    with pytest.raises(CheckpointError, match=r"job settings.*--fresh"):
        _train(tiny_job("training.lr=1e-5"), tiny_dataset, tmp_path)
