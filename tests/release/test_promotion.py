"""Promotion through the gate, by the command line: exit codes, lines, JSON, and what the log and the store hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from lwddpm.cli import app
from lwddpm.config import RegistryConfig
from lwddpm.errors import ConfigError
from lwddpm.jobfile import load_job
from lwddpm.release.policy import check_gate, load_policy, policy_in_force, set_gate_of_job
from lwddpm.tracking import attachments, registration, registry, registry_log
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.tracking.runs import tracked_run

from .conftest import POLICY, audit_content, figure, lines, tag_of

Make = Callable[..., RegisteredVersion]


@pytest.fixture
def models(store: str) -> Callable[..., Result]:
    """`lwddpm models ...` in this process."""
    return lambda *words: CliRunner().invoke(app, ["models", *map(str, words), "--tracking-uri", store])


def _kinds(name: str) -> list[str]:
    return [entry["kind"] for entry in registry_log.entries(name)]


def test_without_a_policy_promotion_asks_for_a_reason_alone_and_is_logged(
    models: Callable[..., Result], register: Make, name: str
) -> None:
    register(name)
    result = models("promote", f"models:/{name}@candidate", "--reason", "best", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["promoted"], record["gate"], record["to"]) == (True, None, 1)
    assert registry.find_version(f"models:/{name}@champion").version == 1
    assert _kinds(name) == ["promotion"]
    assert registry.promotions(name)[-1]["reason"] == "best"


def test_the_gate_lets_by_what_passes_and_prints_each_rule(
    models: Callable[..., Result], audited: Make, name: str, policy_file: Path
) -> None:
    audited(name)
    assert models("gate", name, policy_file, "--reason", "house rules").exit_code == 0
    assert tag_of(name, registry_log.GATE) is not None
    result = models("promote", f"models:/{name}/1", "--reason", "good", "--approver", "Ben")
    assert result.exit_code == 0, result.output
    assert "passed  copied_share (audit) at most 0.02: 0 (0 to 0.011, n = 1,000)" in result.stdout
    assert "gate passed: policy house v3" in result.stdout
    assert _kinds(name) == ["audit", "policy", "gate", "approval", "promotion"]
    assert "promoted against" not in result.stdout
    shown = models("show", f"models:/{name}@champion")
    assert "gate passed: policy house v3" in shown.stdout
    assert "OVERRIDE" not in shown.stdout
    gate = json.loads(models("show", f"models:/{name}/1", "--json").stdout)["gate"]
    assert [finding["status"] for finding in gate["findings"]] == ["passed"] * 4
    assert models("verify-log", name).exit_code == 0


def test_a_failed_gate_is_exit_1_names_its_rules_and_moves_nothing(
    models: Callable[..., Result], register: Make, name: str, policy_file: Path
) -> None:
    version = register(name, figure("fd_lite0", 50.0, (48.0, 52.0), floor=10.0))
    models("gate", name, policy_file, "--reason", "house rules")
    result = models("promote", f"models:/{name}/1", "--reason", "hope")
    assert result.exit_code == 1
    assert "failed  fd_lite0 (evaluation) at most 3 times its floor: 50 (48 to 52, n = 600), floor 10" in result.stdout
    assert "it must look like the data" in result.stdout
    assert "missing copied_share (audit) at most 0.02; audit: none is stored with this version" in result.stdout
    assert f"{name}@champion was not moved to version 1" in result.stdout
    told = json.loads(models("promote", f"models:/{name}/1", "--reason", "hope", "--json").stdout)
    assert told["promoted"] is False
    assert {finding["status"] for finding in told["gate"]["findings"]} == {"passed", "failed", "missing"}
    with pytest.raises(ConfigError, match="no such model"):
        registry.find_version(f"models:/{name}@champion")
    assert _kinds(name) == ["policy", "gate", "gate"]
    attachments.attach(version, attachments.AUDIT, audit_content(version), "auditor")
    assert models("promote", f"models:/{name}/1", "--reason", "hope").exit_code == 1


def test_an_override_takes_reason_and_approver_and_is_shown_everywhere(
    models: Callable[..., Result], register: Make, name: str, policy_file: Path
) -> None:
    register(name)
    models("gate", name, policy_file, "--reason", "house rules")
    for missing in (("--reason", "urgent"), ("--approver", "Ben"), ()):
        refused = models("promote", f"models:/{name}/1", "--override", *missing)
        assert refused.exit_code == 2
        assert "--override: needs" in refused.stderr
    assert _kinds(name) == ["policy"]
    result = models("promote", f"models:/{name}/1", "--override", "--reason", "urgent", "--approver", "Ben")
    assert result.exit_code == 0, result.output
    assert "OVERRIDE of its policy" in result.stdout
    assert registry.find_version(f"models:/{name}@champion").version == 1
    assert _kinds(name) == ["policy", "gate", "approval", "override", "promotion"]
    assert "OVERRIDE by Ben" in models("show", f"models:/{name}/1").stdout
    assert "OVERRIDE" in models("list", name).stdout
    assert "against the policy" in models("log", name).stdout
    card = registry.find_version(f"models:/{name}/1").card
    assert "**Promoted against its policy** to champion, approved by Ben" in card
    assert models("verify-log", name).exit_code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("promote", "models:/{name}/1", "--to", "no alias", "--reason", "r"), "not a usable alias"),
        (("promote", "models:/{name}/1", "--to", "latest", "--reason", "r"), "not a usable alias"),
        (("promote", "models:/{name}/9", "--reason", "r"), "no such model"),
        (("promote", "models:/{name}/1", "--reason", "x" * 1001), "at most 1000 characters"),
        (("gate", "{name}", "strict", "--reason", "r"), "no such policy"),
        (("gate", "{name}", "research"), "--reason: must be given"),
        (("gate", "{name}", "research", "--remove"), "takes no policy"),
        (("gate", "nobody", "research", "--reason", "r"), "no such registered model"),
        (("log", "nobody"), "no such registered model"),
        (("verify-log", "nobody"), "no such registered model"),
        (("verify-log", "{name}", "/no/such/file"), "cannot be read"),
        (("verify-log", "{name}", "--public-key", "/no/such/key"), "--public-key"),
        (("dossier", "models:/{name}/9"), "no such model"),
    ],
)
def test_wrong_input_is_exit_2_in_a_line_and_changes_nothing(
    words: tuple[str, ...], expected: str, models: Callable[..., Result], register: Make, name: str
) -> None:
    register(name)
    result = models(*(word.replace("{name}", name) for word in words))
    assert result.exit_code == 2, result.output
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert _kinds(name) == []
    assert registry.find_version(f"{name}/1").aliases == ["candidate"]


def test_a_policy_changed_by_hand_is_told_and_nothing_is_promoted(
    models: Callable[..., Result], audited: Make, name: str, policy_file: Path
) -> None:
    audited(name)
    models("gate", name, policy_file, "--reason", "house rules")
    client = MlflowClient()
    client.delete_registered_model_tag(name, registry_log.GATE)
    result = models("promote", f"models:/{name}/1", "--reason", "no gate now")
    assert result.exit_code == 2
    assert "somebody changed it by hand" in " ".join(result.stderr.split())
    client.set_registered_model_tag(name, registry_log.GATE, "research")
    assert models("promote", f"models:/{name}/1", "--reason", "another").exit_code == 2
    assert models("gate", name, policy_file, "--reason", "back").exit_code == 0
    assert models("promote", f"models:/{name}/1", "--reason", "good").exit_code == 0


def test_a_policy_is_replaced_and_removed_with_a_reason(
    models: Callable[..., Result], audited: Make, name: str, policy_file: Path
) -> None:
    audited(name)
    models("gate", name, policy_file, "--reason", "house rules")
    policy_file.write_text(POLICY.replace("0.02", "0.001"))
    models("gate", name, policy_file, "--reason", "stricter")
    assert models("promote", f"models:/{name}/1", "--reason", "r").exit_code == 1
    assert models("gate", name, "--remove", "--reason", "given up").exit_code == 0
    assert "has no policy" in models("gate", name).stdout
    assert models("promote", f"models:/{name}/1", "--reason", "r").exit_code == 0
    reasons = [entry["data"]["reason"] for entry in registry_log.entries(name) if entry["kind"] == "policy"]
    assert reasons == ["house rules", "stricter", "given up"]


def test_a_registration_moves_no_alias_that_the_gate_guards(
    audited: Make, models: Callable[..., Result], name: str, policy_file: Path, store: str, model_dir: Path,
    tiny_job: Callable[..., Any],
) -> None:  # fmt: skip
    """A job whose alias is champion, and a calibration of champion, would pass the gate by."""
    audited(name)
    models("gate", name, policy_file, "--reason", "house rules")
    models("promote", f"models:/{name}/1", "--reason", "good")
    models("promote", f"models:/{name}/1", "--reason", "good", "--to", "shared")
    for alias in ("champion", "shared", "candidate"):
        with tracked_run(tiny_job(f"tracking.uri={store}"), store, None, "digest") as run:
            registration.register(run, model_dir, RegistryConfig(name=name, alias=alias), {"x": alias}, {}, 8, "card")
    registration.register_calibrated(f"models:/{name}@champion", model_dir)
    assert {alias: registry.find_version(f"{name}@{alias}").version for alias in ("champion", "shared")} == {
        "champion": 1,
        "shared": 1,
    }
    assert registry.find_version(f"{name}@candidate").version == 4
    assert models("verify-log", name).exit_code == 0


def test_the_gate_of_a_job_is_set_once_and_not_weakened(register: Make, name: str, policy_file: Path) -> None:
    check_gate(name, "research")  # there is no such model yet
    register(name)
    set_gate_of_job(name, "clinical", "job", "Ada")
    set_gate_of_job(name, "clinical", "job", "Ada")
    assert _kinds(name) == ["policy"]
    check_gate(name, "clinical")
    with pytest.raises(ConfigError, match=r"must be the policy in force .* clinical v1 .*, got research v1"):
        check_gate(name, "research")
    assert policy_in_force(name) == load_policy("clinical")


def test_a_job_with_an_unusable_policy_is_refused_before_anything_starts(tmp_path: Path) -> None:
    from lwddpm.kinds.jobs import check_job

    job = load_job("demo", [f"output={tmp_path}", f"tracking.uri=sqlite:///{tmp_path}/m.db", "registry.gate=strict"])
    with pytest.raises(ConfigError, match="no such policy"):
        check_job(job)


def test_an_export_is_what_a_later_store_is_held_against(
    models: Callable[..., Result], audited: Make, name: str, tmp_path: Path
) -> None:
    audited(name)
    for reason in ("one", "two"):
        models("promote", f"models:/{name}/1", "--reason", reason)
    export = tmp_path / "export.jsonl"
    export.write_text(models("log", name, "--json").stdout)
    assert lines(export) == registry_log.entries(name)
    models("promote", f"models:/{name}/1", "--reason", "three")
    result = models("verify-log", name, export)
    assert result.exit_code == 0, result.output
    assert "the store continues it: 4 entries, none signed" in result.stdout
    changed = lines(export)
    changed[1]["data"]["reason"] = "another"
    export.write_text("".join(json.dumps(entry) + "\n" for entry in changed))
    result = models("verify-log", name, export, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)["problems"]
    assert told[0] == f"{export}: entry 2 was changed: its content does not have its hash"
    assert any("entry 2 in the store is not that of" in problem for problem in told)
    export.write_text("".join(json.dumps(entry) + "\n" for entry in registry_log.entries(name)[::-1]))
    assert models("verify-log", name, export).exit_code == 1
    export.write_text("not json\n")
    assert models("verify-log", name, export).exit_code == 1
    export.write_text("")
    assert models("verify-log", name, export).exit_code == 2


def test_entries_are_signed_where_a_key_is_configured(
    models: Callable[..., Result], audited: Make, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    audited(name)
    monkeypatch.setenv("LWDDPM_SIGNING_KEY", str(private))
    models("promote", f"models:/{name}/1", "--reason", "signed")
    result = models("verify-log", name, "--public-key", public)
    assert result.exit_code == 0, result.output
    assert "2 entries, 1 signed" in result.stdout
    monkeypatch.delenv("LWDDPM_SIGNING_KEY")
    models("promote", f"models:/{name}/1", "--reason", "not signed")
    result = models("verify-log", name, "--public-key", public)
    assert result.exit_code == 1
    assert "entry 3 is not signed, and an earlier one is" in result.stdout
