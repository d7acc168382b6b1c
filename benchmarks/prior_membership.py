"""Whether a model's prior tells which slices it was made from: the last table of docs/sampling.md.

    python benchmarks/prior_membership.py datasets/NAME

A slice that was trained on lies closer to the directions than one that was not, if there are many directions for few
slices. Printed is the share of pairs in which the training slice is the closer one (0.5: nothing can be told), and the
share of training slices among those that are closer than 99 % of the held-out ones (1 %: nothing).
"""

import argparse

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from lwddpm.data.store import open_dataset
from lwddpm.diffusion.intensity import from_uint8
from lwddpm.diffusion.prior import Prior, fit_prior, num_directions


def distances(prior: Prior, images: Tensor) -> np.ndarray:
    """Mean square distance of each slice from the mean slice and the directions."""
    directions = prior.directions.flatten(1)
    centred = from_uint8(images).flatten(1) - prior.mean.flatten()
    return (centred - centred @ directions.T @ directions).square().mean(1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a prepared dataset")
    dataset = open_dataset(parser.parse_args().dataset)
    train = torch.from_numpy(np.array(dataset.images("train")))
    held_out = torch.from_numpy(np.concatenate([dataset.images("validation"), dataset.images("test")]))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
    print(f"{len(held_out)} held-out slices; * what the platform would store\n")
    print("| training slices | directions | closer | among the closest 1 % |\n|---:|---:|---:|---:|")
    for num in (len(train), 300, 64):
        members = train[order[:num]]
        for directions in sorted({num_directions(num), 16, 64}):
            if directions >= num:
                continue
            prior = fit_prior(members, directions)
            inside, outside = distances(prior, members), distances(prior, held_out)
            closer = mannwhitneyu(outside, inside).statistic / len(inside) / len(outside)
            share = (inside < np.quantile(outside, 0.01)).mean()
            mark = " *" if directions == num_directions(num) else ""
            print(f"| {num:,} | {directions}{mark} | {closer:.2f} | {share:.1%} |", flush=True)


if __name__ == "__main__":
    main()
