"""What every metric is computed from, and the record that it leaves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lwddpm.config import EvaluationConfig
from lwddpm.data.store import Dataset
from lwddpm.evaluation.cache import cache_file, cached
from lwddpm.evaluation.distances import ReferenceStatistics
from lwddpm.evaluation.features import WeightsUnavailable
from lwddpm.evaluation.neighbours import K, Neighbours
from lwddpm.evaluation.result import MetricRecord
from lwddpm.evaluation.subset import random_subset

Extract = Callable[[str, np.ndarray], Tensor]
Reconstruct = Callable[[np.ndarray, int], np.ndarray | Tensor]
Progress = Callable[[str, int, int], None]


_COMPARED_AT_MOST = 5000  # slices a side: their distances, all with all, take 200 MB


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
    reconstruct: Reconstruct | None = None
    on_progress: Progress = lambda what, done, of: None
    network_calls: int | None = None
    _kept: dict[str, Any] = field(default_factory=dict)  # what several metrics need

    @property
    def num(self) -> int:
        """n, slices of each kind."""
        return len(self.generated)

    def features(self, extractor: str) -> Tensor:
        """Features of the generated slices, float32 [n, D], extracted once.

        Raises:
            WeightsUnavailable: the extractor's weights are missing; told at length only the first time.
        """
        if extractor not in self._kept:
            try:
                self._kept[extractor] = self.extract(extractor, self.generated)
            except WeightsUnavailable:
                self._kept[extractor] = None
                raise
        if self._kept[extractor] is None:
            raise WeightsUnavailable(f"it needs the weights that {extractor} lacks")
        return self._kept[extractor]

    def held_out_features(self, extractor: str) -> Tensor:
        """Features of the held-out slices, float32 [n, D], cached."""
        return self._real(extractor, "held-out", self.held_out)

    def all_features(self, extractor: str, splits: tuple[str, ...]) -> Tensor:
        """Features of all slices of some splits, one split after the other, float32 [N, D], cached."""
        return torch.cat([self._real(extractor, split, self.dataset.images(split)) for split in splits])

    def compared(self, extractor: str) -> tuple[Tensor, Tensor, Tensor]:
        """Features of training, generated and held-out slices, [m, D] each, for metrics that compare all with all.

        m is n, lowered to what they take and to the number of training slices.

        Raises:
            MissingInput: too few of them.
        """
        m = min(self.num, self.dataset.num("train"), _COMPARED_AT_MOST)
        if m <= K:
            raise MissingInput(f"it needs more than {K} training slices and as many generated ones, got {m}")
        generated = random_subset(self.features(extractor), m)
        train = self._real(extractor, "train", random_subset(self.dataset.images("train"), m))
        return train, generated, random_subset(self.held_out_features(extractor), m)

    def neighbours(self, extractor: str) -> tuple[Neighbours, Neighbours]:
        """Of the training slices: among the generated slices, and among the held-out ones."""
        key = f"neighbours {extractor}"
        if key not in self._kept:
            train, generated, held_out = self.compared(extractor)
            self._kept[key] = (Neighbours(train, generated), Neighbours(train, held_out))
        return self._kept[key]

    def reference(self, extractor: str) -> ReferenceStatistics:
        """Statistics of the training slices' features, made or read once."""
        key = f"reference {extractor}"
        if key not in self._kept:
            self._kept[key] = reference_statistics(extractor, self.dataset, self.config, self.extract)
        return self._kept[key]

    def _real(self, extractor: str, split: str, images: np.ndarray) -> Tensor:
        return cached(
            cache_file(self.dataset, extractor, f"features-{split}-{len(images)}"),
            lambda: self.extract(extractor, images),
            dump=lambda features: {"features": features.contiguous()},
            load=lambda tensors: tensors["features"],
        )


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


def record_of(name: str, inputs: MetricInputs, **values: Any) -> MetricRecord:
    """A record of generated slices, unless `values` say otherwise."""
    of_generated = {
        "n": inputs.num,
        "image_size": inputs.dataset.manifest.image_size,
        "extractor": None,
        "weights_sha256": None,
        "sampler": inputs.config.sampler,
        "num_inference_steps": inputs.config.num_inference_steps,
        "guidance": inputs.config.guidance,
        "condition_guidance": inputs.config.condition_guidance,
        "network_calls": inputs.network_calls,
        "start": None if inputs.config.start == "auto" else inputs.config.start,
        "precision": None if inputs.config.precision == "auto" else inputs.config.precision,
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
