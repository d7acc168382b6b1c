"""A generator of its training slices has the best distance of all; evaluation, audit and gate do not let it by."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lwddpm.cli import app
from lwddpm.cluster.session import Session
from lwddpm.config import AuditJob, EvaluateJob, RegistryConfig, TrackingConfig, TrainJob
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.store import Dataset
from lwddpm.jobfile import load_job
from lwddpm.kinds import evaluate
from lwddpm.kinds.audit import run as audits
from lwddpm.tracking import registration, registry
from lwddpm.tracking.runs import tracked_run
from lwddpm.training.stored_model import load_model, save_model

DATA = ("data.phantom_count=160", "data.splits=[0.5,0.25,0.25]")  # of 32x32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("copied") / "phantoms"
    job = load_job("audit", [*DATA, f"data.path={path}"])
    assert isinstance(job, AuditJob)
    return prepare_dataset(job.data, lambda function, items, **options: map(function, items))


@pytest.fixture
def registered(
    store: str, tiny_job: Callable[..., TrainJob], model_dir: Path, dataset: Dataset, tmp_path: Path
) -> Callable[[str], str]:
    """Registers a network as one that was trained on the dataset; returns its URI."""

    def make(name: str) -> str:
        network, saved = load_model(model_dir)
        saved = saved.model_copy(update={"image_size": 32, "dataset_version": dataset.version})
        folder = save_model(tmp_path / name, network, saved)
        job = tiny_job().model_copy(update={"tracking": TrackingConfig(uri=store)})
        with tracked_run(job, store, None, "digest") as run:
            tags = {"lwddpm.dataset_version": dataset.version, "lwddpm.simulated": "true"}
            registration.register(run, folder, RegistryConfig(name=name), tags, {}, 8, "# card\n")
        return f"models:/{name}/1"

    return make


@pytest.fixture
def measured(dataset: Dataset, store: str, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Evaluates or audits a version."""
    places = [*DATA, f"data.path={dataset.path}", f"output={tmp_path / 'runs'}", f"tracking.uri={store}"]

    def run(kind: str, uri: str, *overrides: str) -> dict[str, Any]:
        job = load_job(kind, [f"model_uri={uri}", *places, "workers.cpus_per_worker=1", *overrides])
        with Session(job.workers) as session:
            if isinstance(job, AuditJob):
                return audits.run_audit(job, session, fresh=False)
            assert isinstance(job, EvaluateJob)
            return evaluate.run_evaluation(job, session, fresh=False)[0]

    return run


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_copies_with_the_best_distance_pass_no_shipped_policy(
    registered: Callable[[str], str],
    measured: Callable[..., dict[str, Any]],
    dataset: Dataset,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = np.array(dataset.images("train"))
    monkeypatch.setattr(evaluate, "generate_images", lambda folder, sampling, count, *_: train[:count])
    monkeypatch.setattr(audits, "draw_indices", lambda folder, how, numbers, *_: train[np.array(numbers)])
    uri = registered("copier")
    few = ("evaluation.num_samples=40", "evaluation.num_inference_steps=2", "evaluation.num_reference=80")
    metrics = measured("evaluate", uri, *few, "evaluation.metrics=[fd_lite0,recall_lite0,out_of_band]")["metrics"]
    assert metrics["eval/fd_lite0"] < 0.7 * metrics["eval/fd_lite0_floor"]  # better than real slices
    assert metrics["eval/copied_share"] == 1
    audit = measured(
        "audit", uri, "audit.num_samples=60", "audit.num_canaries=20", "audit.false_alarm_rate=0.1",
        "audit.membership=false", "sampling={}", "sampling.num_inference_steps=2",
    )  # fmt: skip
    assert audit["audit"]["verdict"] == "copies"

    def models(*words: str) -> Any:
        return CliRunner().invoke(app, ["models", *words, "--tracking-uri", store])

    for policy, refused in (
        ("research", {"copied_share (audit) at most 0.02", "fd_lite0 (evaluation) at least 0.9 times its floor"}),
        ("clinical", {"reproduced_share (audit) at most 0.01", "copied_share (audit) at most 0.005"}),
    ):
        assert models("gate", "copier", policy, "--reason", "copies are not to leave").exit_code == 0
        result = models("promote", uri, "--reason", "it has the best distance", "--approver", "Ben", "--json")
        assert result.exit_code == 1, result.output
        told = json.loads(result.stdout)
        assert told["promoted"] is False
        assert told["gate"]["status"] == "failed"
        state = {finding["rule"]: finding["status"] for finding in told["gate"]["findings"]}
        assert "passed" not in {state[rule] for rule in refused}
        assert state["the audit's own verdict is clear"] == "failed"
        assert state["the evaluation warns of no copies"] == "failed"
    assert "champion" not in registry.find_version(uri).aliases
