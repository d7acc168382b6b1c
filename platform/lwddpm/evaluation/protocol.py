"""What is measured, against what, on how many slices. docs/metrics.md says the same in prose.

Every figure has a real-versus-real floor: the same measurement with real held-out slices in place of the generated
ones, n of them. It is what a perfect generator would score; a Fréchet distance without it means nothing, because
its bias at small n is larger than most differences between models.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lwddpm.config import EvaluationConfig
from lwddpm.data.store import Dataset
from lwddpm.errors import DataError
from lwddpm.evaluation.collapse import collapse_warning, diversity
from lwddpm.evaluation.distances import FeatureStatistics, cached_statistics, frechet_distance
from lwddpm.evaluation.features import WEIGHTS_SHA256, Extractor, WeightsUnavailable, load_extractor
from lwddpm.evaluation.result import EvaluationResult, MetricRecord, Unavailable
from lwddpm.evaluation.similarity import ssim, ssim_nearest, ssim_pairs
from lwddpm.files import cache_folder

NUM_PAIRS = 1000
NUM_RECONSTRUCTED = 64
SUBSET_SEED = 0  # of every draw of real slices; fixed, so that floors and caches outlive a change of sampling.seed
NETWORKS = {"fid": "InceptionV3", "fd_lite0": "EfficientNet-Lite0"}

_floors: dict[tuple[Path, ...], float] = {}  # by the files of the two sets' statistics

Extract = Callable[[str, np.ndarray], Tensor]
Reconstruct = Callable[[np.ndarray, int], np.ndarray | Tensor]
Progress = Callable[[str, int, int], None]


def num_evaluated(dataset: Dataset, config: EvaluationConfig) -> int:
    """How many slices to generate: `num_samples`, lowered to the held-out slices that the floor can use.

    Raises:
        DataError: fewer than two held-out slices.
    """
    held_out = dataset.num("validation") + dataset.num("test")
    if held_out < 2:
        raise DataError(
            f"{dataset.path}: evaluation needs 2 or more held-out slices, got {held_out}; "
            "give validation and test a share in data.splits, or set evaluation: null"
        )
    return min(config.num_samples, held_out)


@dataclass(frozen=True)
class _Inputs:
    """What every metric draws from: `generated` and `held_out` are uint8 [n, S, S] with the same n."""

    generated: np.ndarray
    held_out: np.ndarray
    dataset: Dataset
    config: EvaluationConfig
    extract: Extract
    reconstruct: Reconstruct | None
    on_progress: Progress


def evaluate(
    generated: np.ndarray | Tensor,
    dataset: Dataset,
    config: EvaluationConfig,
    *,
    extract: Extract | None = None,
    reconstruct: Reconstruct | None = None,
    on_progress: Progress | None = None,
) -> EvaluationResult:
    """Compute `config.metrics` for generated slices.

    Args:
        generated: uint8 [N, S, S], S as in the dataset; the first `num_evaluated` of them are used.
        dataset: the reference is its train split, the floor its validation and test splits.
        config: what to compute; its sampling settings are those that `generated` was made with.
        extract: (extractor name, uint8 [N, S, S]) -> features float32 [N, D]; default: in this process.
        reconstruct: (uint8 [N, S, S], timestep) -> uint8 [N, S, S], as `diffusion.sampling.reconstruct` does;
            None for models that do not denoise, and `ssim_reconstruction` is unavailable.
        on_progress: called with (description, completed, total).

    Returns:
        The figures, and the metrics that could not be computed with the reason.

    Raises:
        DataError: fewer than two held-out slices.
        ValueError: `generated` is not uint8 [N >= 2, S, S] of the dataset's size.
    """
    limit = num_evaluated(dataset, config)
    images, size = np.asarray(generated), dataset.manifest.image_size
    if images.dtype != np.uint8 or images.ndim != 3 or len(images) < 2 or images.shape[1:] != (size, size):
        raise ValueError(f"generated must be uint8 [N >= 2, {size}, {size}], got {images.dtype} {images.shape}")
    n = min(len(images), limit)
    on_progress = on_progress or (lambda description, completed, total: None)
    inputs = _Inputs(
        generated=images[:n],
        held_out=_subset(np.concatenate([dataset.images("validation"), dataset.images("test")]), n),
        dataset=dataset,
        config=config,
        extract=extract or _LocalExtraction(config.inception_weights, on_progress),
        reconstruct=reconstruct,
        on_progress=on_progress,
    )
    records: list[MetricRecord] = []
    unavailable: list[Unavailable] = []
    for name in config.metrics:
        try:
            records.append(_MEASUREMENTS[name](name, inputs))
        except (WeightsUnavailable, _MissingInputError) as error:
            unavailable.append(Unavailable(name=name, reason=str(error)))
    warning = collapse_warning(diversity(inputs.generated, inputs.held_out))
    return EvaluationResult(
        dataset_version=dataset.version,
        simulated=dataset.manifest.simulated,
        config=config,
        records=tuple(records),
        unavailable=tuple(unavailable),
        warnings=() if warning is None else (warning,),
    )


class _MissingInputError(Exception):
    """The caller or the dataset did not provide what a metric needs."""


class _LocalExtraction:
    """Feature extraction in this process, each network loaded once."""

    def __init__(self, inception_weights: str | None, on_progress: Progress) -> None:
        self._inception_weights, self._on_progress = inception_weights, on_progress
        self._extractors: dict[str, Extractor] = {}

    def __call__(self, name: str, images: np.ndarray) -> Tensor:
        if name not in self._extractors:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._extractors[name] = load_extractor(name, inception_weights=self._inception_weights, device=device)
        on_batch = _counter(self._on_progress, f"features for {name}", len(images))
        return self._extractors[name](images, on_batch=on_batch)


def reference_statistics(name: str, dataset: Dataset, config: EvaluationConfig, extract: Extract) -> FeatureStatistics:
    """Features of the training slices that a Fréchet distance refers to; cached."""
    reference = _subset(dataset.images("train"), config.num_reference)
    return _real_statistics(name, "train", reference, dataset, extract)


def _frechet(name: str, inputs: _Inputs) -> MetricRecord:
    generated = FeatureStatistics.of(inputs.extract(name, inputs.generated))  # first: fails where weights are missing
    train = reference_statistics(name, inputs.dataset, inputs.config, inputs.extract)
    held_out = _real_statistics(name, "held-out", inputs.held_out, inputs.dataset, inputs.extract)
    pair = tuple(
        _statistics_file(name, s, x.num, inputs.dataset) for s, x in (("train", train), ("held-out", held_out))
    )
    if pair not in _floors:  # it takes a second, and is the same for every model of a comparison
        _floors[pair] = frechet_distance(train, held_out)
    return _record(
        name,
        inputs,
        value=frechet_distance(train, generated),
        floor=_floors[pair],
        num_reference=train.num,
        reference="train",
        extractor=NETWORKS[name],
        weights_sha256=WEIGHTS_SHA256[name],
        protocol=f"squared Fréchet distance of {NETWORKS[name]} features, train against {len(inputs.generated)} "
        "generated slices; floor: train against as many held-out slices",
    )


def _real_statistics(
    name: str, split: str, images: np.ndarray, dataset: Dataset, extract: Extract
) -> FeatureStatistics:
    return cached_statistics(_statistics_file(name, split, len(images), dataset), lambda: extract(name, images))


def _statistics_file(name: str, split: str, num: int, dataset: Dataset) -> Path:
    """Named by everything that the statistics depend on."""
    folder = cache_folder() / "features" / f"{dataset.version}-{dataset.manifest.image_size}px"
    return folder / f"{name}-{WEIGHTS_SHA256[name][:16]}-{split}-{num}.safetensors"


def _nearest(name: str, inputs: _Inputs) -> MetricRecord:
    dataset, split = inputs.dataset, "test" if inputs.dataset.num("test") else "validation"
    bank = dataset.images(split)
    queries = _subset(dataset.images("validation"), len(inputs.generated)) if split == "test" else bank[:0]
    on_batch = _counter(inputs.on_progress, "nearest real slices", len(inputs.generated) + len(queries))
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


def _pairs(name: str, inputs: _Inputs) -> MetricRecord:
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


def _reconstruction(name: str, inputs: _Inputs) -> MetricRecord:
    from lwddpm.diffusion.sampling import RECONSTRUCTION_STEPS

    if inputs.reconstruct is None:
        raise _MissingInputError("it needs a model that denoises; a GAN only draws")
    timestep = inputs.config.reconstruction_timestep
    originals = inputs.held_out[:NUM_RECONSTRUCTED]
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
        protocol=f"mean SSIM of {len(originals)} held-out slices with themselves, noised to t = {timestep} "
        "and denoised by deterministic DDIM; says nothing about samples, and has no floor: 1 is reached at t = 0",
    )


_MEASUREMENTS: dict[str, Callable[[str, _Inputs], MetricRecord]] = {
    "fid": _frechet,
    "fd_lite0": _frechet,
    "ssim_nearest": _nearest,
    "ssim_pairs": _pairs,
    "ssim_reconstruction": _reconstruction,
}


def _record(name: str, inputs: _Inputs, **figures: Any) -> MetricRecord:
    """A record of generated slices, unless `figures` say otherwise."""
    of_generated = {
        "n": len(inputs.generated),
        "image_size": inputs.dataset.manifest.image_size,
        "extractor": None,
        "weights_sha256": None,
        "sampler": inputs.config.sampler,
        "num_inference_steps": inputs.config.num_inference_steps,
    }
    return MetricRecord(name=name, **(of_generated | figures))


def _subset(images: np.ndarray, num: int | None) -> np.ndarray:
    """All images, or `num` of them drawn at random, always the same ones."""
    if num is None or num >= len(images):
        return images
    return images[np.sort(np.random.default_rng(SUBSET_SEED).choice(len(images), num, replace=False))]


def _counter(on_progress: Progress, description: str, total: int) -> Callable[[int], None]:
    """A callback that counts items done and reports the sum."""
    completed = 0

    def count(num: int) -> None:
        nonlocal completed
        completed += num
        on_progress(description, completed, total)

    return count
