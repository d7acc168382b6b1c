"""What people say of the pairs that an audit has flagged: copies or not. Each decision is an entry of the model's log.

A decision belongs to a slice, by its number and the settings that it was drawn with, and to the training slice beside
it: an audit that is run again and flags the same pair finds it decided. The newest decision on a pair counts.
"""

from typing import Literal, NamedTuple

from pydantic import ValidationError

from lwddpm.audit.result import AuditResult, FlaggedPair
from lwddpm.config.section import hex_digest
from lwddpm.errors import ConfigError
from lwddpm.tracking import attachments, registry_log
from lwddpm.tracking.chain import Entry
from lwddpm.tracking.registry import RegisteredVersion

KIND = "confirmation"
Decision = Literal["confirmed", "rejected", "open"]  # a copy; no copy; taken back


class Decided(NamedTuple):
    """A decision, who made it, and when (ISO 8601)."""

    decision: Decision
    by: str
    at: str


def audit_of(version: RegisteredVersion) -> tuple[AuditResult, bytes] | None:
    """The audit that is stored with a version, and its file; None: there is none that this platform can read."""
    text = attachments.attached(version, attachments.AUDIT)
    try:
        return None if text is None else (AuditResult.model_validate_json(text), text)
    except ValidationError:
        return None


def decide(
    version: RegisteredVersion, result: AuditResult, sha256: str, index: int, decision: Decision, by: str, pixels: str
) -> Entry:
    """Log what somebody says of a flagged pair.

    Args:
        sha256: of the audit's file.
        index: of the flagged slice.
        by: who says so.
        pixels: SHA-256 of the slice that was looked at.

    Raises:
        ConfigError: the audit flags no such slice, or nobody is named.
        JobError: the log takes no entry.
    """
    registry_log.check_text("name", by)
    pair = next((pair for pair in result.flagged if pair.index == index), None)
    if pair is None:
        raise ConfigError(f"index: must be that of a flagged pair of the audit, got {index}; reload the page")
    about = {"decision": decision, "index": index, "source": pair.source, "drawing": _drawing(result)}
    return registry_log.append(
        version.name, KIND, version.version, by, about | {"audit": sha256, "pixels_sha256": pixels}
    )


def decisions(version: RegisteredVersion, result: AuditResult) -> dict[int, Decided]:
    """What was decided on the flagged pairs of an audit, by the index of the slice; open ones are left out."""
    found: dict[tuple[object, ...], Decided] = {}
    for entry in registry_log.entries(version.name):
        if entry.get("kind") == KIND and entry.get("version") == version.version:
            data = entry["data"]
            pair = (data.get("drawing"), data.get("index"), data.get("source"))
            found[pair] = Decided(data["decision"], entry["by"], entry["at"])
    drawing = _drawing(result)

    def of(pair: FlaggedPair) -> Decided | None:
        return found.get((drawing, pair.index, pair.source))

    return {
        pair.index: decided
        for pair in result.flagged
        if (decided := of(pair)) is not None and decided.decision != "open"
    }


def tally(version: RegisteredVersion) -> dict[str, int] | None:
    """How many flagged pairs of the audit of a version are `confirmed`, `rejected` and `open`; None without pairs."""
    audit = audit_of(version)
    if audit is None or not audit[0].flagged:
        return None
    made = [decided.decision for decided in decisions(version, audit[0]).values()]
    counts = {name: made.count(name) for name in ("confirmed", "rejected")}
    return counts | {"open": len(audit[0].flagged) - len(made)}


def _drawing(result: AuditResult) -> str:
    return hex_digest(result.sampling.essentials())
