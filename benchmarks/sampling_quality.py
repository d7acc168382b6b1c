"""Quality of one trained model by sampler, number of steps and start: the tables of docs/sampling.md.

    python benchmarks/sampling_quality.py runs/kaggle-small-XXXX/model datasets/NAME --samples 300 --reference 600

Nothing is trained. A model without a prior gets one for the measurement; its folder stays as it is.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from lwddpm.config import SamplingConfig
from lwddpm.data.store import open_dataset
from lwddpm.diffusion.sampling import generate
from lwddpm.evaluation.distances import ReferenceStatistics
from lwddpm.evaluation.features import load_extractor
from lwddpm.evaluation.subset import random_subset
from lwddpm.training.fitted_prior import calibrated_for, prior_of
from lwddpm.training.stored_model import load_model
from lwddpm.training.stored_prior import read_prior

STEPS = {"dpmsolver++": (3, 5, 10, 20), "ddim": (5, 20, 50), "sde-dpmsolver++": (8, 20), "ddpm": (50,)}
STARTS = {"noise": {"start": "noise"}, "gaussian": {}, "gaussian, calibrated": {"calibrate": True}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder with config.json and model.safetensors")
    parser.add_argument("dataset", help="the prepared dataset that it was trained on")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--reference", type=int, help="training slices compared with; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samplers", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--steps", type=int, nargs="+", help="default: of each sampler its own")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = open_dataset(given.dataset)
    network, saved = load_model(given.model, device)
    if saved.diffusion is None:
        parser.error("takes a diffusion model")
    prior = read_prior(given.model, saved.image_size) or prior_of(dataset, saved.diffusion, saved.conditions)
    if prior is None:
        parser.error("takes a dataset of 32 or more training slices")
    if not prior.trust.any():  # not a student's: it has that of its teacher
        began = time.perf_counter()
        prior = calibrated_for(prior.to(device), network, saved.diffusion, dataset)
        print(f"calibrated in {time.perf_counter() - began:.1f} s")
    print(f"prior of {len(prior.directions)} directions and {len(prior.weights)} components\n")

    extract = load_extractor("fd_lite0", device=torch.device(device))
    train = dataset.images("train")
    reference = ReferenceStatistics.of(extract(torch.from_numpy(np.array(random_subset(train, given.reference)))))
    held_out = np.concatenate([dataset.images("validation"), dataset.images("test")])
    floor = reference.distance(extract(torch.from_numpy(random_subset(held_out, given.samples))))
    brightness = train.reshape(len(train), -1).mean(1)
    low, high = np.quantile(brightness, [0.01, 0.99])
    print(f"fd_lite0 of {given.samples} slices against {given.reference or len(train)}, floor {floor:.1f}\n")
    print("| sampler | calls | start | fd_lite0 (each seed) | too bright | too dark | spread of brightness |")
    print("|---|---:|---|---|---:|---:|---:|")
    for sampler in given.samplers:
        for steps in given.steps or STEPS[sampler]:
            for name in given.starts:
                distances, means = [], []
                for seed in given.seeds:
                    sampling = SamplingConfig(sampler=sampler, num_inference_steps=steps, seed=seed, **STARTS[name])
                    images = generate(
                        network, saved.diffusion, sampling, range(given.samples), saved.image_size, device, prior=prior
                    )
                    distances.append(reference.distance(extract(images)))
                    means.append(images.flatten(1).float().mean(1).numpy())
                drawn = np.concatenate(means)
                spread = np.mean([part.std() for part in means]) / brightness.std()
                each = ", ".join(f"{distance:.1f}" for distance in distances)
                print(
                    f"| {sampler} | {steps} | {name} | {np.mean(distances):.1f} ({each}) | {(drawn > high).mean():.1%} "
                    f"| {(drawn < low).mean():.1%} | {spread:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
