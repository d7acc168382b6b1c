"""Which of the paper's statements a run supports, contradicts or cannot decide: from intervals, never by hand."""

from typing import Literal, NamedTuple

from lwddpm.report.data import ComparisonReport
from lwddpm.report.intervals import Difference, difference
from lwddpm.report.published import NAMES, STATEMENTS, VARIANTS, Claim, Statement
from lwddpm.report.results import SSIM, repeats

Verdict = Literal["supports", "contradicts", "cannot decide", "not measured"]
HIGHER_IS_BETTER = ("ssim",)


class Evidence(NamedTuple):
    """One pair of rows.

    Attributes:
        difference: first minus second, in the unit of the quantity; None where a row was not measured.
        agrees: 1 as the paper says, -1 the other way round, 0 within the noise.
    """

    first: str
    second: str
    quantity: str
    difference: Difference | None
    agrees: int


class Judgement(NamedTuple):
    statement: Statement
    verdict: Verdict
    evidence: tuple[Evidence, ...]


def judge(report: ComparisonReport) -> list[Judgement]:
    """All statements of the paper, in its order."""
    return [_judge(report, statement) for statement in STATEMENTS]


def verdict(agreements: list[int | None]) -> Verdict:
    """From pairs of rows to a statement: all must agree to support it, one that disagrees contradicts it.

    Args:
        agreements: 1, 0 or -1 for each pair; None where a row is missing.
    """
    if -1 in agreements:
        return "contradicts"
    if not agreements or None in agreements:
        return "not measured"
    return "supports" if all(agreement == 1 for agreement in agreements) else "cannot decide"


def _judge(report: ComparisonReport, statement: Statement) -> Judgement:
    evidence = tuple(_compare(report, claim, other) for claim in statement.claims for other in claim.worse)
    agreements = [None if pair.difference is None else pair.agrees for pair in evidence]
    return Judgement(statement, verdict(agreements), evidence)


def _compare(report: ComparisonReport, claim: Claim, other: str) -> Evidence:
    names = [_name(claim, row) for row in (claim.better, other)]
    first, second = (_values(report, claim, row) for row in (claim.better, other))
    if not first or not second:
        return Evidence(names[0], names[1], claim.quantity, None, 0)
    if claim.quantity == "parameters":  # exact: nothing is estimated
        value = first[0] - second[0]
        compared = Difference(value, value, value, (value > 0) - (value < 0))
    else:
        compared = difference(first, second)
    agrees = compared.differs if claim.quantity in HIGHER_IS_BETTER else -compared.differs
    return Evidence(names[0], names[1], claim.quantity, compared, agrees)


def _values(report: ComparisonReport, claim: Claim, row: str) -> list[float]:
    if claim.group == "system" and claim.quantity in ("parameters", "seconds"):
        if claim.quantity == "seconds":
            return [value for cost in report.costs if cost.system == row for value in cost.seconds_per_64]
        return [
            float(report.training(system.trainings[0]).parameters) for system in report.systems if system.name == row
        ]
    metric = report.distance if claim.quantity == "fid" else SSIM
    measured = [
        m for m in report.group(claim.group) if m.label == row and (claim.system is None or m.system == claim.system)
    ]
    return repeats(measured, metric)


def _name(claim: Claim, row: str) -> str:
    """How people call a row."""
    if claim.group == "system":
        return NAMES[row]
    return f"{NAMES[claim.system]} with {VARIANTS.get(row, row)}" if claim.system else VARIANTS.get(row, row)
