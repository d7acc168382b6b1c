"""How the training loop reports what it does: nothing else leads out of the core."""

from pathlib import Path
from typing import Protocol

import numpy as np


class Reporter(Protocol):
    """Called on rank 0 only. Steps are completed optimizer steps.

    A step may be reported more than once, and steps may come back: a training that goes on from a checkpoint reports
    what followed it again. Numbers may be infinite or NaN. tests/training/test_reporter_contract.py holds what every
    reporter is expected to take.
    """

    def metrics(self, rows: dict[int, dict[str, float]]) -> None:
        """Numbers by step, of one step or more: one call for many, since a listener may be a process away."""

    def images(self, step: int, epoch: float, images: np.ndarray) -> None:
        """Samples drawn from the EMA weights: uint8 [N, H, W], N at least 1."""

    def checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint that is wholly on disk."""

    def warning(self, step: int, message: str) -> None:
        """What a person should know although the training goes on."""


class SilentReporter:
    """Keeps nothing: for benchmarks, and for ranks other than 0."""

    def metrics(self, rows: dict[int, dict[str, float]]) -> None:
        pass

    def images(self, step: int, epoch: float, images: np.ndarray) -> None:
        pass

    def checkpoint(self, step: int, path: Path) -> None:
        pass

    def warning(self, step: int, message: str) -> None:
        pass


class RecordingReporter:
    """Keeps everything in memory: for measurements, notebooks and tests.

    Attributes:
        values: numbers by step; of a number that is reported twice the last.
        drawn: (step, images) of every snapshot, in the order of the calls.
        saved: steps of the checkpoints, in the order of the calls.
        warnings: messages, in the order of the calls.
    """

    def __init__(self) -> None:
        self.values: dict[int, dict[str, float]] = {}
        self.drawn: list[tuple[int, np.ndarray]] = []
        self.saved: list[int] = []
        self.warnings: list[str] = []

    def metrics(self, rows: dict[int, dict[str, float]]) -> None:
        for step, values in rows.items():
            self.values.setdefault(step, {}).update(values)

    def images(self, step: int, epoch: float, images: np.ndarray) -> None:
        self.drawn.append((step, images))

    def checkpoint(self, step: int, path: Path) -> None:
        self.saved.append(step)

    def warning(self, step: int, message: str) -> None:
        self.warnings.append(message)

    def series(self, name: str) -> dict[int, float]:
        """One number by step, in the order of the steps."""
        return {step: values[name] for step, values in sorted(self.values.items()) if name in values}
