"""From which score on a slice counts as a copy: set, and tried, on real held-out slices, which are no copies.

Held-out groups (duplicates, or the slices of one subject) are halved at random. A half sets thresholds, the other shows
how often they raise a false alarm; then the other way round. So every group tries thresholds that it had no part in.
The audit takes the higher threshold of each detector, with which false alarms are no more frequent than reported.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lwddpm.audit.shares import Share, share_of
from lwddpm.errors import DataError

CONFIDENCE = 0.95
_TAIL = 0.1  # of the groups that set a threshold: through their scores an exponential tail is laid
_LEAST_GAP = 1e-6  # of a score from 1
# How the detectors share the rate of false alarms: at 64x64 features alone find few kinds of copies.
DETECTORS = {"correlation": 0.8, "features": 0.2}
Scores = Mapping[str, np.ndarray]  # detector -> score of each slice, at most 1


def fewest_groups(rate: float) -> int:
    """Groups that certify a rate of false alarms: with none among so many it lies below, with 95 % confidence."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - rate))


def check_groups(num_groups: int, rate: float, where: str) -> None:
    """Refuse an audit that could not certify its rate of false alarms whatever it finds.

    Raises:
        DataError: says how many groups are needed.
    """
    needed = fewest_groups(rate)
    if num_groups < needed:
        attainable = 1 - (1 - CONFIDENCE) ** (1 / max(num_groups, 1))
        raise DataError(
            f"{where}: to certify audit.false_alarm_rate = {rate:g} takes {needed} or more held-out groups of slices "
            f"(duplicates or subjects), got {num_groups}; give validation and test a larger share in data.splits, or "
            f"set audit.false_alarm_rate to {math.ceil(attainable * 1000) / 1000:g} or more"
        )


@dataclass(frozen=True)
class Thresholds:
    """What counts as a copy.

    Attributes:
        values: detector -> the score above which it raises an alarm.
        false_alarms: held-out groups with an alarm, of all, each tried on thresholds of the other half.
        alarmed: whether each held-out slice raised one of these, bool [N].
    """

    values: dict[str, float]
    false_alarms: Share
    alarmed: np.ndarray

    def flags(self, scores: Scores) -> np.ndarray:
        """Whether each slice counts as a copy: any detector says so, bool [N]."""
        return _flags(scores, self.values)


def calibrate(scores: Scores, groups: np.ndarray, rate: float, seed: int = 0) -> Thresholds:
    """Set thresholds from the scores of held-out slices against the training slices.

    Args:
        scores: of N held-out slices, by some or all of `DETECTORS`.
        groups: int64 [N]; the slices of a group count once, with their highest score.
        rate: wanted, of false alarms. Thresholds are set for half of it, which usually withstands being tried.
        seed: of the halving.
    """
    distinct = np.unique(groups)
    order = np.random.default_rng(seed).permutation(distinct)
    first = np.isin(groups, order[: len(order) // 2])
    alarmed = np.zeros(len(groups), dtype=bool)
    values: dict[str, float] = {}
    for calibrating in (first, ~first):
        of_half = {
            name: _tail_quantile(_highest(each[calibrating], groups[calibrating]), rate / 2 * DETECTORS[name])
            for name, each in scores.items()
        }
        alarmed |= ~calibrating & _flags(scores, of_half)
        values = {name: max(value, values.get(name, -1.0)) for name, value in of_half.items()}
    return Thresholds(values, share_of(len(np.unique(groups[alarmed])), len(distinct)), alarmed)


def _flags(scores: Scores, values: Mapping[str, float]) -> np.ndarray:
    return np.any([scores[name] > value for name, value in values.items()], axis=0)


def _highest(scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    _, place = np.unique(groups, return_inverse=True)
    highest = np.full(place.max() + 1, -np.inf)
    np.maximum.at(highest, place, scores)
    return highest


def _tail_quantile(scores: np.ndarray, rate: float) -> float:
    """The score that a share `rate` of slices exceeds, from an exponential tail of -log(1 - score).

    The scale is that of the median excess: a held-out slice that is a copy of a training slice after all, which
    preparation has missed, would otherwise raise the threshold so that it hides the copies of a generator.
    """
    gaps = -np.log(np.maximum(1 - scores, _LEAST_GAP))
    start = np.quantile(gaps, 1 - _TAIL)
    excess = gaps[gaps > start] - start
    scale = np.median(excess) / math.log(2) if len(excess) else 0.0
    if rate >= _TAIL:
        return float(np.quantile(scores, 1 - rate))
    return float(1 - math.exp(-(start + scale * math.log(_TAIL / rate))))
