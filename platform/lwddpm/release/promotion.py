"""Promotion through the gate: an alias is moved to a version that passes the policy of its model, or against it by
somebody who says why and is named wherever the version is. Every step is in the log of the model."""

import getpass
from typing import Any

from lwddpm.errors import ConfigError
from lwddpm.release.policy import policy_in_force
from lwddpm.release.verdict import Verdict, judge
from lwddpm.tracking import registry, registry_log
from lwddpm.tracking.registry import CHAMPION, RegisteredVersion


def verdict_of(version: RegisteredVersion, approver: str | None = None) -> Verdict | None:
    """What the gate says of a version now; None: its model has no policy.

    Raises:
        ConfigError, JobError: the policy cannot be told.
    """
    policy = policy_in_force(version.name)
    return None if policy is None else judge(policy, version, approver)


def approver_of(version: RegisteredVersion) -> str | None:
    """Who approved a version last, as the log has it."""
    approvals = [
        entry["data"].get("approver")
        for entry in registry_log.entries(version.name)
        if entry.get("kind") == "approval" and entry.get("version") == version.version
    ]
    return approvals[-1] if approvals else None


def promote(
    uri: str,
    reason: str,
    to: str = CHAMPION,
    by: str | None = None,
    approver: str | None = None,
    *,
    override: bool = False,
) -> dict[str, Any]:
    """Move an alias to a version if the policy of its model lets it.

    Args:
        uri: of the version.
        reason: why.
        to: the alias.
        by: who; default: the user of this process.
        approver: who approves.
        override: move it although the gate has not passed.

    Returns:
        The record of the promotion with `promoted`, and `gate` where there is a policy. Where the gate refuses,
        `promoted` is False and nothing was moved.

    Raises:
        ConfigError: no such version, or an override without reason or approver.
    """
    version = registry.find_version(uri)
    by = by or getpass.getuser()
    for what, text in (("--reason", reason), ("--approver", approver)):
        if text:
            registry_log.check_text(what, text)
    if override:
        for what, text in (("--reason", reason), ("--approver", approver)):
            if not (text or "").strip():
                raise ConfigError(f"--override: needs {what}: both stand wherever the version is shown")
    verdict = verdict_of(version, approver)
    registry.check_alias(to)
    passed = verdict is None or verdict.status == "passed"
    if verdict is not None:
        registry_log.append(version.name, "gate", version.version, by, _logged(verdict))
    gate = None if verdict is None else verdict.model_dump(mode="json")
    if not passed and not override:
        return {"promoted": False, "model": version.name, "alias": to, "to": version.version, "by": by, "gate": gate}
    if approver:
        data = {"approver": approver, "alias": to, "policy": verdict.policy_sha256 if verdict else None}
        registry_log.append(version.name, "approval", version.version, by, data)
    if not passed:
        data = {"alias": to, "reason": reason, "approver": approver, "gate": verdict.status if verdict else None}
        registry_log.append(version.name, "override", version.version, by, data)
    moved = {"alias": to, "reason": reason, "override": not passed}
    registry_log.append(version.name, "promotion", version.version, by, moved)
    record = registry.promote(uri, reason, to, by, approver=approver, override=not passed)
    return record | {"promoted": True, "gate": gate}


def _logged(verdict: Verdict) -> dict[str, Any]:
    """A verdict as an entry of the log: short enough for twenty rules."""
    return {
        "status": verdict.status,
        "policy": verdict.policy,
        "policy_sha256": verdict.policy_sha256,
        "valid_until": verdict.valid_until.isoformat() if verdict.valid_until else None,
        "evidence": verdict.evidence,
        "rules": [[finding.status, finding.rule[:80], finding.value[:70]] for finding in verdict.findings],
    }
