"""Quality of one trained model with guidance by its earlier snapshots, beside as many calls without: docs/sampling.md.

    python benchmarks/guidance_quality.py runs/best-small-XXXX datasets/NAME --guides epoch_8 --weights 1.6 --steps 10

Takes the run folder of a training with snapshots; nothing is trained and the folder stays as it is. Choose settings on
other seeds than those that are reported.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch

from lwddpm.config import SamplingConfig
from lwddpm.data.store import open_dataset
from lwddpm.diffusion.sampling import generate
from lwddpm.diffusion.timesteps import network_calls, steps_within
from lwddpm.evaluation.copying import nearest_median
from lwddpm.evaluation.distances import ReferenceStatistics
from lwddpm.evaluation.features import load_extractor
from lwddpm.evaluation.neighbours import Neighbours
from lwddpm.evaluation.subset import random_subset
from lwddpm.training.fitted_prior import calibrated_for, prior_of
from lwddpm.training.stored_model import load_model
from lwddpm.training.stored_prior import read_prior


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder, with model/ and snapshots/")
    parser.add_argument("dataset", help="the prepared dataset that it was trained on")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--reference", type=int, help="training slices compared with; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sampler", default="dpmsolver++")
    parser.add_argument("--steps", type=int, nargs="+", default=[10])
    parser.add_argument("--starts", nargs="+", choices=("noise", "gaussian"), default=["noise"])
    parser.add_argument("--guides", nargs="+", help="folders in snapshots/; default: all")
    parser.add_argument("--weights", type=float, nargs="+", default=[1.6])
    parser.add_argument("--interval", type=float, nargs=2, action="append", help="of sigma; may be repeated")
    parser.add_argument("--bf16", action="store_true", help="draw in bf16, as training computes where that is fast")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = open_dataset(given.dataset)
    network, saved = load_model(given.run / "model", device)
    if saved.diffusion is None:
        parser.error("takes a diffusion model")
    names = given.guides or sorted(path.name for path in (given.run / "snapshots").iterdir())
    guides = {name: load_model(given.run / "snapshots" / name, device)[0] for name in names}
    prior = read_prior(given.run / "model", saved.image_size) or prior_of(dataset, saved.diffusion, saved.conditions)
    if prior is not None and not prior.trust.any():  # a model of earlier versions gets one for the measurement
        prior = calibrated_for(prior.to(device), network, saved.diffusion, dataset)

    extract = load_extractor("fd_lite0", device=torch.device(device))
    train = np.array(dataset.images("train"))
    reference = ReferenceStatistics.of(extract(torch.from_numpy(np.array(random_subset(train, given.reference)))))
    real = extract(torch.from_numpy(np.array(random_subset(train, given.samples))))
    held_out = torch.from_numpy(
        random_subset(np.concatenate([dataset.images("validation"), dataset.images("test")]), given.samples)
    )
    features = extract(held_out)
    floor = Neighbours(real, features)
    print(f"{given.samples} slices against {given.reference or len(train)} training slices\n")
    columns = (
        "guide | w | sigma | start | steps | calls | fd_lite0 (each seed) | precision | recall | coverage | nearest"
    )
    print(f"| {columns} |\n|---|---:|---|---|---:|---:|---|---:|---:|---:|---:|")

    def row(name: str, sampling: SamplingConfig) -> None:
        figures = []
        for seed in given.seeds:
            seeded = sampling.model_copy(update={"seed": seed})
            with torch.autocast(device, torch.bfloat16, enabled=given.bf16):
                images = generate(
                    network,
                    saved.diffusion,
                    seeded,
                    range(given.samples),
                    saved.image_size,
                    device,
                    prior=prior,
                    guide=guides.get(name),
                )
            drawn = extract(images)
            among = Neighbours(real, drawn)
            figures.append(
                (
                    reference.distance(drawn),
                    among.precision(),
                    among.recall(),
                    among.coverage(),
                    nearest_median(images.numpy(), train),
                )
            )
        mean = np.mean(figures, axis=0)
        each = ", ".join(f"{figure[0]:.1f}" for figure in figures)
        between = "all" if sampling.guidance_interval is None else "{:g} to {:g}".format(*sampling.guidance_interval)
        guided = f"{name} | {sampling.guidance:g} | {between}" if name else "none | 1 | -"
        print(
            f"| {guided} | {sampling.start} | {sampling.num_inference_steps} "
            f"| {network_calls(saved.diffusion, sampling, prior)} | {mean[0]:.1f} ({each}) "
            f"| {mean[1]:.2f} | {mean[2]:.2f} | {mean[3]:.2f} | {mean[4]:.1f} |",
            flush=True,
        )

    for start, steps in itertools.product(given.starts, given.steps):
        plain = SamplingConfig(sampler=given.sampler, num_inference_steps=steps, start=start, batch_size=100)
        calls = set()
        for name, weight, interval in itertools.product(names, given.weights, given.interval or [None]):
            changes = {"guidance": weight, "guidance_interval": tuple(interval) if interval else None}
            row(name, guided := plain.model_copy(update=changes))
            calls.add(network_calls(saved.diffusion, guided, prior))
        for number in sorted(calls):
            row("", plain.model_copy(update={"num_inference_steps": steps_within(number, given.sampler)}))
    print(
        f"| real held-out slices | | | | | | {reference.distance(features):.1f} | {floor.precision():.2f} "
        f"| {floor.recall():.2f} | {floor.coverage():.2f} | {nearest_median(held_out.numpy(), train):.1f} |"
    )


if __name__ == "__main__":
    main()
