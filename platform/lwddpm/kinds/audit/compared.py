"""Slices compared with all training slices, over the workers; what was compared is kept, and read when a job goes on.

<folder>/slices/KEY/00000000-512.npz    what slices drawn score, beside the slices
<cache>/audit/KEY/held_out.npz, planted-KIND.npz    of the dataset alone: audits of all models share them
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lwddpm.audit.correlation import CorrelationSearch, Match
from lwddpm.audit.feature_search import EXTRACTOR, FeatureSearch
from lwddpm.audit.scores import Scores
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.generate import feature_extraction
from lwddpm.cluster.session import Session
from lwddpm.data.store import Dataset, open_dataset
from lwddpm.evaluation.cache import cache_file, cached
from lwddpm.kinds.audit.drawings import Drawings

_AT_A_TIME = 64  # slices that a worker compares


class Comparer:
    """Compares slices with the training slices of a dataset.

    Args:
        shared: where scores of the dataset's own slices are kept; its name stands for all that they depend on.
    """

    def __init__(self, dataset: Dataset, session: Session, exported: ExportedSeries | None, shared: Path) -> None:
        self._dataset, self._session, self._exported, self._shared = dataset, session, exported, shared
        self._extract = feature_extraction(session, None, exported)
        shared.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    def features(self) -> FeatureSearch:
        """Of the training slices, and of them mirrored."""
        return FeatureSearch(self.train_features, self._features("mirrored", self._dataset.images("train")[:, :, ::-1]))

    @functools.cached_property
    def train_features(self) -> torch.Tensor:
        """float32 [T, D], shared with evaluations."""
        return self._features("train", self._dataset.images("train"))

    def compare(self, images: np.ndarray, description: str = "comparing") -> Scores:
        """What slices uint8 [N, S, S] score."""
        embedding = self._extract(EXTRACTOR, images)
        near = self.features(embedding)
        pairs = list(zip(images, near.rows, strict=True))
        chunks = [pairs[i : i + _AT_A_TIME] for i in range(0, len(pairs), _AT_A_TIME)]
        function = functools.partial(_correlate, self._dataset.path, self._dataset.version)
        matches = self._session.worker_map(function, chunks, description=description, exported=self._exported)
        return Scores(Match.joined(list(matches)), near.score, near.rows[:, 0], embedding.numpy())

    def kept(self, name: str, images: Callable[[], np.ndarray]) -> Scores:
        """`compare` of slices of the dataset, which are made only where their scores are not there yet."""
        return self._kept(self._shared / f"{name}.npz", name, images)

    def drawn(self, drawings: Drawings, numbers: range) -> Scores:
        """`compare` of a chunk of slices drawn."""
        path = drawings.file(numbers).with_suffix(".npz")
        return self._kept(path, "drawn", functools.partial(drawings.slices, numbers))

    def _kept(self, path: Path, name: str, images: Callable[[], np.ndarray]) -> Scores:
        scores = Scores.load(path)
        if scores is None:
            what = name.replace("_", " ").replace("planted-", "planted copies: ")
            scores = self.compare(images(), f"comparing {what}")
            scores.save(path)
        return scores

    def _features(self, which: str, images: np.ndarray) -> torch.Tensor:
        return cached(
            cache_file(self._dataset, EXTRACTOR, f"features-{which}-{len(images)}"),
            lambda: self._extract(EXTRACTOR, images),
            dump=lambda features: {"features": features.contiguous()},
            load=lambda tensors: tensors["features"],
        )


def _correlate(path: str, version: str, chunk: list[tuple[np.ndarray, np.ndarray]]) -> Match:
    images, rows = zip(*chunk, strict=True)
    return _search(path, version)(np.stack(images), np.stack(rows))


@functools.lru_cache(maxsize=1)
def _search(path: str, version: str) -> CorrelationSearch:
    """A worker serves many chunks, and transforms the training slices once; the version tells datasets apart."""
    return CorrelationSearch(open_dataset(path).images("train"))
