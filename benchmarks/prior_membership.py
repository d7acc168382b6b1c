"""Whether a model's prior tells which slices it was made from: the last table of docs/sampling.md.

    python benchmarks/prior_membership.py datasets/NAME

A slice that was trained on lies closer to the directions than one that was not, if there are many directions for few
slices; and it is likelier under the mixture, if there are many components. For both scores: the share of pairs in which
the training slice stands out (0.5: nothing can be told), and the share of training slices among those that stand out
more than 99 % of the held-out ones (1 %: nothing).
"""

import argparse

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from lwddpm.data.store import open_dataset
from lwddpm.diffusion.intensity import from_uint8
from lwddpm.diffusion.prior import Prior, fit_prior, num_components, num_directions


def scores(prior: Prior, images: Tensor) -> dict[str, np.ndarray]:
    """Of each slice, the lower the more it looks like a training slice: its mean square distance from the mean slice
    and the directions, and its negative log-likelihood along them."""
    directions = prior.directions.flatten(1)
    centred = from_uint8(images).flatten(1) - prior.mean.flatten()
    along = centred @ directions.T
    each = MultivariateNormal(prior.centres, scale_tril=prior.factors)
    mixture = MixtureSameFamily(Categorical(prior.weights), each)
    return {
        "distance": (centred - along @ directions).square().mean(1).numpy(),
        "likelihood": -mixture.log_prob(along / prior.deviations).numpy(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a prepared dataset")
    dataset = open_dataset(parser.parse_args().dataset)
    train = torch.from_numpy(np.array(dataset.images("train")))
    held_out = torch.from_numpy(np.concatenate([dataset.images("validation"), dataset.images("test")]))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
    print(f"{len(held_out)} held-out slices; * what the platform would store\n")
    print("| training slices | directions | components | by distance | among 1 % | by likelihood | among 1 % |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for num in (len(train), 300, 64):
        members = train[order[:num]]
        stored = num_directions(num), num_components(num)
        for directions, components in sorted({stored, (16, 8), (64, 8), (16, 64)}):
            if max(directions, components) >= num:
                continue
            prior = fit_prior(members, directions, components=components)
            inside, outside = scores(prior, members), scores(prior, held_out)
            cells = []
            for score in inside:
                pairs = mannwhitneyu(outside[score], inside[score]).statistic / num / len(held_out)
                cells += [f"{pairs:.2f}", f"{(inside[score] < np.quantile(outside[score], 0.01)).mean():.1%}"]
            mark = " *" if (directions, components) == stored else ""
            print(f"| {num:,} | {directions} | {len(prior.weights)}{mark} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
