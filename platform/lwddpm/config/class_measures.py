"""What is measured of models that are told the class, beside every `Metric`: the one list of it.

Evaluations measure them, searches may have them as objectives, comparisons and the board show them.
"""

from typing import Literal, NamedTuple

ClassObjective = Literal["eval/obedience_lite0", "eval/fd_lite0_in_class", "eval/utility_lite0"]


class ClassMeasure(NamedTuple):
    """How a measure is read.

    Attributes:
        better: which values are.
        share: whether it lies in [0, 1].
        label: its name in tables; of_class: of the figures of single classes that it is made of.
        means, means_of_class: what each of the two is, as a clause.
        floor: what its floor is, in a word or two.
    """

    better: Literal["high", "low"]
    share: bool
    label: str
    means: str
    of_class: str
    means_of_class: str
    floor: str = "real slices"


CLASS_MEASURES: dict[str, ClassMeasure] = {
    "obedience_lite0": ClassMeasure(
        "high",
        True,
        "obedience",
        "share of drawn slices that come out as the class that they were asked for, by a classifier of real slices",
        "obedience",
        "of the slices asked for, the share that comes out as the class",
    ),
    "fd_lite0_in_class": ClassMeasure(
        "low",
        False,
        "FD within classes",
        "mean over classes of the Fréchet distance between a class's training slices and its drawings, at the n of "
        "the class",
        "FD",
        "distance to the training slices of the class",
    ),
    "utility_lite0": ClassMeasure(
        "high",
        True,
        "utility",
        "balanced accuracy on real validation slices of a classifier that learnt from the drawings alone, which copies "
        "of training slices raise as well",
        "sensitivity",
        "of the real validation slices of the class, the share that a classifier recognises which learnt from the "
        "drawings alone",
        "from real slices",
    ),
}


def class_measure(objective: str) -> ClassMeasure | None:
    """The measure that an objective of a search names; None: it is no such objective."""
    return CLASS_MEASURES.get(objective.removeprefix("eval/")) if objective.startswith("eval/") else None
