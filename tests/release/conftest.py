"""Versions in a real MLflow store on SQLite, with results of their own."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pytest

from lwddpm.audit.result import method_code
from lwddpm.config import EvaluationConfig, RegistryConfig, TrackingConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.evaluation.result import EvaluationResult, MetricRecord
from lwddpm.tracking import attachments, registration
from lwddpm.tracking.registry import WEIGHTS, RegisteredVersion
from lwddpm.tracking.runs import tracked_run
from lwddpm.tracking.store import connect

_NUMBERS = itertools.count()
POLICY = """
version: 3
intended_use: tests
expires_days: 30
rules:
  - {metric: copied_share, source: audit, at_most: 0.02, fewest: 500, why: copies are not to leave}
  - {metric: fd_lite0, source: evaluation, at_most: 3, times_floor: true, why: it must look like the data}
  - {metric: fd_lite0, source: evaluation, at_least: 0.9, times_floor: true, why: nearer than real slices are copies}
"""


@pytest.fixture(scope="session")
def release_store(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shared by the tests here, each with models of its own."""
    folder = tmp_path_factory.mktemp("release")
    shutil.copy(empty_store, folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture
def store(release_store: str) -> str:
    connect(release_store)
    return release_store


@pytest.fixture
def name(store: str) -> str:
    """Of a registered model that nobody else uses."""
    return f"gated-{next(_NUMBERS)}"


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "house.yaml"
    path.write_text(POLICY)
    return path


def figure(
    name: str, value: float, interval: tuple[float, float] | None, *, floor: float | None = None, n: int = 600
) -> MetricRecord:
    """One figure of an evaluation."""
    return MetricRecord(
        name=name, value=value, floor=floor, n=n, num_reference=900, reference="train", image_size=16,
        extractor=None, weights_sha256=None, sampler="ddim", num_inference_steps=3, protocol="a test",
        interval=interval,
    )  # fmt: skip


@pytest.fixture
def register(
    store: str, tiny_job: Callable[..., TrainJob], model_dir: Path, tiny_dataset: Dataset
) -> Callable[..., RegisteredVersion]:
    """Registers a version as a training does, with an evaluation of the given figures."""

    def make(name: str, *figures: MetricRecord, warnings: tuple[str, ...] = ()) -> RegisteredVersion:
        job = tiny_job().model_copy(update={"tracking": TrackingConfig(uri=store)})
        result = EvaluationResult(
            dataset_version=tiny_dataset.version, simulated=True, config=EvaluationConfig(), records=figures,
            unavailable=(), warnings=warnings,
        )  # fmt: skip
        with tracked_run(job, store, None, "digest") as run:
            if figures:
                run.text(result.model_dump_json(indent=2), "evaluation/metrics.json")
            tags = {"lwddpm.dataset_version": tiny_dataset.version, "lwddpm.simulated": "true"}
            config = RegistryConfig(name=name)
            return registration.register(run, model_dir, config, tags, result.metrics(), 8, "# card\n")

    return make


def audit_content(version: RegisteredVersion, **changes: Any) -> dict[str, Any]:
    """`audit.json` of a version that was found clear."""
    content = {
        "model": version.tags[WEIGHTS],
        "dataset": version.tags["lwddpm.dataset_version"],
        "code": method_code(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": "clear",
        "records": [{"name": "copied_share", "value": 0.0, "low": 0.0, "high": 0.011, "n": 1000, "null": 0.004}],
        "controls": {"exact": {"found": 1.0}, "held_out": {"flagged": 0.004}},
    }
    return content | changes


@pytest.fixture
def audited(register: Callable[..., RegisteredVersion]) -> Callable[..., RegisteredVersion]:
    """A version with an evaluation and an audit that pass the policy, where nothing else is asked for."""

    def make(name: str, **changes: Any) -> RegisteredVersion:
        version = register(name, figure("fd_lite0", 20.0, (19.0, 21.0), floor=10.0))
        attachments.attach(version, attachments.AUDIT, audit_content(version, **changes), "auditor")
        return version

    return make


def tag_of(name: str, key: str) -> str | None:
    """A tag of a registered model, as MLflow has it."""
    tags: dict[str, str] = mlflow.MlflowClient().get_registered_model(name).tags
    return tags.get(key)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(autouse=True)
def no_run_left_open() -> Iterator[None]:
    yield
    assert mlflow.active_run() is None
