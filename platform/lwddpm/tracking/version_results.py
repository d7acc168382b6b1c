"""Results that belong to a registered version: its evaluation, and the audit that is stored with it."""

import tempfile
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from requests import RequestException

from lwddpm.errors import JobError
from lwddpm.tracking.registry import find_version


def evaluation_of(uri: str) -> bytes | None:
    """The content of `evaluation/metrics.json` of the run that made a version, `models:/NAME/VERSION`, or None."""
    version = find_version(uri)
    with tempfile.TemporaryDirectory() as folder:
        try:
            place = f"runs:/{version.run_id}/evaluation/metrics.json"
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=place, dst_path=folder)).read_bytes()
        except (MlflowException, RequestException, OSError):
            return None


def attach(uri: str, file: Path) -> None:
    """Store a file beside the model's own files, in place of an older one of its name.

    Raises:
        JobError: a version of an old MLflow has no place for files of its own.
    """
    version, client = find_version(uri), MlflowClient()
    source = str(client.get_model_version(version.name, str(version.version)).source)
    model_id = source.removeprefix("models:/")  # the field model_id is empty in MLflow 3.17
    if model_id == source:
        raise JobError(f"{uri}: has no place for {file.name}; register the model anew")
    client.log_model_artifact(model_id, str(file))
