"""What the number format of drawing costs and gains: float32 as it always was against what `auto` chooses, in one run.

    python benchmarks/drawing_speed.py [MODEL] [--dataset DATASET] [--json] [--device cuda] [--compile]

MODEL is a folder with a diffusion model; without one the paper's network, untrained, draws 128x128 slices. The two
formats take turns, so that a disturbance of the machine meets both; the ratio is of medians. An image-step is one call
of the network for one slice.

With --dataset (the one that the model was trained on) both draw the same slices too: their `fd_lite0` for each sampling
seed, and how far the pixels lie apart.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lwddpm.config import DiffusionConfig, ModelConfig, SamplingConfig
from lwddpm.data.store import open_dataset
from lwddpm.diffusion.prior import Prior
from lwddpm.diffusion.sampling import generate
from lwddpm.evaluation.distances import ReferenceStatistics
from lwddpm.evaluation.features import load_extractor
from lwddpm.evaluation.subset import random_subset
from lwddpm.models.build import build_model
from lwddpm.models.precision import DrawingNetwork, drawing_precision, settled_precision
from lwddpm.training.stored_model import load_model
from lwddpm.training.stored_prior import read_prior

PAPERS_SIZE = 128
LONG = 10**9  # calls: a drawing for which compiling pays


class Model:
    """A network in both number formats; each has its own copy, since their layouts differ."""

    def __init__(self, folder: Path | None, device: torch.device, batch_size: int, compiled: bool) -> None:
        self.device, self.auto = device, settled_precision("auto", device)
        self.prior: Prior | None = None
        self.networks = {}
        for name in ("fp32", "auto"):
            if folder is None:
                config, self.image_size = ModelConfig(), PAPERS_SIZE
                self.diffusion = DiffusionConfig()
                network = build_model(config).to(device).eval().requires_grad_(False)
            else:
                network, saved = load_model(folder, device)
                if saved.diffusion is None:
                    raise SystemExit(f"{folder}: must be a diffusion model")
                config, self.diffusion, self.image_size = saved.model, saved.diffusion, saved.image_size
                self.prior = read_prior(folder, saved.image_size)
            chosen = drawing_precision(
                "fp32" if name == "fp32" else self.auto, config, device, LONG if compiled and name == "auto" else 0
            )
            self.networks[name] = DrawingNetwork(network, chosen, batch_size)

    def draw(self, name: str, sampling: SamplingConfig, count: int) -> torch.Tensor:
        network, size = self.networks[name], self.image_size
        return generate(network, self.diffusion, sampling, range(count), size, self.device, prior=self.prior)


def speed(model: Model, sampling: SamplingConfig, rounds: int) -> dict[str, Any]:
    """Image-steps a second in each format, and their ratio."""
    # from noise: a start from the prior makes fewer calls than there are steps
    sampling = sampling.model_copy(update={"start": "noise", "calibrate": False})
    seconds: dict[str, list[float]] = {name: [] for name in model.networks}
    for number in range(rounds + 1):
        for name, values in seconds.items():
            start = time.perf_counter()
            model.draw(name, sampling, sampling.batch_size)
            if number:  # the first round warms up
                values.append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    steps = sampling.batch_size * sampling.num_inference_steps
    return {
        "image_size": model.image_size,
        "batch_size": sampling.batch_size,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "auto": model.auto,
        "image_steps_per_s": {name: steps / value for name, value in medians.items()},
        "ratio": medians["fp32"] / medians["auto"],
    }


def quality(
    model: Model, sampling: SamplingConfig, path: str, samples: int, num_reference: int | None, seeds: list[int]
) -> dict[str, Any]:
    """`fd_lite0` in each format for each sampling seed, and the differences of pixels, in grey levels."""
    dataset, extract = open_dataset(path), load_extractor("fd_lite0", device=model.device)
    reference = ReferenceStatistics.of(extract(np.array(random_subset(dataset.images("train"), num_reference))))
    distances: dict[str, list[float]] = {name: [] for name in model.networks}
    apart, farthest = [], 0
    for seed in seeds:
        drawn = {}
        for name, values in distances.items():
            drawn[name] = model.draw(name, sampling.model_copy(update={"seed": seed}), samples)
            values.append(reference.distance(extract(drawn[name])))
        difference = (drawn["fp32"].int() - drawn["auto"].int()).abs()
        apart.append(difference.float().mean().item())
        farthest = max(farthest, int(difference.max()))
    return {"fd_lite0": distances, "grey_levels_apart": statistics.mean(apart), "largest": farthest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--dataset")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--reference", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sampler", default="dpmsolver++")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--compile", action="store_true", help="auto compiles, as in a long drawing on a GPU")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    model = Model(given.model, torch.device(given.device), given.batch_size, given.compile)
    sampling = SamplingConfig(sampler=given.sampler, num_inference_steps=given.steps, batch_size=given.batch_size)
    result = speed(model, sampling, given.rounds)
    if given.dataset:
        result |= quality(model, sampling, given.dataset, given.samples, given.reference, given.seeds)
    if given.json:
        print(json.dumps(result))
        return
    rates = ", ".join(f"{name} {rate:,.1f}" for name, rate in result["image_steps_per_s"].items())
    print(f"{model.image_size} px, batches of {given.batch_size}, {given.device}; auto is {model.auto}")
    print(f"image-steps/s: {rates}; ratio {result['ratio']:.2f}")
    if given.dataset:
        for name, distances in result["fd_lite0"].items():
            each = ", ".join(f"{distance:.1f}" for distance in distances)
            print(f"fd_lite0 {name}: {statistics.mean(distances):.1f} ({each})")
        print(f"pixels lie {result['grey_levels_apart']:.2f} grey levels apart on average, {result['largest']} at most")


if __name__ == "__main__":
    main()
