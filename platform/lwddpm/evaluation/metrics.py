"""How each metric of the protocol is computed, with its real-versus-real floor.

A floor is the same measurement with real held-out slices in place of the generated ones, as many of them: what a
perfect generator would score. A Fréchet distance without it means nothing, because its bias at small n is larger than
most differences between models.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lwddpm.config import EvaluationConfig
from lwddpm.data.store import Dataset
from lwddpm.evaluation.cache import cache_file, cached
from lwddpm.evaluation.distances import ReferenceStatistics
from lwddpm.evaluation.features import NETWORKS, WEIGHTS_SHA256
from lwddpm.evaluation.result import MetricRecord
from lwddpm.evaluation.similarity import ssim, ssim_nearest, ssim_pairs
from lwddpm.evaluation.subset import SUBSET_SEED, random_subset

NUM_PAIRS = 1000
NUM_RECONSTRUCTED = 64

Extract = Callable[[str, np.ndarray], Tensor]
Reconstruct = Callable[[np.ndarray, int], np.ndarray | Tensor]
Progress = Callable[[str, int, int], None]


class MissingInput(Exception):  # noqa: N818
    """The caller or the dataset does not provide what a metric needs."""


@dataclass(frozen=True)
class MetricInputs:
    """What every metric is computed from; `protocol.evaluate` explains the callables.

    Attributes:
        generated, held_out: uint8 [n, S, S] with the same n.
    """

    generated: np.ndarray
    held_out: np.ndarray
    dataset: Dataset
    config: EvaluationConfig
    extract: Extract
    reconstruct: Reconstruct | None
    on_progress: Progress


def reference_statistics(
    name: str, dataset: Dataset, config: EvaluationConfig, extract: Extract
) -> ReferenceStatistics:
    """Statistics of the training slices' features, the reference of the Fréchet distance `name`; cached."""
    train = random_subset(dataset.images("train"), config.num_reference)
    return cached(
        cache_file(dataset, name, f"train-{len(train)}"),
        lambda: ReferenceStatistics.of(extract(name, train)),
        dump=ReferenceStatistics.to_tensors,
        load=ReferenceStatistics.from_tensors,
    )


def _frechet(name: str, inputs: MetricInputs) -> MetricRecord:
    features = inputs.extract(name, inputs.generated)  # first: raises where weights are missing
    train = reference_statistics(name, inputs.dataset, inputs.config, inputs.extract)
    held_out = inputs.held_out
    floor = cached(
        cache_file(inputs.dataset, name, f"floor-{train.num}-{len(held_out)}"),
        lambda: train.distance(inputs.extract(name, held_out)),
        dump=lambda distance: {"floor": torch.tensor(distance, dtype=torch.float64)},
        load=lambda tensors: tensors["floor"].item(),
    )
    return _record(
        name,
        inputs,
        value=train.distance(features),
        floor=floor,
        num_reference=train.num,
        reference="train",
        extractor=NETWORKS[name],
        weights_sha256=WEIGHTS_SHA256[name],
        protocol=f"squared Fréchet distance of {NETWORKS[name]} features, train against {len(inputs.generated)} "
        "generated slices; floor: train against as many held-out slices",
    )


def _nearest(name: str, inputs: MetricInputs) -> MetricRecord:
    dataset, split = inputs.dataset, "test" if inputs.dataset.num("test") else "validation"
    bank = dataset.images(split)
    queries = random_subset(dataset.images("validation"), len(inputs.generated)) if split == "test" else bank[:0]
    on_batch = count_up(inputs.on_progress, "nearest real slices", len(inputs.generated) + len(queries))
    value, _ = ssim_nearest(inputs.generated, bank, on_batch=on_batch)
    floor = ssim_nearest(queries, bank, on_batch=on_batch)[0].mean().item() if len(queries) else None
    return _record(
        name,
        inputs,
        value=value.mean().item(),
        floor=floor,
        num_reference=len(bank),
        reference=split,
        protocol=f"mean SSIM of each generated slice with its best match among {len(bank)} {split} slices; floor: "
        + (f"the same for {len(queries)} validation slices" if len(queries) else "none, it takes two held-out splits"),
    )


def _pairs(name: str, inputs: MetricInputs) -> MetricRecord:
    value, floor = (
        ssim_pairs(images, num_pairs=NUM_PAIRS, seed=SUBSET_SEED).mean().item()
        for images in (inputs.generated, inputs.held_out)
    )
    return _record(
        name,
        inputs,
        value=value,
        floor=floor,
        num_reference=None,
        reference="itself",
        protocol=f"mean SSIM of {NUM_PAIRS} random pairs of generated slices: an indicator of diversity, "
        f"neither good when high nor when low; floor: pairs of {len(inputs.held_out)} held-out slices",
    )


def _reconstruction(name: str, inputs: MetricInputs) -> MetricRecord:
    from lwddpm.diffusion.sampling import RECONSTRUCTION_STEPS

    if inputs.reconstruct is None:
        raise MissingInput("it needs a model that denoises; a GAN only draws")
    timestep = inputs.config.reconstruction_timestep
    originals = random_subset(inputs.held_out, NUM_RECONSTRUCTED)
    restored = inputs.reconstruct(originals, timestep)
    return _record(
        name,
        inputs,
        value=ssim(restored, originals).mean().item(),
        floor=None,
        n=len(originals),
        num_reference=len(originals),
        reference="held-out",
        sampler="ddim",
        num_inference_steps=min(timestep + 1, RECONSTRUCTION_STEPS),
        protocol=f"mean SSIM of {len(originals)} random held-out slices with themselves, noised to t = {timestep} "
        "and denoised by deterministic DDIM; says nothing about samples, and has no floor: 1 is reached at t = 0",
    )


METRICS: dict[str, Callable[[str, MetricInputs], MetricRecord]] = {
    "fid": _frechet,
    "fd_lite0": _frechet,
    "ssim_nearest": _nearest,
    "ssim_pairs": _pairs,
    "ssim_reconstruction": _reconstruction,
}


def _record(name: str, inputs: MetricInputs, **values: Any) -> MetricRecord:
    """A record of generated slices, unless `values` say otherwise."""
    of_generated = {
        "n": len(inputs.generated),
        "image_size": inputs.dataset.manifest.image_size,
        "extractor": None,
        "weights_sha256": None,
        "sampler": inputs.config.sampler,
        "num_inference_steps": inputs.config.num_inference_steps,
    }
    return MetricRecord(name=name, **(of_generated | values))


def count_up(on_progress: Progress, description: str, total: int) -> Callable[[int], None]:
    """A callback that takes the number of items just done and reports their sum so far."""
    completed = 0

    def count(num: int) -> None:
        nonlocal completed
        completed += num
        on_progress(description, completed, total)

    return count
