"""Results of a registered version: read from its run, and stored beside its files."""

from pathlib import Path

import mlflow
import pytest

from lwddpm.config import RegistryConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.tracking import registry
from lwddpm.tracking.runs import tracked_run
from lwddpm.tracking.version_results import attach, evaluation_of


@pytest.mark.cluster
def test_an_audit_is_stored_with_its_version_in_place_of_the_older_one(
    job: TrainJob, store: str, model_dir: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    with tracked_run(job, store, None, "digest") as run:
        made = registry.register(run, model_dir, RegistryConfig(name="audited"), {}, {}, 8, "card")
        run.text("measured", "evaluation/metrics.json")
    uri = f"models:/audited/{made.version}"
    assert evaluation_of(uri) == b"measured"
    for content in ("first", "second"):
        (tmp_path / "audit.json").write_text(content)
        attach(uri, tmp_path / "audit.json")
        assert Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/audit.json")).read_text() == content
    assert sorted(path.name for path in registry.fetch_model(uri).iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.cluster
def test_a_version_whose_run_measured_nothing_has_no_evaluation(
    job: TrainJob, store: str, model_dir: Path, tiny_dataset: Dataset
) -> None:
    with tracked_run(job, store, None, "digest") as run:
        registry.register(run, model_dir, RegistryConfig(name="unmeasured"), {}, {}, 8, "card")
    assert evaluation_of("models:/unmeasured/1") is None
