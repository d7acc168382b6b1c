"""How each metric of the protocol is computed, with its real-versus-real floor.

A floor is the same measurement with real held-out slices in place of the generated ones, as many of them: what a
perfect generator would score. A Fréchet distance without it means nothing, because its bias at small n is larger than
most differences between models. Intervals say what other slices of the same model would give.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from lwddpm.data.store import Dataset
from lwddpm.evaluation.cache import cache_file, cached
from lwddpm.evaluation.distances import FEWEST_TO_EXTRAPOLATE
from lwddpm.evaluation.features import NETWORKS, WEIGHTS_SHA256
from lwddpm.evaluation.inputs import MetricInputs, MissingInput, count_up, record_of
from lwddpm.evaluation.intensities import Band
from lwddpm.evaluation.intervals import of_share
from lwddpm.evaluation.neighbours import K, kernel_distance, kernel_interval
from lwddpm.evaluation.result import MetricRecord
from lwddpm.evaluation.similarity import ssim, ssim_nearest, ssim_pairs
from lwddpm.evaluation.subset import SUBSET_SEED, random_subset

NUM_PAIRS = 1000
NUM_RECONSTRUCTED = 64


def _frechet(name: str, inputs: MetricInputs, *, extractor: str) -> MetricRecord:
    features = inputs.features(extractor)  # first: raises where weights are missing
    train = inputs.reference(extractor)
    floor = cached(
        cache_file(inputs.dataset, extractor, f"floor-{train.num}-{inputs.num}"),
        lambda: train.distance(inputs.held_out_features(extractor)),
        dump=lambda distance: {"floor": torch.tensor(distance, dtype=torch.float64)},
        load=lambda tensors: tensors["floor"].item(),
    )
    value, interval = train.with_interval(features)
    return _of_features(
        name,
        inputs,
        extractor,
        value=value,
        interval=interval,
        floor=floor,
        num_reference=train.num,
        protocol=f"squared Fréchet distance of {NETWORKS[extractor]} features, train against {inputs.num} "
        "generated slices; floor: train against as many held-out slices",
    )


def _frechet_at_infinity(name: str, inputs: MetricInputs, *, extractor: str) -> MetricRecord:
    features = inputs.features(extractor)
    if inputs.num < FEWEST_TO_EXTRAPOLATE:
        raise MissingInput(f"it needs {FEWEST_TO_EXTRAPOLATE} or more generated and held-out slices, got {inputs.num}")
    train = inputs.reference(extractor)
    value, interval = train.at_infinity(features)
    return _of_features(
        name,
        inputs,
        extractor,
        value=value,
        interval=interval,
        floor=train.at_infinity(inputs.held_out_features(extractor))[0],
        num_reference=train.num,
        protocol=f"the Fréchet distance of {NETWORKS[extractor]} features extrapolated to infinitely many generated "
        f"slices from subsets of {inputs.num}; for comparing figures of different n",
    )


def _kernel(name: str, inputs: MetricInputs, *, extractor: str) -> MetricRecord:
    train, generated, held_out = inputs.compared(extractor)
    return _of_features(
        name,
        inputs,
        extractor,
        value=kernel_distance(train, generated),
        interval=kernel_interval(train, generated),
        floor=kernel_distance(train, held_out),
        n=len(generated),
        num_reference=len(train),
        protocol=f"squared maximum mean discrepancy (KID's kernel) of {NETWORKS[extractor]} features, {len(train)} "
        "training slices against as many generated ones, unbiased; floor: against held-out slices",
    )


def _neighbours(name: str, inputs: MetricInputs, *, extractor: str, figure: str) -> MetricRecord:
    generated, held_out = inputs.neighbours(extractor)
    hit = {"recall": generated.recalled, "coverage": generated.covered}.get(figure)
    parts = {} if hit is None else _by_class(hit().numpy(), inputs.dataset)
    return _of_features(
        name,
        inputs,
        extractor,
        value=getattr(generated, figure)(),
        interval=generated.interval(figure),
        floor=getattr(held_out, figure)(),
        parts=parts,
        n=generated.num,
        num_reference=generated.num,
        protocol=f"{figure} with k = {K} neighbours in {NETWORKS[extractor]} features, {generated.num} training slices "
        "and as many generated ones; floor: held-out slices in their place; higher is better",
    )


def _by_class(hit: np.ndarray, dataset: Dataset) -> dict[str, float]:
    """The share of hits among the compared training slices of each class; nothing where there is only one."""
    labels = random_subset(dataset.labels("train"), len(hit))
    shares = {dataset.label_names[label]: float(hit[labels == label].mean()) for label in np.unique(labels)}
    return shares if len(shares) > 1 else {}


def _out_of_band(name: str, inputs: MetricInputs) -> MetricRecord:
    train = random_subset(inputs.dataset.images("train"), inputs.config.num_reference)
    band = Band.of(train)
    outside = band.outside(inputs.generated)
    return record_of(
        name,
        inputs,
        value=outside.share,
        interval=of_share(round(outside.share * inputs.num), inputs.num),
        floor=band.outside(inputs.held_out).share,
        parts=outside.parts,
        num_reference=len(train),
        reference="train",
        protocol=f"share of {inputs.num} generated slices whose mean or standard deviation lies outside the 1 to 99 % "
        f"band of {len(train)} training slices; floor: the same of as many held-out slices",
    )


def _nearest(name: str, inputs: MetricInputs) -> MetricRecord:
    dataset, split = inputs.dataset, "test" if inputs.dataset.num("test") else "validation"
    bank = dataset.images(split)
    queries = random_subset(dataset.images("validation"), inputs.num) if split == "test" else bank[:0]
    on_batch = count_up(inputs.on_progress, "nearest real slices", inputs.num + len(queries))
    value, _ = ssim_nearest(inputs.generated, bank, on_batch=on_batch)
    floor = ssim_nearest(queries, bank, on_batch=on_batch)[0].mean().item() if len(queries) else None
    return record_of(
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
    return record_of(
        name,
        inputs,
        value=value,
        floor=floor,
        num_reference=None,
        reference="itself",
        protocol=f"mean SSIM of {NUM_PAIRS} random pairs of generated slices: an indicator of diversity, "
        f"neither good when high nor when low; floor: pairs of {inputs.num} held-out slices",
    )


def _reconstruction(name: str, inputs: MetricInputs) -> MetricRecord:
    from lwddpm.diffusion.sampling import RECONSTRUCTION_STEPS

    if inputs.reconstruct is None:
        raise MissingInput("it needs a model that denoises; a GAN only draws")
    timestep = inputs.config.reconstruction_timestep
    originals = random_subset(inputs.held_out, NUM_RECONSTRUCTED)
    restored = inputs.reconstruct(originals, timestep)
    return record_of(
        name,
        inputs,
        value=ssim(restored, originals).mean().item(),
        floor=None,
        n=len(originals),
        num_reference=len(originals),
        reference="held-out",
        sampler="ddim",
        num_inference_steps=min(timestep + 1, RECONSTRUCTION_STEPS),
        guidance=1.0,
        condition_guidance=1.0,
        network_calls=min(timestep + 1, RECONSTRUCTION_STEPS),
        start=None,
        protocol=f"mean SSIM of {len(originals)} random held-out slices with themselves, noised to t = {timestep} "
        "and denoised by deterministic DDIM; says nothing about samples, and has no floor: 1 is reached at t = 0",
    )


def _of_features(name: str, inputs: MetricInputs, extractor: str, **values: Any) -> MetricRecord:
    network = {"extractor": NETWORKS[extractor], "weights_sha256": WEIGHTS_SHA256[extractor]}
    return record_of(name, inputs, reference="train", **network, **values)


METRICS: dict[str, Callable[[str, MetricInputs], MetricRecord]] = {
    "fid": partial(_frechet, extractor="fid"),
    "fd_lite0": partial(_frechet, extractor="fd_lite0"),
    "fd_lite2": partial(_frechet, extractor="fd_lite2"),
    "fid_infinity": partial(_frechet_at_infinity, extractor="fid"),
    "fd_lite0_infinity": partial(_frechet_at_infinity, extractor="fd_lite0"),
    "kid": partial(_kernel, extractor="fid"),
    "kd_lite0": partial(_kernel, extractor="fd_lite0"),
    **{
        f"{figure}_lite0": partial(_neighbours, extractor="fd_lite0", figure=figure)
        for figure in ("precision", "recall", "density", "coverage")
    },
    "out_of_band": _out_of_band,
    "ssim_nearest": _nearest,
    "ssim_pairs": _pairs,
    "ssim_reconstruction": _reconstruction,
}
