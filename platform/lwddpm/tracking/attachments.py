"""Results that are stored with a version: `evaluation.json`, `audit.json`. They lie beside the model's own files.

What a version was measured to be can be attached later; the log of its model has the hash of every file, so that one
which was replaced past the log is told from it.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from requests import RequestException

from lwddpm.errors import JobError
from lwddpm.tracking import registry_log
from lwddpm.tracking.chain import canonical
from lwddpm.tracking.registry import RegisteredVersion

EVALUATION, AUDIT = "evaluation.json", "audit.json"
READER_EXPERIMENT = "reader-studies"  # of the board
_KINDS = {EVALUATION: "evaluation", AUDIT: "audit"}


def attach(version: RegisteredVersion, file: str, content: dict[str, Any], by: str) -> str:
    """Store a result with a version, in place of an older one, and log that.

    Args:
        file: `EVALUATION` or `AUDIT`.
        content: JSON values.
        by: who measured.

    Returns:
        SHA-256 of what was stored.

    Raises:
        JobError: a version of an old MLflow has no place for files of its own, or a number is none.
    """
    client = MlflowClient()
    source = str(client.get_model_version(version.name, str(version.version)).source)
    model_id = source.removeprefix("models:/")  # the field model_id is empty in MLflow 3.17
    if model_id == source:
        raise JobError(f"models:/{version.name}/{version.version}: has no place for {file}; register the model anew")
    try:
        text = canonical(content)
    except ValueError:
        raise JobError(f"{file}: must hold numbers that are numbers; a NaN or an infinity proves nothing") from None
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.write_text(text, encoding="utf-8")
        client.log_model_artifact(model_id, str(path))
    about = {"file": file, "sha256": sha256}
    about |= {key: content[key] for key in ("verdict", "date") if isinstance(content.get(key), str)}
    registry_log.append(version.name, _KINDS[file], version.version, by, about)
    return sha256


def attached(version: RegisteredVersion, file: str) -> bytes | None:
    """A result that is stored with a version, or None."""
    return _read(f"models:/{version.name}/{version.version}/{file}")


def of_run(version: RegisteredVersion, path: str) -> bytes | None:
    """An artifact of the run that made a version, or None."""
    return _read(f"runs:/{version.run_id}/{path}") if version.run_id else None


def trainer_of(version: RegisteredVersion) -> str | None:
    """Who trained a version, as MLflow has it; None where its run is gone."""
    try:
        return str(MlflowClient().get_run(version.run_id).data.tags["mlflow.user"])
    except (MlflowException, KeyError):
        return None


def job_of(version: RegisteredVersion) -> bytes | None:
    """The job file of the training that made a version, or None."""
    return of_run(version, "job.yaml")


def finished_readers(version: RegisteredVersion) -> int:
    """How many readers have finished a study of a version on the board that asked whether slices are real."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(READER_EXPERIMENT)
    if experiment is None:
        return 0
    query = f"tags.`lwddpm.model_version` = '{version.version}' and attributes.status = 'FINISHED'"
    runs = client.search_runs([experiment.experiment_id], query, max_results=1000)
    tags = [run.data.tags for run in runs if run.data.tags.get("lwddpm.question") != "class"]
    return sum("lwddpm.reader" in of_run and of_run.get("lwddpm.model") == version.name for of_run in tags)


def _read(uri: str) -> bytes | None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)).read_bytes()
        except (MlflowException, RequestException, OSError):
            return None


def parsed(text: bytes | None) -> dict[str, Any] | None:
    """The object in a stored file; None where there is none."""
    try:
        value = json.loads(text) if text is not None else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
