"""What is measured, against what, on how many slices. docs/metrics.md says the same in prose."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lwddpm.config import EvaluationConfig
from lwddpm.data.store import Dataset
from lwddpm.errors import DataError
from lwddpm.evaluation.collapse import collapse_warning, diversity
from lwddpm.evaluation.copying import COPIED_SHARE, NEAR, Copying, copying
from lwddpm.evaluation.features import Extractor, WeightsUnavailable, load_extractor
from lwddpm.evaluation.inputs import Extract, MetricInputs, MissingInput, Progress, Reconstruct, count_up, record_of
from lwddpm.evaluation.intensities import out_of_band_warning
from lwddpm.evaluation.intervals import of_share
from lwddpm.evaluation.metrics import METRICS
from lwddpm.evaluation.obedience import class_codes, obedience
from lwddpm.evaluation.result import EvaluationResult, MetricRecord, Unavailable
from lwddpm.evaluation.subset import random_subset
from lwddpm.evaluation.utility import utility
from lwddpm.evaluation.within_classes import OfOneClass, within_classes


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


def evaluate(
    generated: np.ndarray | Tensor,
    dataset: Dataset,
    config: EvaluationConfig,
    *,
    extract: Extract | None = None,
    reconstruct: Reconstruct | None = None,
    on_progress: Progress | None = None,
    network_calls: int | None = None,
    asked: Sequence[str | None] | None = None,
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
        asked: the class that each slice was asked for (None: for none), of a model that is told it; then also
            those of `config.CLASS_MEASURES` are measured.
        network_calls: with which a slice was drawn, for the record; None: not known.

    Returns:
        The metrics and the copied share, and what could not be computed with the reason.

    Raises:
        DataError: fewer than two held-out slices.
        ValueError: `generated` is not uint8 [N >= 2, S, S] of the dataset's size.
    """
    inputs = _inputs(generated, dataset, config, extract, reconstruct, on_progress or _no_progress)
    inputs = replace(inputs, network_calls=network_calls)
    records: list[MetricRecord] = []
    unavailable: list[Unavailable] = []
    for name in config.metrics:
        try:
            records.append(METRICS[name](name, inputs))
        except (WeightsUnavailable, MissingInput) as error:
            unavailable.append(Unavailable(name=name, reason=str(error)))
    train = dataset.images("train")  # all of them, whatever num_reference is: a copy of any is one
    confusion = None
    if asked is not None:
        try:
            of_classes, confusion = obedience(inputs, asked)
            records += of_classes
            learnt = utility(inputs, class_codes(dataset, asked[: inputs.num]))
            records += [learnt] if learnt is not None else []
        except WeightsUnavailable as error:
            unavailable.append(Unavailable(name="obedience_lite0", reason=str(error)))
    warnings = [collapse_warning(diversity(inputs.generated, inputs.held_out))]
    looked = copying(inputs.generated, inputs.held_out, train)
    warnings.append(looked.warning)
    for record in records:
        if record.name == "out_of_band" and record.interval is not None and record.floor is not None:
            warnings.append(out_of_band_warning(record.value, record.interval[0], record.floor, record.parts))
    return EvaluationResult(
        dataset_version=dataset.version,
        simulated=dataset.manifest.simulated,
        config=config,
        records=tuple(records),
        unavailable=tuple(unavailable),
        confusion=confusion,
        warnings=tuple(warning for warning in warnings if warning is not None),
        copied=_copied(inputs, looked, len(train)),
    )


def _copied(inputs: MetricInputs, looked: Copying, num_train: int) -> MetricRecord:
    return record_of(
        COPIED_SHARE,
        inputs,
        value=looked.share,
        interval=of_share(looked.near, looked.n),
        floor=looked.floor,
        num_reference=num_train,
        reference="train",
        protocol=f"share of generated slices whose pixels are nearer to one of {num_train} training slices than "
        f"{NEAR:g} of the held-out slices' median distance; floor: of as many held-out slices; copies that were "
        "shifted, turned or re-contrasted are not found (kind: audit finds them)",
    )


def evaluate_classes(
    generated: np.ndarray,
    dataset: Dataset,
    config: EvaluationConfig,
    *,
    asked: Sequence[str | None],
    extract: Extract | None = None,
) -> dict[str, OfOneClass]:
    """Realism and diversity of each class by itself; arguments as of `evaluate`.

    Raises:
        WeightsUnavailable: the extractor's weights are missing.
    """
    return within_classes(_inputs(generated, dataset, config, extract, None, _no_progress), asked)


def _inputs(
    generated: np.ndarray | Tensor,
    dataset: Dataset,
    config: EvaluationConfig,
    extract: Extract | None,
    reconstruct: Reconstruct | None,
    on_progress: Progress,
) -> MetricInputs:
    limit = num_evaluated(dataset, config)
    images, size = np.asarray(generated), dataset.manifest.image_size
    if images.dtype != np.uint8 or images.ndim != 3 or len(images) < 2 or images.shape[1:] != (size, size):
        raise ValueError(f"generated must be uint8 [N >= 2, {size}, {size}], got {images.dtype} {images.shape}")
    n = min(len(images), limit)
    return MetricInputs(
        generated=images[:n],
        held_out=random_subset(np.concatenate([dataset.images("validation"), dataset.images("test")]), n),
        dataset=dataset,
        config=config,
        extract=extract or _LocalExtraction(config.inception_weights, on_progress),
        reconstruct=reconstruct,
        on_progress=on_progress,
    )


class _LocalExtraction:
    """Feature extraction in this process, each network loaded once."""

    def __init__(self, inception_weights: str | None, on_progress: Progress) -> None:
        self._inception_weights, self._on_progress = inception_weights, on_progress
        self._extractors: dict[str, Extractor] = {}

    def __call__(self, name: str, images: np.ndarray) -> Tensor:
        if name not in self._extractors:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._extractors[name] = load_extractor(name, inception_weights=self._inception_weights, device=device)
        on_batch = count_up(self._on_progress, f"features for {name}", len(images))
        return self._extractors[name](images, on_batch=on_batch)


def _no_progress(description: str, completed: int, total: int) -> None:
    pass
