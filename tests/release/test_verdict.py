"""The gate: each rule passes, fails or is missing, and nothing that is no number passes."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from lwddpm.audit.result import method_code
from lwddpm.config import CLASS_MEASURES, EvaluationConfig
from lwddpm.config.gate import GateRule
from lwddpm.data.store import Dataset
from lwddpm.evaluation.protocol import evaluate
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.kinds.evaluate import _store_with_version
from lwddpm.release.evidence import Evidence, Measured
from lwddpm.release.policy import load_policy, validate_policy
from lwddpm.release.verdict import Finding, _checked, judge
from lwddpm.tracking import attachments, registration, registry, registry_log
from lwddpm.tracking.registry import WITHDRAWN, RegisteredVersion
from lwddpm.tracking.store import open_experiment

from .conftest import audit_content, figure

Make = Callable[..., RegisteredVersion]
AT_MOST = GateRule(metric="copied_share", source="audit", at_most=0.02, why="w")
AT_LEAST = GateRule(metric="recall_lite0", source="evaluation", at_least=0.3, why="w")
FLOORS = GateRule(metric="fd_lite0", source="evaluation", at_most=3, times_floor=True, why="w")


def _of(rule: GateRule, *measured: Any, **more: Any) -> Finding:
    return _checked(rule, Evidence(rule.source, figures={rule.metric: Measured(*measured, **more)}))


def test_the_limit_is_on_the_bound_and_not_on_the_value() -> None:
    assert _of(AT_MOST, 0.0, 0.0, 0.02).status == "passed"
    assert _of(AT_MOST, 0.0, 0.0, 0.0201).status == "failed"
    assert _of(AT_LEAST, 0.5, 0.3, 0.7).status == "passed"
    assert _of(AT_LEAST, 0.5, 0.299, 0.7).status == "failed"
    assert _of(FLOORS, 29, 28, 30, floor=10).status == "passed"
    assert _of(FLOORS, 29, 28, 30.1, floor=10).status == "failed"


@pytest.mark.parametrize("rule", [AT_MOST, AT_LEAST, FLOORS])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_nothing_that_is_no_number_passes(rule: GateRule, odd: float) -> None:
    for value, low, high in ((odd, 0.0, 0.01), (0.0, odd, 0.01), (0.0, 0.0, odd), (odd, odd, odd)):
        assert _of(rule, value, low, high, floor=10).status != "passed"
    assert _of(FLOORS, 1.0, 0.9, 1.1, floor=odd).status == "missing"
    assert _of(FLOORS, -1.0, -1.1, -0.9, floor=-1).status == "missing"


@settings(max_examples=300, deadline=None)
@given(value=st.floats(), low=st.none() | st.floats(), high=st.none() | st.floats(), limit=st.floats(-5, 5))
def test_what_passes_holds_for_its_whole_interval(
    value: float, low: float | None, high: float | None, limit: float
) -> None:
    for side in ("at_most", "at_least"):
        rule = GateRule.model_validate({"metric": "copied_share", "source": "audit", side: limit, "why": "w"})
        if _of(rule, value, low, high).status == "passed":
            assert low is not None
            assert high is not None
            ends = (low, value, high)
            assert all(np.isfinite(ends))
            assert (max(ends) <= limit + 1e-6) if side == "at_most" else (min(ends) >= limit - 1e-6)


def test_an_interval_that_does_not_hold_its_value_is_none() -> None:
    assert _of(AT_MOST, 0.5, 0.0, 0.01).status == "failed"
    assert _of(AT_MOST, 0.01, 0.019, 0.005).status == "failed"


def test_without_an_interval_it_is_missing_unless_the_metric_never_has_one() -> None:
    lacking = _of(AT_MOST, 0.0)
    assert (lacking.status, lacking.reason) == ("missing", "it has no interval: measure it on more slices")
    rule = GateRule(metric="ssim_pairs", source="evaluation", at_most=0.5, why="w")
    told = _of(rule, 0.4)
    assert told.status == "passed"
    assert "the value itself: nobody gives it an interval" in told.value
    assert _of(rule, 0.6).status == "failed"


@pytest.mark.parametrize("metric", CLASS_MEASURES)
def test_a_policy_may_ask_that_classes_are_drawn_as_asked_for(metric: str) -> None:
    rule = GateRule(metric=metric, source="evaluation", at_least=0.7, times_floor=True, why="w")
    assert _of(rule, 0.6, 0.57, 0.63, floor=0.8).status == "passed"
    assert _of(rule, 0.5, 0.47, 0.53, floor=0.8).status == "failed"
    assert _of(rule, 0.6, 0.57, 0.63).status == "missing"  # no floor
    assert _checked(rule, Evidence("evaluation", figures={})).status == "missing"  # of a model that is told no class


def test_too_few_slices_do_not_count() -> None:
    rule = AT_MOST.model_copy(update={"fewest": 500})
    assert _of(rule, 0.0, 0.0, 0.01, n=499).status == "missing"
    assert _of(rule, 0.0, 0.0, 0.01).status == "missing"
    assert _of(rule, 0.0, 0.0, 0.01, n=500).status == "passed"
    assert _of(rule, 0.05, 0.019, 0.1, n=60).status == "missing"
    assert _of(rule, 0.9, 0.8, 0.95, n=60).status == "failed"  # more slices would not mend that
    assert _of(rule, 0.9, 0.95, 0.8, n=60).status == "missing"  # no interval


def test_a_version_passes_by_its_own_results(audited: Make, name: str, policy_file: Path) -> None:
    verdict = judge(load_policy(str(policy_file)), audited(name))
    assert verdict.status == "passed"
    assert [finding.status for finding in verdict.findings] == ["passed"] * 4
    assert verdict.findings[0].line == "passed  copied_share (audit) at most 0.02: 0 (0 to 0.011, n = 1,000)"
    assert verdict.evidence["audit_code"] == method_code()
    assert verdict.valid_until is not None
    assert timedelta(days=29) < verdict.valid_until - datetime.now(UTC) <= timedelta(days=30)


@pytest.mark.parametrize(
    ("changes", "status", "expected"),
    [
        ({"model": "f" * 64}, "missing", "it is of another model (weights ffffffffffff"),
        ({"dataset": "e" * 64}, "missing", "it was made with dataset eeeeeeeeeeee"),
        ({"date": "2020-01-01T00:00:00+00:00"}, "missing", "has expired: it counted for 30 days"),
        ({"date": "2020-01-01T00:00:00"}, "missing", "has expired"),
        ({"date": "2999-01-01T00:00:00+00:00"}, "missing", "which is to come"),
        ({"date": "yesterday"}, "missing", "cannot be read"),
        ({"records": []}, "missing", "the audit does not tell it"),
        ({"records": [{"name": "copied_share", "value": 0, "low": 0, "high": 0.01, "n": 9}]}, "missing", "500 slices"),
        (
            {"records": [{"name": "copied_share", "value": 0, "low": 0, "high": 0.5, "n": 900}]},
            "failed",
            "copies are not",
        ),
        ({"records": [{"name": "copied_share", "value": 0, "low": 0, "high": 0, "n": 900}] * 2}, "missing", "twice"),
        ({"verdict": "copies"}, "failed", "it found copies of training slices"),
        ({"verdict": "undecided"}, "missing", "it could not decide"),
        ({"verdict": "fine"}, "missing", "it could not decide"),
    ],
)
def test_an_audit_that_does_not_show_it_does_not_pass(
    changes: dict[str, Any], status: str, expected: str, audited: Make, name: str, policy_file: Path
) -> None:
    verdict = judge(load_policy(str(policy_file)), audited(name, **changes))
    assert verdict.status == status
    assert any(expected in finding.line for finding in verdict.findings), [f.line for f in verdict.findings]


def test_of_two_audits_the_newest_counts_and_a_replaced_file_is_told(
    audited: Make, name: str, policy_file: Path, tmp_path: Path
) -> None:
    policy, version = load_policy(str(policy_file)), audited(name)
    attachments.attach(version, attachments.AUDIT, audit_content(version, verdict="copies"), "auditor")
    assert judge(policy, version).status == "failed"
    forged = tmp_path / attachments.AUDIT
    forged.write_text(json.dumps(audit_content(version)))
    client = MlflowClient()
    client.log_model_artifact(client.get_model_version(name, "1").source.removeprefix("models:/"), str(forged))
    verdict = judge(policy, version)
    assert verdict.status == "missing"
    assert any("is not the one that the log knows" in finding.reason for finding in verdict.findings)


def test_audits_by_other_code_do_not_count(
    audited: Make, name: str, policy_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by = method_code()
    monkeypatch.setattr("lwddpm.release.verdict.method_code", lambda: "newer")
    verdict = judge(load_policy(str(policy_file)), audited(name))
    assert verdict.status == "missing"
    assert f"made by other code ({made_by[:12]}" in verdict.findings[0].reason


def test_a_version_without_results_is_not_shown_to_be_good(register: Make, name: str, policy_file: Path) -> None:
    verdict = judge(load_policy(str(policy_file)), register(name))
    assert {finding.status for finding in verdict.findings} == {"missing"}
    assert verdict.valid_until is None


def test_an_evaluation_of_other_figures_or_of_another_version_does_not_count(
    audited: Make, register: Make, name: str, policy_file: Path, model_dir: Path
) -> None:
    policy = load_policy(str(policy_file))
    version = audited(name)
    MlflowClient().set_model_version_tag(name, "1", "eval/fd_lite0", "12")
    changed = judge(policy, registry.find_version(f"{name}/1"))
    assert "other figures than the version was registered with" in changed.findings[1].reason
    calibrated = registration.register_calibrated(
        f"models:/{name}/1", model_dir
    )  # same run, whose evaluation is not its own
    assert calibrated.version == version.version + 1
    assert judge(policy, calibrated).findings[1].reason == "evaluation: none is stored with this version"


def test_an_evaluation_that_was_made_later_counts(register: Make, name: str, policy_file: Path) -> None:
    policy, version = load_policy(str(policy_file)), register(name)
    result = {
        "dataset_version": version.tags["lwddpm.dataset_version"], "simulated": True, "unavailable": [],
        "config": {}, "records": [figure("fd_lite0", 20.0, (19.0, 21.0), floor=10.0).model_dump(mode="json")],
    }  # fmt: skip
    content = audit_content(version)
    stored = {key: content[key] for key in ("model", "dataset", "date")} | {"evaluation": result}
    attachments.attach(version, attachments.EVALUATION, stored, "evaluator")
    assert [finding.status for finding in judge(policy, version).findings[1:3]] == ["passed", "passed"]


def test_an_evaluate_job_stores_its_result_with_the_version_that_it_names(
    register: Make, name: str, policy_file: Path
) -> None:
    policy, version = load_policy(str(policy_file)), register(name)
    result = EvaluationResult(
        dataset_version="another", simulated=True, config=EvaluationConfig(), unavailable=(),
        records=(figure("fd_lite0", 20.0, (19.0, 21.0), floor=10.0),),
    )  # fmt: skip
    _store_with_version(f"models:/{name}@candidate", result)
    assert judge(policy, version).findings[1].reason == "evaluation: none is stored with this version"
    own = result.model_copy(update={"dataset_version": version.tags["lwddpm.dataset_version"]})
    _store_with_version(f"models:/{name}@candidate", own)
    assert [finding.status for finding in judge(policy, version).findings[1:3]] == ["passed", "passed"]
    assert [entry["kind"] for entry in registry_log.entries(name)] == ["evaluation"]


def test_approver_and_readers_are_asked_for(audited: Make, name: str, policy_file: Path) -> None:
    values = load_policy(str(policy_file)).model_dump(mode="json") | {"approver": True, "readers_study": True}
    policy, version = validate_policy(values, "p"), audited(name)
    trainer = attachments.trainer_of(version)
    assert trainer
    *_, readers, approval = judge(policy, version).findings
    assert (readers.status, approval.status) == ("missing", "missing")
    assert "--approver NAME" in approval.reason
    assert judge(policy, version, f"  {trainer.upper()} ").findings[-1].status == "failed"
    assert judge(policy, version, "somebody else").findings[-1].status == "passed"
    _finish_a_study(version)
    assert judge(policy, version, "somebody else").status == "passed"


def _finish_a_study(version: RegisteredVersion) -> None:
    client = MlflowClient()
    experiment = open_experiment(client, mlflow.get_tracking_uri(), attachments.READER_EXPERIMENT)
    tags = {"lwddpm.model": version.name, "lwddpm.model_version": str(version.version), "lwddpm.reader": "Cy"}
    client.set_terminated(client.create_run(experiment, tags=tags).info.run_id)


def test_a_version_trained_on_withdrawn_slices_is_blocked(audited: Make, name: str, policy_file: Path) -> None:
    audited(name)
    MlflowClient().set_model_version_tag(name, "1", WITHDRAWN, json.dumps({"entries": 2}))
    verdict = judge(load_policy(str(policy_file)), registry.find_version(f"{name}/1"))
    assert verdict.status == "failed"


@pytest.mark.parametrize("policy", ["research", "clinical"])
def test_copies_of_the_training_set_score_best_and_are_blocked(
    policy: str, register: Make, name: str, tiny_dataset: Dataset
) -> None:
    """What returns training slices beats the floor of real held-out ones, and no shipped policy lets it by."""
    config = EvaluationConfig(metrics=("fd_lite0", "recall_lite0"), num_samples=60)
    copies = np.array(tiny_dataset.images("train"))
    result = evaluate(copies, tiny_dataset, config)
    distance = result.records[0]
    assert distance.floor is not None
    assert distance.value < distance.floor
    version = register(name, *result.records, warnings=result.warnings)
    content = audit_content(
        version,
        verdict="copies",
        records=[{"name": "copied_share", "value": 1.0, "low": 0.99, "high": 1.0, "n": 5000}],
    )
    rules = load_policy(policy)
    by_distance = next(rule for rule in rules.rules if rule.at_least is not None and rule.times_floor)
    assert by_distance.metric == "fd_lite0"
    alone = _of(by_distance.model_copy(update={"fewest": None}), 0.5, 0.4, 0.6, floor=1.0)
    assert alone.status == "failed"
    early = judge(rules, version)
    assert early.status == "failed"  # before any audit
    assert any(finding.rule == "the evaluation warns of no copies" for finding in early.findings)
    attachments.attach(version, attachments.AUDIT, content, "auditor")
    verdict = judge(rules, version, "somebody else")
    assert verdict.status == "failed"
    assert verdict.findings[0].status == "failed"
