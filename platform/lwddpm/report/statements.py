"""Which of the paper's statements a run supports, contradicts or cannot decide: from intervals, never by hand."""

from typing import Literal, NamedTuple

from lwddpm.report.data import ComparisonReport, Measurement
from lwddpm.report.intervals import CONFIDENCE, Difference, difference, holm, p_value
from lwddpm.report.published import NAMES, STATEMENTS, VARIANTS, Claim, Statement
from lwddpm.report.results import SSIM, copies, copying_rows, num_trainings, repeats
from lwddpm.wording import counted

Verdict = Literal[
    "supports", "contradicts", "cannot decide", "cannot decide (one training)", "cannot decide (copies)", "not measured"
]
# 1 as the paper says, -1 the other way round, 0 within the noise; "copies": a row returns training slices
Agreement = Literal[1, -1, 0, "one training", "copies"]
HIGHER_IS_BETTER = ("ssim",)


class Evidence(NamedTuple):
    """One pair of rows.

    Attributes:
        difference: first minus second, in the unit of the quantity, with the interval of this pair alone; None where a
            row was not measured.
        agrees: decided at 95 % for all pairs of the statement together (Holm). A network that was trained once stands
            for no method, however often it is sampled; the quality of one that returns training slices is none.
    """

    first: str
    second: str
    quantity: str
    difference: Difference | None
    agrees: Agreement


class Judgement(NamedTuple):
    statement: Statement
    verdict: Verdict
    evidence: tuple[Evidence, ...]


def judge(report: ComparisonReport) -> list[Judgement]:
    """All statements of the paper, in its order."""
    return [_judge(report, statement) for statement in STATEMENTS]


def verdict(agreements: list[Agreement | None]) -> Verdict:
    """From pairs of rows to a statement: all must agree to support it, one that disagrees contradicts it.

    Args:
        agreements: of each pair; None where a row is missing.
    """
    if -1 in agreements:
        return "contradicts"
    if not agreements or None in agreements:
        return "not measured"
    if "copies" in agreements:
        return "cannot decide (copies)"
    if "one training" in agreements:
        return "cannot decide (one training)"
    return "supports" if all(agreement == 1 for agreement in agreements) else "cannot decide"


def measured_on(report: ComparisonReport, statement: Statement) -> str:
    """What the judgement of a statement stands on, of the rows that it compares the one with the least."""
    compared = [(claim, row) for claim in statement.claims for row in (claim.better, *claim.worse)]
    repeated = [len(_values(report, claim, row)) for claim, row in compared]
    quantity = statement.claims[0].quantity
    if not min(repeated):
        return "-"
    if quantity == "parameters":
        return "counted"
    if quantity == "seconds":
        return f"{counted(min(repeated), 'timing')} of 64 slices"
    measured = [_measurements(report, claim, row) for claim, row in compared]
    n = min(measurement.n for of_row in measured for measurement in of_row)
    samplings, trainings = (
        counted(min(map(len, measured)), "sampling"),
        counted(min(map(num_trainings, measured)), "training"),
    )
    return f"{samplings} of {trainings}, n = {n:,} slices"


class _Pair(NamedTuple):
    """Two rows that a claim compares, with their repeats.

    Attributes:
        exact: nothing is estimated.
        once: a row is about a network that was trained once.
        copies: a row is about one that returns training slices.
    """

    claim: Claim
    other: str
    first: list[float]
    second: list[float]
    exact: bool
    once: bool
    copies: bool

    @property
    def tested(self) -> bool:
        return bool(self.first and self.second) and not self.exact and not self.once and not self.copies


def _judge(report: ComparisonReport, statement: Statement) -> Judgement:
    pairs = [_pair(report, claim, other) for claim in statement.claims for other in claim.worse]
    adjusted = iter(holm([p_value(pair.first, pair.second) for pair in pairs if pair.tested]))
    evidence = tuple(_evidence(pair, next(adjusted) if pair.tested else None) for pair in pairs)
    agreements = [None if pair.difference is None else pair.agrees for pair in evidence]
    return Judgement(statement, verdict(agreements), evidence)


def _pair(report: ComparisonReport, claim: Claim, other: str) -> _Pair:
    compared = (claim.better, other)
    first, second = (_values(report, claim, row) for row in compared)
    of_quality = claim.quantity in ("fid", "ssim")  # costs have rounds of their own, and are the same for all weights
    once = of_quality and min(num_trainings(_measurements(report, claim, row)) for row in compared) < 2
    copying = of_quality and any(_copies(report, claim, row) for row in compared)
    return _Pair(claim, other, first, second, claim.quantity == "parameters", once, copying)


def _evidence(pair: _Pair, p: float | None) -> Evidence:
    """`p`: adjusted; None where nothing is tested."""
    claim = pair.claim
    names = (_name(claim, claim.better), _name(claim, pair.other))
    if not pair.first or not pair.second:
        return Evidence(*names, claim.quantity, None, 0)
    if pair.exact:
        value = pair.first[0] - pair.second[0]
        compared = Difference(value, value, value, (value > 0) - (value < 0))
    else:
        compared = difference(pair.first, pair.second)
    agrees: Agreement = 0
    if pair.copies:
        agrees = "copies"
    elif pair.once:
        agrees = "one training"
    elif p is None or p < 1 - CONFIDENCE:
        higher = compared.value > 0
        agrees = 0 if compared.value == 0 else 1 if higher == (claim.quantity in HIGHER_IS_BETTER) else -1
    return Evidence(*names, claim.quantity, compared, agrees)


def _values(report: ComparisonReport, claim: Claim, row: str) -> list[float]:
    if claim.group == "system" and claim.quantity in ("parameters", "seconds"):
        if claim.quantity == "seconds":
            return [value for cost in report.costs if cost.system == row for value in cost.seconds_per_64]
        return [
            float(report.training(system.trainings[0]).parameters) for system in report.systems if system.name == row
        ]
    return repeats(_measurements(report, claim, row), _metric(report, claim))


def _measurements(report: ComparisonReport, claim: Claim, row: str) -> list[Measurement]:
    return [
        m
        for m in report.group(claim.group)
        if m.label == row and claim.system in (None, m.system) and _metric(report, claim) in m.values
    ]


def _copies(report: ComparisonReport, claim: Claim, row: str) -> bool:
    if claim.group == "system":
        return row in copying_rows(report)
    return copies(_measurements(report, claim, row))


def _metric(report: ComparisonReport, claim: Claim) -> str:
    return report.distance if claim.quantity == "fid" else SSIM


def _name(claim: Claim, row: str) -> str:
    """How people call a row."""
    if claim.group == "system":
        return NAMES[row]
    return f"{NAMES[claim.system]} with {VARIANTS.get(row, row)}" if claim.system else VARIANTS.get(row, row)
