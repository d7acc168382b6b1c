"""Slices that a model draws, kept in chunks, so that an audit that was killed goes on where it was.

<folder>/00000000-512.npy   by the number of the first
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lwddpm.config import SamplingConfig
from lwddpm.files import whole_file
from lwddpm.kinds.audit.audited import Audited


class Drawings:
    """Samples 0 to count - 1.

    Attributes:
        folder: where they are kept.
        chunks: their numbers; what a kill loses is one of them.
    """

    def __init__(self, audited: Audited, sampling: SamplingConfig, count: int) -> None:
        self.folder, self.count, self._chunk = audited.slices_folder(sampling), count, audited.job.audit.batch_size
        self.chunks = [range(i, min(i + self._chunk, count)) for i in range(0, count, self._chunk)]
        self._draw: Callable[[range], np.ndarray] = functools.partial(_drawn, audited, sampling, count)
        self.folder.mkdir(parents=True, exist_ok=True)

    def file(self, numbers: range) -> Path:
        """Where the slices of a chunk are kept."""
        return self.folder / f"{numbers.start:08d}-{len(numbers)}.npy"

    def slices(self, numbers: range) -> np.ndarray:
        """Those of a chunk, uint8 [N, S, S], drawn where they are not there yet."""
        try:
            images: np.ndarray = np.load(self.file(numbers), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            images = self._draw(numbers)
            with whole_file(self.file(numbers)) as partial, partial.open("wb") as stream:
                np.save(stream, images)
        return images

    def slice(self, number: int) -> np.ndarray:
        """One of them that has been drawn, uint8 [S, S]."""
        numbers = self.chunks[number // self._chunk]
        images: np.ndarray = np.load(self.file(numbers), mmap_mode="r")
        return images[number - numbers.start]


def _drawn(audited: Audited, sampling: SamplingConfig, count: int, numbers: range) -> np.ndarray:
    return audited.draw(sampling, numbers, count)
