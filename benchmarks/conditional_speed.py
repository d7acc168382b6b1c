"""What conditions cost, as ratios in one run: a training step, and a step of classifier-free guidance.

    python benchmarks/conditional_speed.py [--json] [--job jobs/kaggle_conditional.yaml] [--rounds 60] [--batch-size 64]

Both sides of a ratio take turns, one step each a round, so that a disturbance of the machine meets both; figures are
medians of the rounds' ratios. A training step is the platform's own (`DenoisingStep.take`) on simulated slices of the
job's size, with and without `model.conditions`. A guided step calls the network with and without its condition: as one
doubled batch, as the samplers do, against two calls.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lwddpm.conditions import NULL
from lwddpm.config import TrainJob
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.store import Dataset
from lwddpm.jobfile import load_job
from lwddpm.models.precision import DrawingNetwork
from lwddpm.training.denoising import DenoisingStep
from lwddpm.training.schedule import Schedule

WARMUP_ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--job", default="kaggle_conditional", help="a training job with model.conditions")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=64, help="slices of a guided step")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["data.source=phantom", "data.phantom_count=200", f"data.path={Path(folder) / 'phantoms'}"]
        jobs = [load_job(given.job, [*overrides, *more]) for more in ([], _UNCONDITIONAL)]
        steps = []
        for job in jobs:
            assert isinstance(job, TrainJob)
            dataset = prepare_dataset(job.data, lambda function, items, **_: map(function, items))
            steps.append(_step(job, dataset))
        found = {
            "training step, conditional / unconditional": _ratio(*(_take(step) for step in steps), given.rounds),
            "guided step, doubled batch / two calls": _ratio(*_guided(steps[0], given.batch_size), given.rounds),
        }
    print(json.dumps(found) if given.json else "\n".join(f"{name}: {value:.3f}" for name, value in found.items()))


_UNCONDITIONAL = ("model.conditions=[]", "training.condition_dropout=null", "evaluation.guidance_from=auto")


def _step(job: TrainJob, dataset: Dataset) -> DenoisingStep:
    step = DenoisingStep(job, dataset, Schedule.of(job.training, dataset.num("train")), torch.device("cpu"))
    step.distribute()
    return step


def _take(step: DenoisingStep) -> Callable[[], Any]:
    numbers = iter(range(10**9))
    return lambda: step.take(next(numbers))


def _guided(step: DenoisingStep, batch_size: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The two ways to call a network with and without its condition."""
    network = DrawingNetwork(step.ema.model, step.precision)
    size = step.dataset.manifest.image_size
    x, timesteps = torch.randn(batch_size, 1, size, size), torch.full((batch_size,), 400)
    told, null = torch.zeros(batch_size, 1), torch.full((batch_size, 1), NULL)

    @torch.inference_mode()
    def doubled() -> Any:
        return network(torch.cat([x, x]), timesteps.repeat(2), torch.cat([told, null])).chunk(2)

    @torch.inference_mode()
    def apart() -> Any:
        return network(x, timesteps, told), network(x, timesteps, null)

    return doubled, apart


def _ratio(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> float:
    """Median of the ratios of CPU seconds, first / second, over rounds in which each is called once, in turns."""
    ratios = []
    for number in range(WARMUP_ROUNDS + rounds):
        seconds = {}
        for function in (first, second) if number % 2 else (second, first):
            start = time.process_time()
            function()
            seconds[function] = time.process_time() - start
        ratios.append(seconds[first] / seconds[second])
    return statistics.median(ratios[WARMUP_ROUNDS:])


if __name__ == "__main__":
    main()
