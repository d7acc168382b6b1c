"""What Muon costs, as ratios in one run: a training step beside one with Adam, and the update beside timm's.

    python benchmarks/optimizer_speed.py [--job best_small] [--set data.image_size=64] [--rounds 5] [--threads 1]

Sides take turns, each in a process of its own. A training step is the platform's own (`DenoisingStep.take`), on
simulated slices of the job's size. The update alone is that of the job's matrices, with gradients that stay.
"""

import argparse
import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from timm.optim import Muon as TimmMuon
from turns import Step, median_steps

from lwddpm.config import TrainJob
from lwddpm.data.prepare import prepare_dataset
from lwddpm.jobfile import load_job
from lwddpm.models.build import build_model
from lwddpm.training.allocator import tune_allocator
from lwddpm.training.denoising import DenoisingStep
from lwddpm.training.muon import Muon, is_matrix
from lwddpm.training.schedule import Schedule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", default="best_small", help="a diffusion training")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = ["data.source=phantom", "data.phantom_count=200", f"data.path={Path(folder) / 'phantoms'}"]
        overrides = [*data, *given.overrides]
        sides = {
            "adam": functools.partial(_training, given.job, [*overrides, "training.optimizer=adam"]),
            "muon": functools.partial(_training, given.job, [*overrides, "training.optimizer=muon"]),
            "update": functools.partial(_update, given.job, overrides, False),
            "timm's update": functools.partial(_update, given.job, overrides, True),
        }
        prepare_dataset(_job(given.job, overrides).data, lambda function, items, **_: map(function, items))
        seconds = {name: median for name, (median, _) in median_steps(sides, given.rounds, given.threads).items()}
    found = {
        **{f"ms: {name}": 1000 * value for name, value in seconds.items()},
        "training step, Muon / Adam": seconds["muon"] / seconds["adam"],
        "update, timm's / this": seconds["timm's update"] / seconds["update"],
    }
    print(json.dumps(found) if given.json else "\n".join(f"{name}: {value:.3g}" for name, value in found.items()))


def _job(name: str, overrides: Sequence[str]) -> TrainJob:
    job = load_job(name, overrides)
    assert isinstance(job, TrainJob)
    return job


def _training(name: str, overrides: Sequence[str]) -> tuple[Step, None]:
    tune_allocator()
    job = _job(name, overrides)
    dataset = prepare_dataset(job.data, lambda function, items, **_: map(function, items))
    step = DenoisingStep(job, dataset, Schedule.of(job.training, dataset.num("train")), torch.device("cpu"))
    step.distribute()
    return lambda: step.take(0), None


def _update(name: str, overrides: Sequence[str], timms: bool) -> tuple[Step, None]:
    job = _job(name, overrides)
    matrices = [p for p in build_model(job.model, job.data.image_size).parameters() if is_matrix(p)]
    for matrix in matrices:
        matrix.grad = torch.randn_like(matrix)
    if timms:
        return TimmMuon(matrices, lr=1e-4, nesterov=True, ns_coefficients="original").step, None
    return Muon(matrices, lr=1e-4).step, None


if __name__ == "__main__":
    main()
