"""Slices compared with all training slices, over the workers; what was compared is kept, and read when a job goes on.

<folder>/slices/KEY/00000000-512.npy    slices drawn, in chunks by the number of the first
                    00000000-512.npz    what they score
<cache>/audit/KEY/held_out.npz, planted-KIND.npz    of the dataset alone: audits of all models share them
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lwddpm.audit.correlation import CorrelationSearch, Match
from lwddpm.audit.feature_search import EXTRACTOR, FeatureSearch
from lwddpm.audit.scores import Scores
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.generate import feature_extraction
from lwddpm.cluster.session import Session
from lwddpm.config.section import hex_digest
from lwddpm.data.store import Dataset, open_dataset
from lwddpm.evaluation.cache import cache_file, cached
from lwddpm.files import whole_file

_AT_A_TIME = 64  # slices that a worker compares
Draw = Callable[[range], np.ndarray]


class Comparer:
    """Compares slices with the training slices of a dataset.

    Args:
        folder: where slices drawn are kept, and what they score; its name stands for all that this depends on.
        shared: the same of what depends on the dataset alone.
    """

    def __init__(
        self, dataset: Dataset, session: Session, exported: ExportedSeries | None, folder: Path, shared: Path
    ) -> None:
        self._dataset, self._session, self._exported = dataset, session, exported
        self._folder, self._shared = folder, shared
        self._extract = feature_extraction(session, None, exported)
        for each in (folder, shared):
            each.mkdir(parents=True, exist_ok=True)

    def beside(self, *known: Any) -> "Comparer":
        """One for the slices of another model of the same training, kept apart; `known`: all that these depend on."""
        folder = self._folder.with_name(f"{self._folder.name}-{hex_digest(known)}")
        other = Comparer(self._dataset, self._session, self._exported, folder, self._shared)
        other.__dict__["features"], other.__dict__["train_features"] = self.features, self.train_features
        return other

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

    def _kept(self, path: Path, name: str, images: Callable[[], np.ndarray]) -> Scores:
        scores = Scores.load(path)
        if scores is None:
            what = name.replace("_", " ").replace("planted-", "planted copies: ")
            scores = self.compare(images(), f"comparing {what}")
            scores.save(path)
        return scores

    def drawn(self, draw: Draw, count: int, chunk: int) -> Iterator[tuple[int, Scores]]:
        """Samples 0 to count - 1, chunk by chunk: the number of its first, and what they score.

        Slices and scores lie in the folder before they are yielded: what a kill loses is one step of one chunk.
        """
        for first in range(0, count, chunk):
            numbers = range(first, min(first + chunk, count))
            path = self._file(first, len(numbers)).with_suffix(".npz")
            yield first, self._kept(path, "drawn", functools.partial(self._slices, draw, numbers))

    def slices(self, number: int, count: int, chunk: int) -> np.ndarray:
        """A sample that `drawn` has yielded, uint8 [S, S]."""
        first = number // chunk * chunk
        images: np.ndarray = np.load(self._file(first, min(chunk, count - first)), mmap_mode="r")
        return images[number - first]

    def _slices(self, draw: Draw, numbers: range) -> np.ndarray:
        path = self._file(numbers.start, len(numbers))
        try:
            images: np.ndarray = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            images = draw(numbers)
            with whole_file(path) as partial, partial.open("wb") as stream:
                np.save(stream, images)
        return images

    def _file(self, first: int, num: int) -> Path:
        return self._folder / f"{first:08d}-{num}.npy"

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
