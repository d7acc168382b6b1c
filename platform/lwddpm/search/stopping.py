"""Early stopping, decided from the study alone, so that a search that was killed decides as an undisturbed one.

Both rules see what a trial has reached at a rung and the curves of the other trials (budget -> value, as
`trials.curve`), and say whether the trial ends there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import optuna

from lwddpm.config import SearchJob
from lwddpm.config.search import maximised
from lwddpm.search.trials import ENDED_AT, REPEATS, curve

Curve = Mapping[int, float]
MIN_CURVES = 3  # fewer have no median worth the name; Tune's default


def asha(step: int, value: float, others: Iterable[Curve], *, reduction_factor: int, maximise: bool) -> bool:
    """Whether asynchronous successive halving (Li et al. 2018, arXiv:1810.05934) ends a trial at this rung.

    It goes on if it is not below the quantile 1 - 1/reduction_factor of what was measured at the rung before, as in
    Ray Tune's ASHAScheduler: with 3, in the best third. The first trial at a rung always goes on.

    Args:
        step, value: the rung and what was measured there.
        others: curves of the other trials so far, whatever became of them.
        maximise: whether more is better.
    """
    sign = 1.0 if maximise else -1.0
    before = [sign * other[step] for other in others if step in other]
    return bool(before) and bool(sign * value < np.nanpercentile(before, (1 - 1 / reduction_factor) * 100))


def median(step: int, own: Curve, others: Iterable[Curve], *, maximise: bool) -> bool:
    """Whether the median stopping rule (Golovin et al. 2017, Google Vizier) ends a trial at this rung.

    It goes on if its best value so far is not worse than the median of the others' means up to this rung. Those that
    ended before the rung do not count; with fewer than three others every trial goes on.

    Args:
        step: the rung.
        own: the trial's own curve, up to and with this rung.
        others: curves of the other trials so far, whatever became of them.
        maximise: whether more is better.
    """
    means = [
        np.mean([value for at, value in sorted(other.items()) if at <= step])
        for other in others
        if other and max(other) >= step
    ]
    if len(means) < MIN_CURVES:
        return False
    middle, best = np.median(means), (max if maximise else min)(own.values())
    return bool(middle > best if maximise else middle < best)


@dataclass(frozen=True)
class StoppingRule:
    """The early stopping of a search.

    Attributes:
        scheduler: `asha`, `median` or `none`.
        maximise: whether more is better of what it compares.
    """

    scheduler: str
    reduction_factor: int
    maximise: bool

    @classmethod
    def of(cls, job: SearchJob) -> Self:
        search = job.search
        return cls(search.scheduler, search.reduction_factor, maximised(search.pruned_on))

    def ends(self, trial: optuna.Trial, step: int, value: float) -> bool:
        """Whether a trial that has reached a rung ends there; to be asked before the rung is reported to the study.

        A trial that is continued by a later session reports its rungs again. What was decided at them stands: an end is
        written into the study before anything else, and a rung that the study has without an end was passed.
        """
        stored = trial.study.get_trials(deepcopy=False)
        own = curve(stored[trial.number])
        if (ended_at := stored[trial.number].user_attrs.get(ENDED_AT)) is not None:
            return bool(ended_at == step)
        if step in own:
            return False
        others = [curve(other) for other in stored if other.number != trial.number and REPEATS not in other.user_attrs]
        if self._decide(step, {**own, step: value}, others):
            trial.set_user_attr(ENDED_AT, step)
            return True
        return False

    def _decide(self, step: int, own: Curve, others: list[dict[int, float]]) -> bool:
        match self.scheduler:
            case "asha":
                return asha(step, own[step], others, reduction_factor=self.reduction_factor, maximise=self.maximise)
            case "median":
                return median(step, own, others, maximise=self.maximise)
        return False
