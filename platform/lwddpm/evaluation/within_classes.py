"""Realism and diversity within each class: what the figures of a whole drawing hide.

The slices that were asked for a class are set beside training slices of that class alone, as many of them: a model may
draw one class well and of another a single kind. The floor is as many held-out slices of the class. n is that of the
class, so figures of two classes compare with their own floors, and only those of equal n with each other.
"""

from collections.abc import Sequence
from typing import NamedTuple

from lwddpm.evaluation.inputs import MetricInputs
from lwddpm.evaluation.neighbours import K, Neighbours
from lwddpm.evaluation.obedience import FEWEST, by_class, class_codes
from lwddpm.evaluation.subset import random_subset

_FIGURES = ("precision", "recall", "density", "coverage")


class OfOneClass(NamedTuple):
    """Attributes:
    n: slices drawn of it that are compared, and held-out ones for the floors.
    values, floors: by metric (`precision_lite0` and so on).
    """

    n: int
    values: dict[str, float]
    floors: dict[str, float]


def within_classes(inputs: MetricInputs, asked: Sequence[str | None]) -> dict[str, OfOneClass]:
    """Precision, recall, density and coverage (`evaluation.neighbours`) of each class that has enough slices.

    Args:
        asked: the label that each generated slice was asked for; None: for none.
    """
    codes, found = class_codes(inputs.dataset, asked[: inputs.num]), {}
    for name, slices in by_class(inputs, codes, max(FEWEST, K + 1)):
        n = min(len(slices.drawn), len(slices.train))
        if n <= K:
            continue
        train = random_subset(slices.train, n)
        drawn, held_out = Neighbours(train, slices.drawn[:n]), Neighbours(train, random_subset(slices.held_out, n))
        found[name] = OfOneClass(
            n,
            {f"{figure}_lite0": float(getattr(drawn, figure)()) for figure in _FIGURES},
            {f"{figure}_lite0": float(getattr(held_out, figure)()) for figure in _FIGURES},
        )
    return found
