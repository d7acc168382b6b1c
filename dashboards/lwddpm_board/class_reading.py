"""What readers make of the question "which class?": how often they are right, what they take for what, who agrees.

Real and synthetic slices are told apart: readers who recognise the class of real slices, and not that of synthetic
ones, say that the model does not draw what it is asked for; where they fail on both, the question is a hard one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lwddpm.evaluation.intervals import Interval, jackknife
from lwddpm_board.shares import Share


@dataclass(frozen=True)
class OfKind:
    """Answers to the real, or to the synthetic slices of a study.

    Attributes:
        right: share of right answers.
        confusion: answers, int64 [classes, classes]: of slices of each class (row), those that named each (column).
        kappa: agreement of two readers beyond chance (Cohen 1960), the mean over all pairs (Light 1971); None for one
            reader, or where chance alone would have them agree.
        kappa_interval: for other slices and the same readers, 95 %; None for too few slices.
    """

    right: Share
    confusion: np.ndarray
    kappa: float | None
    kappa_interval: Interval | None

    @classmethod
    def of(cls, said: np.ndarray, truth: np.ndarray, num_classes: int) -> "OfKind":
        """`said`: int64 [readers, slices], the class that each named; `truth`: int64 [slices]."""
        confusion = np.zeros((num_classes, num_classes), np.int64)
        np.add.at(confusion, (np.tile(truth, len(said)), said.ravel()), 1)
        kappa = mean_kappa(said, num_classes)
        interval = None
        if kappa is not None:
            interval = jackknife(kappa, lambda rows: mean_kappa(said[:, rows], num_classes) or 0.0, said.shape[1])
        return cls(Share.of_slices(said == truth), confusion, kappa, interval)

    @property
    def kappa_text(self) -> str:
        if self.kappa is None:
            return "–"
        within = "" if self.kappa_interval is None else " ({:.2f} to {:.2f})".format(*self.kappa_interval)
        return f"{self.kappa:.2f}{within}"


@dataclass(frozen=True)
class ClassOutcome:
    """How well classes were recognised, by one reader or by all who have finished.

    Attributes:
        accuracy: right answers among all.
    """

    classes: tuple[str, ...]
    accuracy: Share
    real: OfKind
    synthetic: OfKind

    @classmethod
    def of(cls, said: np.ndarray, truth: np.ndarray, synthetic: np.ndarray, classes: Sequence[str]) -> "ClassOutcome":
        """`synthetic`: bool [slices]; for the others see `OfKind.of`."""
        real, drawn = (OfKind.of(said[:, kind], truth[kind], len(classes)) for kind in (~synthetic, synthetic))
        return cls(tuple(classes), Share.of_slices(said == truth), real, drawn)

    def metrics(self) -> dict[str, float]:
        """What is kept in MLflow, by name."""
        low, high = self.accuracy.interval
        values = {"accuracy": self.accuracy.value, "accuracy_low": low, "accuracy_high": high}
        values["n"] = float(self.accuracy.of)
        for name, kind in (("real", self.real), ("synthetic", self.synthetic)):
            values[f"right_class_{name}"] = kind.right.value
            if kind.kappa is not None:
                values[f"kappa_{name}"] = kind.kappa
        return {f"reader/{name}": value for name, value in values.items()}


def mean_kappa(said: np.ndarray, num_classes: int) -> float | None:
    """Cohen's kappa of all pairs of readers, averaged; None where no pair has one.

    Args:
        said: int64 [readers, slices].
    """
    found = [kappa(*pair, num_classes) for pair in combinations(said, 2)]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def kappa(first: np.ndarray, second: np.ndarray, num_classes: int) -> float | None:
    """Cohen's kappa of two readers, int64 [slices] each; None where both name one class alone."""
    shares = [np.bincount(one, minlength=num_classes) / len(one) for one in (first, second)]
    by_chance = float(shares[0] @ shares[1])
    return None if by_chance == 1 else (float((first == second).mean()) - by_chance) / (1 - by_chance)
