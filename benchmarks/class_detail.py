"""At which noise levels a conditional model loses the class of a slice: real ones noised, and drawn on by the model.

    python benchmarks/class_detail.py runs/kaggle-conditional-XXXX/model datasets/NAME

Real test slices are noised to a timestep and drawn to the end in at most ten steps of DDIM, once told their own class
and once told the next one. Judges of obedience say what comes out. Nothing is trained.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from lwddpm.config import EvaluationConfig, SamplingConfig
from lwddpm.data.store import open_dataset
from lwddpm.diffusion.chain import denoise
from lwddpm.diffusion.intensity import from_uint8, to_uint8
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.diffusion.sampling import vocabulary_in
from lwddpm.diffusion.streams import noise_streams
from lwddpm.diffusion.timesteps import visited_timesteps
from lwddpm.evaluation.features import load_extractor
from lwddpm.evaluation.inputs import MetricInputs
from lwddpm.evaluation.obedience import EXTRACTOR, judges_of
from lwddpm.evaluation.subset import random_subset
from lwddpm.training.stored_model import load_model

TIMESTEPS = (20, 50, 100, 250, 400, 550, 700, 850)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a model with model.conditions: [label]")
    parser.add_argument("dataset", help="the prepared dataset that it was trained on")
    parser.add_argument("--slices", type=int, default=200, help="of the test split")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = open_dataset(given.dataset)
    network, saved = load_model(given.model, device)
    vocabulary = vocabulary_in(network)
    if saved.diffusion is None or vocabulary is None or vocabulary.classes is None:
        parser.error("takes a diffusion model that is told the class")
    network.eval()
    process, gamma = DiffusionProcess(saved.diffusion).to(device), saved.diffusion.intensity_gamma
    extract = load_extractor(EXTRACTOR, device=device)
    real, classes = (random_subset(rows, given.slices) for rows in (dataset.images("test"), dataset.labels("test")))
    inputs = MetricInputs(
        real,
        real,
        dataset,
        EvaluationConfig(),
        lambda name, images: extract(torch.from_numpy(np.array(images))),
    )
    judges, num_classes = judges_of(inputs), len(dataset.label_names)

    def named(images: np.ndarray, wanted: np.ndarray) -> float:
        return float((judges.judge(extract(torch.from_numpy(images))) == wanted).mean())

    x_0 = from_uint8(torch.from_numpy(np.array(real))[:, None], gamma).to(device)
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0)).to(device)
    print(f"{len(real)} real test slices: {named(np.array(real), classes):.2f} are named as their class\n")
    print("| noised to sigma | told their class | told the next: named as that | named as their own |")
    print("|---:|---:|---:|---:|")
    for timestep in TIMESTEPS:
        noised = process.q_sample(x_0, torch.full((len(x_0),), timestep, device=device), noise)
        visited = visited_timesteps(timestep + 1, min(timestep + 1, 10))
        sampling = SamplingConfig(sampler="ddim", num_inference_steps=len(visited))
        shares = []
        for told in (classes, (classes + 1) % num_classes):
            asked = torch.full((len(told), len(vocabulary.conditions)), torch.nan)
            asked[:, vocabulary.conditions.index(vocabulary.classes)] = torch.from_numpy(told).float()
            streams = noise_streams(0, range(len(told)))
            with torch.inference_mode():
                drawn = denoise(network, process, sampling, visited, noised, streams, given=asked.to(device))
            images = to_uint8(drawn[:, 0], gamma).cpu().numpy()
            shares += [named(images, told), named(images, classes)]
        own, _, other, still = shares
        sigma = float(process.noise[timestep] / process.signal[timestep])
        print(f"| {sigma:.2g} | {own:.2f} | {other:.2f} | {still:.2f} |", flush=True)


if __name__ == "__main__":
    main()
