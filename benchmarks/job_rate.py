"""Images a second of the first steps of a training job, with all of its settings, in the platform's own loop.

    python benchmarks/job_rate.py jobs/best.yaml [--set KEY=VALUE ...] [--steps 400] [--device cuda] [--json]

The dataset of `data.path` must be prepared. Nothing is logged or kept. The rate is the median of the second half of the
logged windows, so compiling and warming up do not count; the seconds until the first window say what they took. The
length of the job decides whether it compiles, and stays; `--steps` of it are made.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from lwddpm.config import TrainJob
from lwddpm.data.store import open_dataset
from lwddpm.jobfile import load_job
from lwddpm.training.allocator import tune_allocator
from lwddpm.training.loop import train
from lwddpm.training.reporter import SilentReporter


class Rates(SilentReporter):
    """Images a second of every window, its loss, and when the first one came."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.images_per_s: list[float] = []
        self.losses: dict[int, float] = {}
        self.first_window_s = 0.0

    def metrics(self, rows: dict[int, dict[str, float]]) -> None:
        rates = [values["train/images_per_s"] for values in rows.values() if "train/images_per_s" in values]
        if rates and not self.images_per_s:
            self.first_window_s = time.perf_counter() - self.began
        self.images_per_s += rates
        losses = [values["train/loss"] for values in rows.values() if "train/loss" in values]
        if losses:
            self.losses[max(rows)] = statistics.mean(losses)


def measure(job: TrainJob, steps: int, device: torch.device) -> dict[str, Any]:
    tune_allocator()
    rates = Rates()
    with tempfile.TemporaryDirectory() as folder:
        train(job, open_dataset(job.data.path), Path(folder), rates, device, until=steps)
    return {
        "job": job.name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "batch_size": job.training.batch_size,
        "images_per_s": statistics.median(rates.images_per_s[len(rates.images_per_s) // 2 :]),
        "first_window_s": rates.first_window_s,
        "losses": rates.losses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    still = ["training.checkpoint_every_epochs=1e9", "training.snapshot_epochs=[]", "training.validation_samples=0"]
    job = load_job(given.job, [*given.set, *still, "registry=null"])
    if not isinstance(job, TrainJob):
        parser.error(f"{given.job}: must be a train job")
    result = measure(job, given.steps, torch.device(given.device, 0) if given.device == "cuda" else torch.device("cpu"))
    if given.json:
        print(json.dumps(result))
        return
    print(
        f"{result['job']} on {result['device']}: {result['images_per_s']:,.1f} images/s at batch {result['batch_size']}"
    )
    print(f"first window after {result['first_window_s']:.1f} s")


if __name__ == "__main__":
    main()
