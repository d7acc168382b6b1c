"""Curves come from the run folder; MLflow is asked about what an earlier version has not kept there."""

from pathlib import Path

import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from lwddpm.kinds.training_curves import training_curves
from lwddpm.tracking.metric_log import MetricLog
from lwddpm.tracking.runs import TrackedRun
from lwddpm.tracking.store import connect


@pytest.fixture
def logged(tmp_path: Path) -> TrackedRun:
    """A run whose first three losses MLflow has."""
    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    run_id = client.create_run(client.create_experiment("e", str(tmp_path / "artifacts"))).info.run_id
    client.log_batch(run_id, [Metric("train/loss", 1 / step, 1, step) for step in (1, 2, 3)])
    client.log_batch(run_id, [Metric("system/cpu", 99.0, 1, 0)])
    return TrackedRun(run_id, client)


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> TrackedRun:
    """A run of a store that does not answer."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return TrackedRun("0" * 32, MlflowClient("http://127.0.0.1:1"))


def test_a_run_folder_needs_no_store(gone: TrackedRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    MetricLog(tmp_path / "run").append({1: {"train/loss": 0.5}, 2: {"train/loss": 0.25}})
    assert training_curves(tmp_path / "run", gone) == {"train/loss": [(1, 0.5), (2, 0.25)]}
    assert capfd.readouterr().err == ""


def test_what_an_earlier_version_trained_is_asked_from_mlflow(logged: TrackedRun, tmp_path: Path) -> None:
    losses = [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert training_curves(tmp_path / "run", logged) == {"train/loss": losses}
    MetricLog(tmp_path / "run").append({3: {"train/loss": 0.3}, 4: {"train/loss": 0.2, "val/loss": 0.9}})
    assert training_curves(tmp_path / "run", logged) == {
        "train/loss": [*losses[:2], (3, 0.3), (4, 0.2)],
        "val/loss": [(4, 0.9)],
    }


def test_where_nobody_has_them_that_is_said(
    gone: TrackedRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    MetricLog(tmp_path / "run").append({7: {"train/loss": 0.5}})
    assert training_curves(tmp_path / "run", gone) == {"train/loss": [(7, 0.5)]}
    assert "figures lack steps that only MLflow has kept" in capfd.readouterr().err
