"""How the training loop speaks to whoever listens: the only way out of the core."""

from pathlib import Path
from typing import Protocol

import numpy as np


class Reporter(Protocol):
    """Called on rank 0 only. Steps are completed optimizer steps."""

    def metrics(self, rows: dict[int, dict[str, float]]) -> None:
        """Numbers by step: those of many steps in one call, since a listener may be a process away."""

    def images(self, step: int, epoch: float, images: np.ndarray) -> None:
        """Samples drawn from the EMA weights: uint8 [N, H, W]."""

    def checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint that is wholly on disk."""


class SilentReporter:
    """Listens to nothing: for benchmarks, and for ranks other than 0."""

    def metrics(self, rows: dict[int, dict[str, float]]) -> None:
        pass

    def images(self, step: int, epoch: float, images: np.ndarray) -> None:
        pass

    def checkpoint(self, step: int, path: Path) -> None:
        pass
