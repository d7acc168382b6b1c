"""A policy says what it asks for, or is refused in a line."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from lwddpm.config import Learner
from lwddpm.config.gate import METRICS
from lwddpm.errors import ConfigError
from lwddpm.jobfile import load_job, shipped
from lwddpm.release.policy import load_policy, policy_sha256, validate_policy

from .conftest import POLICY

RULE = {"metric": "copied_share", "source": "audit", "at_most": 0.02, "why": "copies"}
SHIPPED = sorted(path.stem for path in (shipped("jobs") / "gates").glob("*.yaml"))


def _with(rule: dict[str, Any], **top: Any) -> dict[str, Any]:
    values = yaml.safe_load(POLICY) | {"name": "house", "rules": [rule]}
    return values | top


def test_the_shipped_policies_load_and_need_an_audit() -> None:
    assert SHIPPED == ["clinical", "research"]
    for name in SHIPPED:
        policy = load_policy(name)
        assert policy.name == name
        assert {rule.source for rule in policy.rules} == {"audit", "evaluation"}
        text = (shipped("jobs") / "gates" / f"{name}.yaml").read_text()
        assert text.startswith("#")
        assert f"registry.gate: {name}" in text
    assert load_policy("clinical").approver
    assert load_policy("clinical").readers_study


def test_a_rule_may_ask_for_utility_and_every_record_of_it_has_a_name() -> None:
    rule = {"metric": "utility_gain_resnet", "source": "audit", "at_least": 0, "why": "slices are to be learnt from"}
    assert validate_policy(_with(rule), "house.yaml").rules[0].limit == 0
    known = {name for name in METRICS["audit"] if name.startswith("utility_")}
    told = ("real", "synthetic", "on_synthetic", "gain")
    assert known == {f"utility_{name}_{learner}" for name in told for learner in get_args(Learner)}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (RULE | {"metric": "copied_shares"}, "must be a metric of the audit"),
        (RULE | {"metric": "fd_lite0"}, "must be a metric of the audit"),
        (RULE | {"source": "rumour"}, "source"),
        ({key: value for key, value in RULE.items() if key != "why"}, "why: is required"),
        (RULE | {"why": "   "}, "must say why"),
        (RULE | {"why": ""}, "why"),
        (RULE | {"at_most": float("nan")}, "finite"),
        (RULE | {"at_most": float("inf")}, "finite"),
        (RULE | {"at_most": -float("inf")}, "finite"),
        (RULE | {"at_most": True}, "must be a number"),
        (RULE | {"at_most": "low"}, "at_most"),
        (RULE | {"at_least": 0.5}, "one of at_most and at_least"),
        ({key: value for key, value in RULE.items() if key != "at_most"}, "one of at_most and at_least"),
        (RULE | {"times_floor": True}, "have a floor"),
        (RULE | {"limit": 3}, "unknown key"),
    ],
)
def test_a_rule_that_guards_nothing_is_refused(rule: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        validate_policy(_with(rule), "house.yaml")
    message = str(refused.value)
    assert expected in message
    assert message.startswith("house.yaml: rule 1")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ({"rules": []}, "at least 1 value"),
        ({"rules": [RULE, RULE]}, "one rule says all about at_most of copied_share"),
        ({"rules": "none"}, "must be a list"),
        ({"rules": [3]}, "rule 1: must be a mapping"),
        ({"expires_days": 0}, "expires_days"),
        ({"expires_days": None}, "expires_days"),
        ({"version": "new"}, "version"),
        ({"intended_use": ""}, "intended_use"),
        ({"experis_days": 3}, "unknown key"),
    ],
)
def test_a_policy_that_is_none_is_refused(top: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=r"house\.yaml: ") as refused:
        validate_policy(_with(RULE, **top), "house.yaml")
    assert expected in str(refused.value)


def test_yaml_s_own_infinities_are_refused_with_the_file(tmp_path: Path) -> None:
    for text in (".nan", ".inf", "-.inf", "1e400"):
        path = tmp_path / "odd.yaml"
        path.write_text(POLICY.replace("at_most: 0.02", f"at_most: {text}"))
        with pytest.raises(ConfigError, match=r"odd\.yaml"):
            load_policy(str(path))


def test_an_unknown_policy_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="no such policy; shipped: clinical, research"):
        load_policy("strict")


def test_the_hash_is_of_what_is_said(policy_file: Path) -> None:
    first = policy_sha256(load_policy(str(policy_file)))
    policy_file.write_text("# a comment\n" + POLICY)
    assert policy_sha256(load_policy(str(policy_file))) == first
    policy_file.write_text(POLICY.replace("0.02", "0.03"))
    assert policy_sha256(load_policy(str(policy_file))) != first


def test_a_job_names_a_policy_and_keeps_its_digest_without_one() -> None:
    assert "gate" not in load_job("demo").model_dump(mode="json")["registry"]
    job = load_job("demo", ["registry.gate=research"])
    assert job.registry.gate == "research"  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"registry\.alias.*given by a promotion alone"):
        load_job("demo", ["registry.gate=research", "registry.alias=champion"])
