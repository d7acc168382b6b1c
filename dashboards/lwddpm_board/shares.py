"""Shares of right answers with their intervals."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, t


@dataclass(frozen=True)
class Share:
    """A share of right answers with its 95 % interval.

    For one reader the exact one (Clopper & Pearson 1934). Answers of several readers to one slice are alike, since some
    slices are hard for everybody: they count for as many independent ones as leave the variance between slices
    (Korn & Graubard 1998, Confidence intervals for proportions with small expected number of positive counts).

    Attributes:
        independent: answers that would say as much if all were to slices of their own; default: all.
    """

    right: int
    of: int
    independent: float | None = None

    @classmethod
    def of_slices(cls, right: np.ndarray) -> "Share":
        """`right`: bool [readers, slices], who was right about which."""
        slices = right.shape[1]
        answers, share = right.size, float(right.mean())
        spread = float(right.mean(axis=0).var()) / slices  # variance of the share if other slices had been drawn
        independent = share * (1 - share) / spread if spread > 0 else slices
        if slices > 1:  # the variance is itself estimated, from so many slices
            independent *= (t.ppf(0.975, answers - 1) / t.ppf(0.975, slices - 1)) ** 2
        return cls(int(right.sum()), answers, float(np.clip(independent, slices, answers)))

    @property
    def interval(self) -> tuple[float, float]:
        num = self.of if self.independent is None else self.independent
        right = self.value * num
        low = float(beta.ppf(0.025, right, num - right + 1)) if self.right else 0.0
        high = float(beta.ppf(0.975, right + 1, num - right)) if self.right < self.of else 1.0
        return low, high

    @property
    def value(self) -> float:
        return self.right / self.of

    @property
    def text(self) -> str:
        low, high = self.interval
        return f"{self.value:.0%} ({low:.0%} to {high:.0%}), {self.right} of {self.of}"
