"""What a system costs: throughput and memory of training, and time to sample, each time in a process of its own.

Numbers logged during long trainings depend on what else the machine was doing then, and a process remembers its peak
memory; short measurements in turn, in fresh processes, can be compared with each other.
"""

import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from lwddpm.cluster.generate import generate_images
from lwddpm.cluster.session import Session
from lwddpm.config import SamplingConfig, TrainJob, WorkersConfig
from lwddpm.data.store import open_dataset
from lwddpm.diffusion.gaussian import SliceGaussian
from lwddpm.training.allocator import tune_allocator
from lwddpm.training.loop import train
from lwddpm.training.reporter import SilentReporter

NUM_SAMPLES = 64
_WARM_UP_STEPS = 4


@dataclass(frozen=True)
class CostTask:
    """What is measured, as plain data.

    Attributes:
        job: the training; only its first steps are made.
        model_dir: the trained model, which is sampled.
    """

    job: dict[str, Any]
    dataset: str
    model_dir: str
    sampling: SamplingConfig
    steps: int
    threads: int
    device: str


class _Throughput(SilentReporter):
    """Keeps what is reported of speed."""

    def __init__(self) -> None:
        self.images_per_s: list[float] = []

    def metrics(self, rows: dict[int, dict[str, float]]) -> None:
        self.images_per_s += [v["train/images_per_s"] for v in rows.values() if "train/images_per_s" in v]


def measure_cost(
    job: TrainJob, dataset_path: str, model_dir: Path, sampling: SamplingConfig, steps: int, session: Session
) -> dict[str, float]:
    """Train a few steps and draw 64 slices in a fresh process with one worker's resources.

    Args:
        steps: optimizer steps that are timed; 0 measures sampling alone.

    Returns:
        images_per_s, peak_memory_mib (of a GPU; else of the process, above what it held when idle), seconds_per_64;
        the last alone where `steps` is 0.
    """
    task = CostTask(
        job=shortened(job, steps).model_dump(mode="json"),
        dataset=dataset_path,
        model_dir=str(model_dir),
        sampling=sampling,
        steps=steps,
        threads=session.cpus_per_worker,
        device=session.model_device,
    )
    return session.fresh_process(_measure, task)


def measure_gaussian_cost(gaussian: SliceGaussian, session: Session) -> dict[str, float]:
    """Draw 64 slices of a fitted Gaussian in a fresh process, as `measure_cost` does with a model; seconds_per_64."""
    arrays = gaussian.mean.numpy(), gaussian.axes.numpy()
    return session.fresh_process(_time_gaussian, (arrays, session.cpus_per_worker))


def _time_gaussian(task: tuple[tuple[np.ndarray, np.ndarray], int]) -> dict[str, float]:
    arrays, threads = task
    torch.set_num_threads(threads)
    mean, axes = map(torch.tensor, arrays)
    gaussian = SliceGaussian(mean, axes)
    gaussian.draw(range(2), 0)  # warms up
    start = time.perf_counter()
    gaussian.draw(range(NUM_SAMPLES), 0)
    return {"seconds_per_64": time.perf_counter() - start}


def shortened(job: TrainJob, steps: int) -> TrainJob:
    """The first steps of a training, on one worker with one worker's share of the batch.

    The batch of an elastic group need not divide evenly over its workers and the chunks of each: the share is rounded
    down to whole chunks, which leaves one that divides evenly as it is.
    """
    chunks = job.training.grad_accumulation_steps
    share = max(1, job.training.batch_size // (job.workers.max_count * chunks)) * chunks
    values = job.model_dump(mode="json")
    values["training"] |= {
        "epochs": None,
        "max_steps": _WARM_UP_STEPS + steps,
        "log_every_steps": _WARM_UP_STEPS,
        "snapshot_epochs": [],
        "guide_epoch": None,
        "validation_samples": 0,
        "compile": False,  # compiling takes longer than what is timed here
        "batch_size": share,
        "checkpoint_every_epochs": 1e9,
    }
    values["workers"]["count"] = 1
    return TrainJob.model_validate(values)


def _measure(task: CostTask) -> dict[str, float]:
    tune_allocator()
    torch.set_num_threads(task.threads)
    device = torch.device(task.device, 0) if task.device == "cuda" else torch.device(task.device)
    job, dataset = TrainJob.model_validate(task.job), open_dataset(task.dataset)
    dataset.images("train")
    reporter, costs = _Throughput(), {}
    if task.steps:
        with tempfile.TemporaryDirectory() as folder, _PeakMemory(device) as peak:
            train(job, dataset, Path(folder), reporter, device)
        rates = reporter.images_per_s[1:]  # the first window warms up
        costs = {"images_per_s": float(np.median(rates)), "peak_memory_mib": peak.mib}
    here = Session.inside_ray(WorkersConfig(use_gpu=device.type == "cuda"))
    model_dir, sampling = Path(task.model_dir), task.sampling.model_copy(update={"batch_size": NUM_SAMPLES})
    generate_images(
        model_dir,
        sampling.model_copy(update={"num_inference_steps": min(2, sampling.num_inference_steps)}),
        NUM_SAMPLES,
        here,
    )  # warms up
    start = time.perf_counter()
    generate_images(model_dir, sampling, NUM_SAMPLES, here)
    return costs | {"seconds_per_64": time.perf_counter() - start}


class _PeakMemory:
    """Peak memory within the block."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._idle = self._peak = 0

    def __enter__(self) -> "_PeakMemory":
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            self._idle = psutil.Process().memory_info().rss
        return self

    def __exit__(self, *error: object) -> None:
        self._peak = torch.cuda.max_memory_allocated() if self._on_gpu else _peak_of_process()

    @property
    def mib(self) -> float:
        return max(0.0, (self._peak - self._idle) / 2**20)


def _peak_of_process() -> int:
    """Bytes. Not getrusage on Linux: there a spawned process begins with the peak of the one that spawned it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 2**10
