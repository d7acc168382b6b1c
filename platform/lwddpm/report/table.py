"""A table of a report: its cells, how their numbers are written, and what its rows are called."""

from typing import NamedTuple

from lwddpm.report import results
from lwddpm.report.data import ComparisonReport
from lwddpm.report.intervals import Difference, MeanInterval
from lwddpm.wording import decimals_of, measured, number

DAGGER = "†"
TIE = "="
COPIER = "returns training slices"


class Cell(NamedTuple):
    """A place in a table.

    Attributes:
        origin: `run`, `paper`, `other` (of this run, not comparable with the paper's beside it) or `text`.
    """

    text: str
    origin: str = "text"
    strong: bool = False


class Table(NamedTuple):
    key: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def with_interval(mean: MeanInterval) -> str:
    """Mean ± half of the interval, both with the decimals of the mean."""
    half = "" if mean.half_width is None else f" ± {measured(mean.half_width, decimals_of(mean.mean))}"
    return measured(mean.mean) + half


def interval(difference: Difference) -> str:
    """A difference and its interval, all with the decimals that fit the widest of them."""
    value, low, high, _ = difference
    if low is None or high is None:
        return measured(value)
    decimals = decimals_of(max(abs(low), abs(high)))
    return f"{measured(value, decimals)} ({measured(low, decimals)} to {measured(high, decimals)})"


def times(ratio: Difference) -> str:
    return f"{number(ratio.value, 3)} x" if ratio.value < 10 else f"{measured(ratio.value, 1)} x"


def name_of(row: results.SystemRow) -> Cell:
    return Cell(f"{row.name} ({COPIER})" if row.copies else row.name)


def held_out(report: ComparisonReport) -> str:
    return "simulated held-out slices" if report.simulated else "real held-out slices"
