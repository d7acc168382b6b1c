"""Where MLflow keeps its records, and whether it can be reached."""

import logging
import os
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from lwddpm.addresses import is_loopback, public
from lwddpm.config import TrackingConfig
from lwddpm.errors import ConfigError
from lwddpm.files import locked
from lwddpm.tracking import notes

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TIMEOUT_S = 5.0
_REMEDY = "start it, or set tracking.uri (or MLFLOW_TRACKING_URI) to another store"


def tracking_uri(tracking: TrackingConfig | None = None) -> str:
    """The job's `tracking.uri`, else MLFLOW_TRACKING_URI, else SQLite in the working folder; always absolute.

    Workers and the driver have different working folders, so a relative path would be two stores.
    """
    uri = (tracking.uri if tracking else None) or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    prefix = "sqlite:///"
    if uri.startswith(prefix) and not uri.startswith(f"{prefix}/"):
        return f"{prefix}{Path.cwd() / uri.removeprefix(prefix)}"
    return uri


def check_tracking(tracking: TrackingConfig | None = None, offline: bool = False) -> str:
    """Refuse a store that cannot be used, within seconds and without importing MLflow.

    Args:
        tracking: of the job.
        offline: refuse a server elsewhere that only the environment names.

    Returns:
        The absolute tracking URI.

    Raises:
        ConfigError: says what was tried and what to do.
    """
    uri = tracking_uri(tracking)
    parsed = urlparse(uri)
    named = tracking is not None and tracking.uri is not None
    if offline and not named and parsed.hostname and not is_loopback(parsed.hostname):
        raise ConfigError(
            f"offline: an offline job reaches no server that it does not name, MLFLOW_TRACKING_URI is {public(uri)}; "
            "unset it, or name the server in tracking.uri"
        )
    if parsed.scheme in ("http", "https"):
        check_answers(uri)
    elif parsed.scheme == "sqlite":
        folder = Path(uri.removeprefix("sqlite:///")).parent
        if not os.access(folder, os.W_OK):
            raise ConfigError(
                f"tracking.uri: the folder of an SQLite store must be writable, {folder} is not; {_REMEDY}"
            )
    elif parsed.scheme not in ("file", "postgresql", "mysql", "mssql", "databricks"):
        raise ConfigError(
            f"tracking.uri: must begin with http(s)://, sqlite:/// or postgresql://, got {public(uri)!r}; "
            "such as sqlite:///mlflow.db"
        )
    return uri


def check_answers(uri: str) -> None:
    """Find out within seconds whether a server listens: MLflow itself would try for minutes. Files always answer.

    Raises:
        ConfigError: nobody listens there.
    """
    parsed = urlparse(uri)
    if parsed.scheme not in ("http", "https"):
        return
    try:
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
        socket.create_connection((parsed.hostname or "", port), timeout=_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"tracking.uri: {public(uri)} does not answer ({error}); {_REMEDY}") from None


def named_hosts(tracking: TrackingConfig) -> list[str]:
    """The servers of a job's tracking store: of its records and, where it is S3, of its artifacts."""
    uris = (tracking_uri(tracking), os.environ.get("MLFLOW_S3_ENDPOINT_URL", ""))
    return [host for uri in uris if (host := urlparse(uri).hostname)]


def connect(uri: str) -> "MlflowClient":
    """Point this process at the store, creating its tables where it is new (which takes seconds)."""
    import mlflow
    from sqlalchemy.exc import SQLAlchemyError

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # whole statements; we say it in a line
    mlflow.set_tracking_uri(uri)
    mlflow.clear_active_model()  # every metric would be attached to the one of MLFLOW_ACTIVE_MODEL_ID, whoever's it is
    try:
        client = mlflow.MlflowClient(uri)
        with _creating(uri):
            client.search_experiments(max_results=1)
    except (mlflow.MlflowException, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"tracking.uri: {public(uri)} is not a usable MLflow store ({reason}); set another") from None
    return client


def open_experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """Id of the experiment, created where it is new; the artifacts of an SQLite store lie beside its file.

    Raises:
        ConfigError: it was deleted in MLflow, its artifacts would go where the store was before it was moved, or the
            name cannot be used.
    """
    import mlflow

    beside = _artifacts_beside(uri, name)
    try:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            location = None if beside is None else str(beside)
            return str(client.create_experiment(name, location, tags=notes.EXPERIMENT))
        experiment_id = str(experiment.experiment_id)
        if experiment.lifecycle_stage != "active":
            raise ConfigError(
                f"tracking.experiment: {name} was deleted in MLflow; choose another name, or bring it back with: "
                f"MLFLOW_TRACKING_URI={public(uri)} mlflow experiments restore --experiment-id {experiment_id}"
            )
        place = local_place(experiment.artifact_location)
        if beside is not None and place is not None and beside.resolve() != place.resolve():
            gone = beside.exists() or not place.exists()
            if gone and client.search_runs([experiment_id], max_results=1):  # a new one has no folder yet
                raise ConfigError(f"tracking.experiment: {name} keeps its artifacts in {place}; {moved(place, beside)}")
    except mlflow.MlflowException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"tracking.experiment: {name} cannot be used ({reason}); choose another name") from None
    return experiment_id


def _artifacts_beside(uri: str, name: str) -> Path | None:
    """Where the artifacts of an experiment lie in an SQLite store; other stores decide for themselves."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)).parent / "mlruns" / name if uri.startswith(prefix) else None


def local_place(location: str) -> Path | None:
    """The folder on this machine that MLflow keeps something in, or None where it lies elsewhere."""
    parsed = urlparse(location)
    return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None


def moved(before: Path, now: Path | None) -> str:
    """What to do where MLflow, which remembers full paths, points to where a folder was."""
    link = f"ln -s {shlex.quote(str(now)) if now else 'WHERE_IT_IS_NOW'} {shlex.quote(str(before))}"
    return (
        "the store was moved or copied since, and MLflow remembers full paths: move it back, or link the one that it "
        f"remembers: mkdir -p {shlex.quote(str(before.parent))} && {link}"
    )


def run_url(client: "MlflowClient", run_id: str) -> str:
    """The run's page on an MLflow server; for other stores their URI, which `mlflow ui` takes."""
    uri = public(str(client.tracking_uri))
    if not uri.startswith("http"):
        return uri
    return f"{uri.rstrip('/')}/#/experiments/{client.get_run(run_id).info.experiment_id}/runs/{run_id}"


@contextmanager
def _creating(uri: str) -> Iterator[None]:
    """Only one process at a time may find an SQLite file without tables: MLflow does not guard their creation."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    with locked(Path(f"{uri.removeprefix('sqlite:///')}.lock")):
        yield
