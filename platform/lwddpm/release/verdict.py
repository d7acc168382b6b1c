"""A policy against what is stored with a version: each rule passed, failed or missing, with limit and value."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lwddpm.audit.result import method_code
from lwddpm.config.gate import WITHOUT_INTERVAL, GatePolicy, GateRule
from lwddpm.evaluation.copying import COPIES
from lwddpm.release.evidence import DATASET, Evidence, Measured, audit_of, evaluation_of, finite
from lwddpm.release.policy import named, policy_sha256
from lwddpm.tracking import attachments
from lwddpm.tracking.registry import WEIGHTS, RegisteredVersion
from lwddpm.wording import counted, number

Status = Literal["passed", "failed", "missing"]
APPROVAL = "somebody other than the trainer approves"
_TOLERANCE = 1e-9


class Finding(BaseModel):
    """One rule and what became of it.

    Attributes:
        rule: what must hold, such as "copied_share (audit) at most 0.02".
        value: what was found, such as "0.011 (0 to 0.018, n = 1000)"; empty where nothing was.
        reason: why it is missing, or why there is the rule.
    """

    model_config = ConfigDict(frozen=True)

    rule: str
    status: Status
    value: str = ""
    reason: str = ""

    @property
    def line(self) -> str:
        found = f": {self.value}" if self.value else ""
        return f"{self.status:<7} {self.rule}{found}" + (f" ({self.reason})" if self.status != "passed" else "")


class Verdict(BaseModel):
    """What the gate says of a version.

    Attributes:
        valid_until: when the oldest of the results that count expires; None where none counts.
        evidence: hashes of what it was judged by.
    """

    model_config = ConfigDict(frozen=True)

    policy: str
    policy_sha256: str
    status: Status
    findings: tuple[Finding, ...]
    valid_until: datetime | None
    evidence: dict[str, str]

    def expired_on(self, now: datetime) -> bool:
        """Whether results were there that have expired by a moment."""
        return self.valid_until is not None and self.valid_until < now

    @property
    def expired(self) -> bool:
        """Whether they have expired by now."""
        return self.expired_on(datetime.now(UTC))

    @property
    def short(self) -> str:
        """The verdict in a line."""
        open_ones = [finding.rule for finding in self.findings if finding.status != "passed"]
        why = f": {'; '.join(open_ones)}" if open_ones else ""
        return f"{self.status}, policy {self.policy}{why}"


def judge(
    policy: GatePolicy, version: RegisteredVersion, approver: str | None = None, now: datetime | None = None
) -> Verdict:
    """Hold what is stored with a version against a policy.

    Args:
        approver: who approves of this promotion.
        now: the moment; default: this one.
    """
    now = now or datetime.now(UTC)
    sources = {rule.source for rule in policy.rules}
    evidence = {
        source: evidence
        for source, evidence in (("evaluation", evaluation_of(version)), ("audit", audit_of(version, method_code())))
        if source in sources
    }
    findings = [_checked(rule, _in_time(evidence[rule.source], policy, now)) for rule in policy.rules]
    for warning in evidence["evaluation"].warnings if "evaluation" in evidence else ():
        if COPIES in warning:
            findings.append(Finding(rule="the evaluation warns of no copies", status="failed", value=warning))
    if "audit" in evidence:
        findings.append(_audit_verdict(_in_time(evidence["audit"], policy, now)))
    if policy.readers_study:
        findings.append(_readers(attachments.finished_readers(version)))
    if policy.approver:
        findings.append(_approval(approver, attachments.trainer_of(version)))
    if version.withdrawn:
        held = f"its dataset holds slices of {version.withdrawn:,} withdrawn subjects or files"
        rule = "no training slice withdrawn since"
        findings.append(Finding(rule=rule, status="failed", value=held, reason="train anew without these"))
    states = {finding.status for finding in findings}
    dates = [found.date for found in evidence.values() if found.date is not None and not found.problem]
    hashes = {f"{source}_sha256": found.sha256 for source, found in evidence.items() if found.sha256}
    hashes |= {"weights": version.tags.get(WEIGHTS, ""), "dataset": version.tags.get(DATASET, "")}
    if "audit" in evidence and evidence["audit"].code:
        hashes["audit_code"] = evidence["audit"].code
    return Verdict(
        policy=named(policy),
        policy_sha256=policy_sha256(policy),
        status="failed" if "failed" in states else "missing" if "missing" in states else "passed",
        findings=tuple(findings),
        valid_until=min(dates) + timedelta(days=policy.expires_days) if dates else None,
        evidence=hashes,
    )


def _in_time(found: Evidence, policy: GatePolicy, now: datetime) -> Evidence:
    """The same, or, of one that has expired or is from the future, that it does not count."""
    if found.problem or found.date is None:
        return found
    age = now - found.date
    if age > timedelta(days=policy.expires_days):
        problem = f"that of {found.date:%Y-%m-%d} has expired: it counted for {counted(policy.expires_days, 'day')}"
    elif age < -timedelta(days=1):
        problem = f"it is dated {found.date:%Y-%m-%d}, which is to come"
    else:
        return found
    return Evidence(found.source, problem, found.figures, found.verdict, found.date, found.sha256, found.code)


def _checked(rule: GateRule, found: Evidence) -> Finding:
    """One rule against the results of its source. Only what is a number within its limit passes."""
    side = "at most" if rule.at_most is not None else "at least"
    limit = f"{number(rule.limit)} times its floor" if rule.times_floor else number(rule.limit)
    told = f"{rule.metric} ({rule.source}) {side} {limit}"

    def finding(status: Status, value: str = "", reason: str = rule.why) -> Finding:
        return Finding(rule=told, status=status, value=value, reason=reason)

    if found.problem:
        return finding("missing", reason=f"{rule.source}: {found.problem}")
    figure = found.figures.get(rule.metric)
    if figure is None:
        return finding("missing", reason=f"the {rule.source} does not tell it")
    value = _said(figure)
    if rule.fewest is not None and (figure.n is None or figure.n < rule.fewest):
        if _surely_beyond(rule, figure):  # which more slices would not mend
            return finding("failed", value)
        return finding("missing", value, f"it takes {rule.fewest:,} slices or more")
    if not finite(figure.value):
        return finding("failed", value, "it is not a number")
    bound: float | None = figure.value
    if rule.metric in WITHOUT_INTERVAL:
        value += ", the value itself: nobody gives it an interval"
    else:
        bound = figure.high if rule.at_most is not None else figure.low
        if bound is None:
            return finding("missing", value, "it has no interval: measure it on more slices")
        if not finite(figure.low) or not finite(figure.high) or not _in_order(figure):
            return finding("failed", value, "its interval is none")
    limited = rule.limit
    if rule.times_floor:
        if not finite(figure.floor) or figure.floor <= 0:  # type: ignore[operator]
            return finding("missing", value, "it has no floor that a limit can be a multiple of")
        limited *= figure.floor  # type: ignore[operator]
        value += f", floor {number(figure.floor)}"
    assert bound is not None
    holds = bound <= limited if rule.at_most is not None else bound >= limited
    return finding("passed" if holds else "failed", value)


def _surely_beyond(rule: GateRule, figure: Measured) -> bool:
    """Whether the whole interval of a figure is beyond a limit; of one that is a multiple of a floor nobody says so."""
    if rule.times_floor or not finite(figure.low) or not finite(figure.high) or not _in_order(figure):
        return False
    assert figure.low is not None
    assert figure.high is not None
    return figure.low > rule.limit if rule.at_most is not None else figure.high < rule.limit


def _in_order(figure: Measured) -> bool:
    slack = _TOLERANCE * max(1.0, abs(figure.value))
    assert figure.low is not None
    assert figure.high is not None
    return figure.low <= figure.value + slack and figure.value <= figure.high + slack


def _said(figure: Measured) -> str:
    interval = "" if figure.low is None or figure.high is None else f"{number(figure.low)} to {number(figure.high)}"
    beside = ", ".join(filter(None, [interval, "" if figure.n is None else f"n = {figure.n:,}"]))
    return number(figure.value) + (f" ({beside})" if beside else "")


def _audit_verdict(found: Evidence) -> Finding:
    rule = "the audit's own verdict is clear"
    if found.problem:
        return Finding(rule=rule, status="missing", reason=f"audit: {found.problem}")
    states: Mapping[str, Status] = {"clear": "passed", "copies": "failed"}
    reason = {"copies": "it found copies of training slices", "clear": ""}
    status = states.get(found.verdict or "", "missing")
    told = "; ".join(str(each) for each in found.about.get("reasons") or [])
    why = reason.get(found.verdict or "", told or "it could not decide: draw more, or hold out more groups")
    return Finding(rule=rule, status=status, value=found.verdict or "none", reason=why)


def _readers(finished: int) -> Finding:
    rule = "a reader has finished a study of this version"
    if not finished:
        why = "set one up on the board: lwddpm dashboard, Readers"
        return Finding(rule=rule, status="missing", value="no reader", reason=why)
    return Finding(rule=rule, status="passed", value=counted(finished, "reader"))


def _approval(approver: str | None, trainer: str | None) -> Finding:
    rule = APPROVAL
    if not (approver or "").strip():
        return Finding(rule=rule, status="missing", reason="name who does: --approver NAME")
    if trainer is None:
        return Finding(rule=rule, status="missing", value=str(approver), reason="who trained it is not known")
    same = _plain(approver) == _plain(trainer)
    return Finding(
        rule=rule,
        status="failed" if same else "passed",
        value=f"{approver}, trained by {trainer}",
        reason="who trained a version does not approve it" if same else "",
    )


def _plain(name: Any) -> str:
    return " ".join(str(name).casefold().split())
