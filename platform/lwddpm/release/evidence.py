"""What was measured of a version and is stored with it: evaluation and audit, if they belong to that very version."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lwddpm.evaluation.result import EvaluationResult, MetricRecord
from lwddpm.tracking import attachments, registry_log
from lwddpm.tracking.registry import WEIGHTS, RegisteredVersion

DATASET = "lwddpm.dataset_version"  # tag of a version: what it was trained on
_RUN_FILE = "evaluation/metrics.json"


@dataclass(frozen=True)
class Measured:
    """A figure; `low` and `high` are the ends of its 95 % interval, None where nobody knows them."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    floor: float | None = None


@dataclass(frozen=True)
class Evidence:
    """The results of one source.

    Attributes:
        source: evaluation or audit.
        problem: why there are none that count; empty: these do.
        figures: by metric.
        verdict: of an audit: clear, copies or undecided.
        date: when it was measured.
        sha256: of the stored file.
        code: hash or version of the code of an audit.
        about: further content of an audit's file: controls, power and what else its records say.
        warnings: of an evaluation.
    """

    source: str
    problem: str = ""
    figures: Mapping[str, Measured] = field(default_factory=dict)
    verdict: str | None = None
    date: datetime | None = None
    sha256: str = ""
    code: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class _AuditRecord(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


class _Audit(BaseModel):
    """`audit.json`, as far as the gate reads it."""

    model_config = ConfigDict(extra="allow")

    model: str
    dataset: str
    code: str
    date: datetime
    records: list[_AuditRecord]
    verdict: str


class _Evaluation(BaseModel):
    """`evaluation.json` as an evaluate job stores it with a version."""

    model: str
    dataset: str
    date: datetime
    evaluation: EvaluationResult


def audit_of(version: RegisteredVersion, code: str | None) -> Evidence:
    """The audit that is stored with a version.

    Args:
        code: of this platform's audit, if it has one: audits by other code do not count.
    """
    text = attachments.attached(version, attachments.AUDIT)
    if text is None:
        return Evidence("audit", "none is stored with this version")
    try:
        found = _Audit.model_validate_json(text)
    except ValidationError:
        return Evidence("audit", f"{attachments.AUDIT} of this version cannot be read")
    sha256 = hashlib.sha256(text).hexdigest()
    problem = (
        _of_another(version, found.model, found.dataset)
        or _past_the_log(version, "audit", sha256)
        or _of_other_code(found.code, code)
        or _twice(record.name for record in found.records)
    )
    figures = {r.name: Measured(r.value, r.low, r.high, r.n) for r in found.records}
    about = (found.model_extra or {}) | {"records": [record.model_dump() for record in found.records]}
    return Evidence("audit", problem, figures, found.verdict, _utc(found.date), sha256, found.code, about)


def evaluation_of(version: RegisteredVersion) -> Evidence:
    """The evaluation of a version: one that was stored with it later, else that of its registration."""
    text = attachments.attached(version, attachments.EVALUATION)
    try:
        if text is not None:
            found = _Evaluation.model_validate_json(text)
            sha256 = hashlib.sha256(text).hexdigest()
            problem = _of_another(version, found.model, found.dataset) or _past_the_log(version, "evaluation", sha256)
            return _told(found.evaluation, problem, found.date, sha256)
        text = attachments.of_run(version, _RUN_FILE)
        if not version.metrics or text is None:
            return Evidence("evaluation", "none is stored with this version")
        result = EvaluationResult.model_validate_json(text)
    except ValidationError:
        return Evidence("evaluation", "that of this version cannot be read")
    same = {name: f"{value:.6g}" for name, value in result.metrics().items()}
    told = {name: f"{value:.6g}" for name, value in version.metrics.items()}
    problem = _of_another(version, version.tags.get(WEIGHTS, ""), result.dataset_version)
    if not told.items() <= same.items():
        problem = "the one of its run has other figures than the version was registered with"
    created, sha256 = datetime.fromisoformat(version.created), hashlib.sha256(text).hexdigest()
    return _told(result, problem, created, sha256)


def _told(result: EvaluationResult, problem: str, date: datetime, sha256: str) -> Evidence:
    figures, warnings = _figures(result.records), result.warnings
    return Evidence("evaluation", problem, figures, date=_utc(date), sha256=sha256, warnings=warnings)


def _figures(records: Iterable[MetricRecord]) -> dict[str, Measured]:
    found = {}
    for record in records:
        low, high = record.interval or (None, None)
        found[record.name] = Measured(record.value, low, high, record.n, record.floor)
    return found


def _of_another(version: RegisteredVersion, model: str, dataset: str) -> str:
    """Why a result does not belong to a version; empty: it does."""
    weights, trained_on = version.tags.get(WEIGHTS), version.tags.get(DATASET)
    if weights is None or trained_on is None:
        return "this version does not say which weights it has and what it was trained on; register the model anew"
    if model != weights:
        return f"it is of another model (weights {model[:12]}, this version has {weights[:12]})"
    if dataset != trained_on:
        return f"it was made with dataset {dataset[:12]}, and this version was trained on {trained_on[:12]}"
    return ""


def _of_other_code(made_by: str, code: str | None) -> str:
    if code is None or made_by == code:
        return ""
    return f"it was made by other code ({made_by[:12]}, this platform's is {code[:12]}): run the audit again"


def _past_the_log(version: RegisteredVersion, kind: str, sha256: str) -> str:
    """Whether a stored file is another than the newest that the log knows; files that nobody logged count."""
    logged = [
        entry["data"].get("sha256")
        for entry in registry_log.entries(version.name)
        if entry.get("kind") == kind and entry.get("version") == version.version
    ]
    return "" if not logged or logged[-1] == sha256 else "its file is not the one that the log knows: it was replaced"


def _twice(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return f"it tells {name} twice"
        seen.add(name)
    return ""


def finite(value: float | None) -> bool:
    """Whether a number can be compared with a limit: NaN would pass any guard that asks whether it is too large."""
    return value is not None and math.isfinite(value)


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
