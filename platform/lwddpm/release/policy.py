"""A promotion policy as a file, by its hash, and as the one that is in force for a registered model."""

import hashlib
from typing import Any

from pydantic import ValidationError

from lwddpm.config.gate import GatePolicy, GateRule
from lwddpm.config.refused import broken_rules
from lwddpm.config.rule import RuleBroken
from lwddpm.errors import ConfigError
from lwddpm.jobfile import find_file, read_mapping
from lwddpm.tracking import registry_log
from lwddpm.tracking.chain import canonical

FOLDER = "jobs/gates"


def load_policy(reference: str) -> GatePolicy:
    """Read a policy.

    Args:
        reference: path of a YAML file, or the name of a shipped policy such as `research`.

    Raises:
        ConfigError: every broken rule, one line each.
    """
    path = find_file(reference, FOLDER, "policy")
    values, origins = read_mapping(path, "a policy is a mapping with version, intended_use, expires_days and rules")
    values.setdefault("name", path.stem)
    return validate_policy(values, str(path), origins)


def validate_policy(values: dict[str, Any], where: str, origins: dict[str, str] | None = None) -> GatePolicy:
    """Validate the content of a policy; `where` and `origins` as of `jobfile.validate_job`.

    Raises:
        ConfigError: as `load_policy`.
    """
    broken: list[RuleBroken] = []
    rules = values.get("rules")
    if isinstance(rules, list):  # each by itself, so that a message can say which rule it is about
        for number, rule in enumerate(rules, 1):
            try:
                GateRule.model_validate(rule)
            except ValidationError as error:
                metric = rule.get("metric") if isinstance(rule, dict) else None
                place = f"rule {number}" + (f" ({metric})" if isinstance(metric, str) else "")
                broken += [one.below(place) for one in broken_rules(error, GateRule)]
    of_rules = bool(broken)
    try:
        policy = GatePolicy.model_validate(values)
    except ValidationError as error:
        broken += [
            one for one in broken_rules(error, GatePolicy) if not (of_rules and one.key.partition(".")[0] == "rules")
        ]
        places = origins or {}
        raise ConfigError("\n".join(f"{places.get(one.key, where)}: {one}" for one in broken)) from None
    return policy


def policy_sha256(policy: GatePolicy) -> str:
    """Of all that the policy says; comments and the order of keys do not count."""
    return hashlib.sha256(canonical(policy.model_dump(mode="json")).encode()).hexdigest()


def named(policy: GatePolicy) -> str:
    """A policy in a sentence: `research v1 (5d0a3c1e)`."""
    return f"{policy.name} v{policy.version} ({policy_sha256(policy)[:8]})"


def policy_in_force(name: str) -> GatePolicy | None:
    """The policy of a registered model, as the log has it; None: it has none.

    Raises:
        ConfigError: the log and the model's tag say different things: somebody changed one of them by hand.
        JobError: the stored policy is not what its hash says.
    """
    logged = registry_log.last_of(name, "policy")
    wanted = None if logged is None or logged["data"].get("removed") else logged["data"]
    tag = registry_log.gate_tag(name)
    if tag != (None if wanted is None else wanted["sha256"]):
        raise ConfigError(
            f"{name}: the tag {registry_log.GATE} must name the policy of the log "
            f"({wanted['sha256'][:12] if wanted else 'none'}), it names {(tag or 'none')[:12]}: somebody changed it by "
            f"hand; set the policy anew: lwddpm models gate {name} POLICY --reason WHY"
        )
    if wanted is None:
        return None
    stored = registry_log.stored_policy(name, wanted["sha256"])
    return validate_policy(stored, f"the stored policy {wanted['name']}")


def set_policy(name: str, policy: GatePolicy | None, reason: str, by: str) -> dict[str, Any]:
    """Put a policy in force for a registered model, or, with None, take it away; the log says who and why.

    Returns:
        The log's entry.

    Raises:
        ConfigError: no such registered model, or no reason.
    """
    registry_log.check_text("--reason", reason)
    if policy is None:
        return registry_log.append(name, "policy", None, by, {"removed": True, "reason": reason})
    content, sha256 = policy.model_dump(mode="json"), policy_sha256(policy)
    registry_log.store_policy(name, sha256, content)
    data = {"name": policy.name, "version": policy.version, "sha256": sha256, "reason": reason}
    return registry_log.append(name, "policy", None, by, data)


def check_gate(name: str, reference: str) -> None:
    """Refuse, before a training, a job that names another policy than the one in force for its registered model.

    Raises:
        ConfigError: says both, and how to change the one in force.
    """
    policy = load_policy(reference)
    if not registry_log.is_registered(name):
        return
    before = policy_in_force(name)
    if before is not None and policy_sha256(before) != policy_sha256(policy):
        raise ConfigError(
            f"registry.gate: must be the policy in force for {name}, {named(before)}, got {named(policy)}; leave it "
            f"out, or change the one in force: lwddpm models gate {name} {reference} --reason WHY"
        )


def set_gate_of_job(name: str, reference: str, job: str, by: str) -> None:
    """Put the policy of a job in force for the model that it has registered, unless it is."""
    if policy_in_force(name) is None:
        set_policy(name, load_policy(reference), f"registry.gate of job {job}", by)
