"""Which systems are better than the Gaussian of the training slices, which has no network and no training."""

from typing import Any, NamedTuple

from lwddpm.report.data import GAUSSIAN, ComparisonReport
from lwddpm.report.intervals import Difference, difference
from lwddpm.report.results import measured_of, repeats, rows


class AgainstBaseline(NamedTuple):
    """A row of Table 1 beside the baseline.

    Attributes:
        name: the row's, as people write it.
        difference: its Fréchet distance minus the baseline's, with Welch's interval where both were repeated.
        beats: its distance is lower, and not by the noise where that is known: with a single measurement, by its mean;
            what returns training slices beats nothing.
        copies: it returns training slices.
    """

    key: str
    name: str
    difference: Difference
    beats: bool
    copies: bool = False


def against_baseline(report: ComparisonReport) -> list[AgainstBaseline]:
    """All rows that were measured; none where a comparison of an earlier version has no baseline."""
    baseline = repeats(measured_of(report, GAUSSIAN), report.distance)
    if not baseline:
        return []
    compared = []
    for row in rows(report):
        own = repeats(measured_of(report, row.key), report.distance)
        if own and row.key != GAUSSIAN:
            minus = difference(own, baseline)
            beats = minus.value < 0 if minus.low is None else minus.differs == -1
            compared.append(AgainstBaseline(row.key, row.name, minus, beats and not row.copies, row.copies))
    return compared


def as_json(report: ComparisonReport) -> dict[str, Any]:
    """By row: whether it beats the baseline, and the difference with its interval (null: measured once)."""
    return {
        row.key: {
            "name": row.name,
            "beats": row.beats,
            "copies": row.copies,
            f"{report.distance}_minus_gaussian": row.difference.value,
            "interval": None if row.difference.low is None else [row.difference.low, row.difference.high],
        }
        for row in against_baseline(report)
    }
