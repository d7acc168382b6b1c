"""CPU time of a training step on crops against one on whole slices, as ratios in one run: docs/model.md.

    python benchmarks/crop_speed.py datasets/NAME jobs/best_small.yaml [--set KEY=VALUE] [--sizes 0.5] [--rounds 20]

Steps of the job as it is, with coordinates, and on crops alone take turns in one process on one thread. CPU seconds,
not those of the clock, which say little beside other work on the machine.
"""

import argparse
import statistics
import time

import torch
from records import training_step

from lwddpm.config import TrainJob
from lwddpm.data.store import open_dataset
from lwddpm.jobfile import load_job

WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="the prepared dataset of the job")
    parser.add_argument("job", help="job file of a diffusion model, without training.patches")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.5], help="of crops, as parts of the side")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each")
    given = parser.parse_args()
    torch.set_num_threads(1)
    image_size = open_dataset(given.dataset).manifest.image_size
    variants = {"whole slices": [], "whole slices, with coordinates": ["model.coordinates=true"]}
    for size in given.sizes:
        variants[f"crops of {size:g} of the side"] = [f"training.patches={{share: 1, size: {size}}}"]
    steps = {}
    for name, overrides in variants.items():
        job = load_job(given.job, [*given.overrides, f"data.image_size={image_size}", *overrides])
        if not isinstance(job, TrainJob):
            parser.error(f"takes a training, got kind {job.kind}")
        steps[name] = training_step(job, given.dataset)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(WARM_UP + given.rounds):
        for name, (step, (_, taken)) in steps.items():
            start = time.process_time()
            step()
            if number >= WARM_UP:
                seconds[name].append((time.process_time() - start) / taken)
    print(f"A training step, {image_size} x {image_size}, one thread, median of {given.rounds} turns")
    whole = statistics.median(seconds["whole slices"])
    for name, of_turns in seconds.items():
        each = statistics.median(of_turns)
        print(f"  {name:32} {1000 * each:8.1f} ms  {each / whole:.2f} of one on whole slices")


if __name__ == "__main__":
    main()
