"""The dossier of a version, a page for whoever decides about its release: what was tested, how, and what was not."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from lwddpm.audit.result import method_code
from lwddpm.config.gate import GatePolicy
from lwddpm.files import write_whole
from lwddpm.release import audit_tables
from lwddpm.release.confirmations import tally
from lwddpm.release.evidence import Evidence, audit_of, evaluation_of
from lwddpm.release.log_check import check_log
from lwddpm.release.policy import named, policy_in_force
from lwddpm.release.promotion import approver_of
from lwddpm.release.verdict import Verdict, judge
from lwddpm.templates import template_environment
from lwddpm.tracking import attachments, registry_log
from lwddpm.tracking.registry import WEIGHTS, RegisteredVersion
from lwddpm.wording import number

NOT_STATED = "not stated"
DAMAGED = "log not whole"  # the state of a version whose log was changed
CONSENT = "lwddpm.consent"  # tag of a version: data.consent of its training
_TEMPLATES = Path(__file__).with_name("templates")
_MOST_ROWS = 24
NOT_SHOWN = (
    "Differential privacy: the training gives no guarantee of it, whatever the tests say.",
    "Attacks that are not in the table, and copies that the tests are too weak for: their power stands beside them.",
    "That the people behind the slices are anonymous in law: those who are responsible decide that case by case.",
    "Use for diagnosis, or as a substitute for real data in a study's result.",
)


def write_dossier(version: RegisteredVersion, output: Path) -> dict[str, Any]:
    """Write the page.

    Returns:
        `file`, `model`, `state` (passed, failed, missing, expired, without a policy, or log not whole) and
        `valid_until`.

    Raises:
        ConfigError, JobError: the policy cannot be told, or the file cannot be written.
    """
    content = contents(version)
    write_whole(output, page(content))
    until = content["valid_until"]
    model = f"models:/{version.name}/{version.version}"
    return {"file": str(output), "model": model, "state": content["state"], "valid_until": until}


def page(content: Mapping[str, Any]) -> str:
    """HTML that asks nobody for anything."""
    environment = template_environment(_TEMPLATES)
    environment.filters["number"] = number
    return environment.get_template("dossier.html").render(content)


def contents(version: RegisteredVersion, now: datetime | None = None) -> dict[str, Any]:
    """All that the page says, in its order."""
    now = now or datetime.now(UTC)
    policy = policy_in_force(version.name)
    approver = approver_of(version)
    verdict = None if policy is None else judge(policy, version, approver, now)
    log = registry_log.entries(version.name)
    damage = check_log(version.name, None, [])["problems"]
    own = [entry for entry in log if entry.get("version") == version.version]
    audit, evaluation = audit_of(version, method_code()), evaluation_of(version)
    tests, utility = audit_tables.tests(audit)
    until = verdict.valid_until if verdict else None
    return {
        "version": version,
        "policy": None if policy is None else named(policy),
        "verdict": verdict,
        "state": DAMAGED if damage else _state(verdict, now),
        "damage": damage[:_MOST_ROWS],
        "valid_until": None if until is None else f"{until:%Y-%m-%d}",
        "expired": verdict is not None and verdict.expired_on(now),
        "expires_days": None if policy is None else policy.expires_days,
        "use": _use(policy),
        "data": _data(version),
        "figures": _figures(evaluation),
        "evaluation": evaluation,
        "tests": tests,
        "utility": utility,
        "audit": audit,
        "planted": audit_tables.planted(audit),
        "remarks": audit_tables.remarks(audit),
        "mitigations": _mitigations(version),
        "not_shown": NOT_SHOWN,
        "people": {
            "trained by": attachments.trainer_of(version) or "not known",
            "approved by": approver or "nobody",
            "readers": _readers(version),
            **_judged(version),
        },
        "overrides": [entry for entry in own if entry.get("kind") == "override"],
        "promotions": [entry for entry in own if entry.get("kind") == "promotion"],
        "hashes": _hashes(version, verdict, audit, log),
        "made": f"{now:%Y-%m-%d %H:%M} UTC",
    }


def _judged(version: RegisteredVersion) -> dict[str, str]:
    """What people have said of the pairs that the audit flagged; empty where it flagged none."""
    counts = tally(version)
    if counts is None:
        return {}
    said = f"{counts['confirmed']} confirmed as copies, {counts['rejected']} rejected, {counts['open']} not judged"
    return {"flagged pairs": said}


def _state(verdict: Verdict | None, now: datetime) -> str:
    if verdict is None:
        return "without a policy"
    if verdict.status == "missing" and verdict.expired_on(now):
        return "expired"
    return verdict.status


def _use(policy: GatePolicy | None) -> dict[str, str]:
    return {
        "intended use": NOT_STATED if policy is None else policy.intended_use,
        "threat model": NOT_STATED if policy is None else policy.threat_model,
    }


def _data(version: RegisteredVersion) -> dict[str, str]:
    """Where the slices come from and on which basis, as far as anybody has said."""
    data = _job(version).get("data") or {}
    simulated = version.tags.get("lwddpm.simulated") == "true"
    source = "simulated slices, of no patient" if simulated else str(data.get("source") or NOT_STATED)
    return {
        "source": source,
        "consent basis": version.tags.get(CONSENT) or str(data.get("consent") or NOT_STATED),
        "dataset": version.tags.get("lwddpm.dataset_version", NOT_STATED)[:16],
        "slices": _of_card(version, "data").rpartition("; ")[2] or NOT_STATED,
        "subjects": "none" if simulated else _of_card(version, "subjects") or _subjects(data),
    }


def _subjects(data: Mapping[str, Any]) -> str:
    if data.get("format", "images") != "images" or data.get("subject_pattern"):
        return "slices of one subject stay in one split"
    return f"{NOT_STATED}: slices of one person may lie in several splits"


def _mitigations(version: RegisteredVersion) -> list[str]:
    """What was done against copying, as the job file and the card have it."""
    job = _job(version)
    training, registry = job.get("training") or {}, job.get("registry") or {}
    augment = training.get("augment") or 0
    found = []
    if duplicates := _of_card(version, "duplicates"):
        found.append(f"duplicates: {duplicates}")
    found.append(f"augmentation with probability {augment:g}" if augment else "no augmentation")
    if registry.get("choose") == "best":
        found.append("the stopping point was chosen among snapshots, none nearer to training slices than held-out ones")
    if length := _of_card(version, "training"):
        found.append(f"training: {length}")
    return found


def _job(version: RegisteredVersion) -> dict[str, Any]:
    try:
        value = yaml.safe_load(attachments.job_of(version) or b"")
    except yaml.YAMLError:
        return {}
    return value if isinstance(value, dict) else {}


def _of_card(version: RegisteredVersion, row: str) -> str:
    """A row of the model card's table, as plain text."""
    found = re.search(rf"^\| {re.escape(row)} \| (.+?) \|$", version.card, re.MULTILINE)
    return found[1].replace("`", "") if found else ""


def _figures(evaluation: Evidence) -> list[dict[str, Any]]:
    """Rows of the evaluation: a figure is read beside its real-versus-real floor."""
    rows = []
    for name, figure in list(evaluation.figures.items())[:_MOST_ROWS]:
        interval = None if figure.low is None or figure.high is None else (figure.low, figure.high)
        rows.append({"name": name, "value": figure.value, "interval": interval, "n": figure.n, "floor": figure.floor})
    return rows


def _readers(version: RegisteredVersion) -> str:
    finished = attachments.finished_readers(version)
    return f"{finished} finished a study of this version" if finished else "no study was finished"


def _hashes(
    version: RegisteredVersion, verdict: Verdict | None, audit: Evidence, log: list[dict[str, Any]]
) -> dict[str, str]:
    found = {
        "weights": version.tags.get(WEIGHTS, NOT_STATED),
        "dataset": version.tags.get("lwddpm.dataset_version", NOT_STATED),
        "policy": verdict.policy_sha256 if verdict else "none",
        "audit": audit.sha256 or "none",
        "audit's code": audit.code or "none",
    }
    head = log[-1] if log else None
    return found | {"log": f"entry {head['number']}, {head['hash']}" if head else "empty"}
