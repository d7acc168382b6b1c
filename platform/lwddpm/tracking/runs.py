"""One MLflow run per job, owned by the driver from opening to final status."""

import getpass
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import yaml
from matplotlib.figure import Figure
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.tracking import MlflowClient

from lwddpm.config import AnyJob
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.evaluation.figures import tile
from lwddpm.tracking.store import connect, public

_BATCH = 500  # metrics in one request; MLflow takes at most 1000
_FLUSH_EVERY_S = 10.0
_SYSTEM_METRICS_EVERY_S = 30
_PASSWORD = re.compile(r"//[^/@\s]+:[^/@\s]*@")  # user:password@ of a URL on the command line
_VERSIONED = ("lwddpm", "torch", "ray", "mlflow", "diffusers", "torchmetrics", "pyarrow", "numpy")


class TrackedRun:
    """An open run. Implements the training loop's `Reporter`."""

    def __init__(self, run_id: str, client: MlflowClient) -> None:
        self.run_id, self.client = run_id, client
        self._pending: list[Metric] = []
        self._flushed_at = time.monotonic()
        # A killed attempt may have logged further than its last checkpoint: those steps are not logged again.
        history = client.get_metric_history(run_id, "train/loss")
        self._logged_until = max((m.step for m in history), default=0)

    def metrics(self, rows: dict[int, dict[str, float]]) -> None:
        """Log now and then: a request costs tens of milliseconds of a CPU that the training wants."""
        now = int(time.time() * 1000)
        for step, values in rows.items():
            if "train/loss" in values:
                if step <= self._logged_until:
                    continue
                self._logged_until = step
            self._pending += [Metric(key, value, now, step) for key, value in values.items()]
        if len(self._pending) >= _BATCH or time.monotonic() - self._flushed_at >= _FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Send what is pending."""
        while self._pending:
            self.client.log_batch(self.run_id, metrics=self._pending[:_BATCH])
            self._pending = self._pending[_BATCH:]
        self._flushed_at = time.monotonic()

    def images(self, step: int, epoch: float, images: np.ndarray) -> None:
        grid = tile(images)
        self.client.log_image(self.run_id, grid, key="samples", step=step)
        self.client.log_image(self.run_id, grid, artifact_file=f"samples/epoch_{epoch:07.2f}.png")

    def checkpoint(self, step: int, path: Path) -> None:
        self.client.set_tag(self.run_id, "lwddpm.checkpoint", str(path))

    def figure(self, figure: Figure, name: str) -> None:
        """Store a figure under figures/."""
        self.client.log_figure(self.run_id, figure, f"figures/{name}.png")

    def text(self, text: str, file: str) -> None:
        self.client.log_text(self.run_id, text, file)

    def values(self, metrics: dict[str, float], step: int, model_id: str | None = None) -> None:
        """Log final numbers, such as `eval/...`, and attach them to a logged model where one is named."""
        self.flush()
        mlflow.log_metrics(metrics, step=step, run_id=self.run_id, model_id=model_id)

    @property
    def uri(self) -> str:
        """The store that the run is in."""
        return str(self.client.tracking_uri)

    def tags(self, tags: dict[str, str]) -> None:
        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def describe(self, job: AnyJob) -> None:
        """Log a job's settings, once: MLflow lets no parameter change."""
        settings = job.model_dump(mode="json")
        settings["tracking"]["uri"] = public(mlflow.get_tracking_uri())
        flat = [Param(key, str(value)) for key, value in _flatten(settings).items()]
        self.client.log_batch(self.run_id, params=flat)
        self.text(yaml.safe_dump(settings, sort_keys=False), "job.yaml")

    def end(self, status: str) -> None:
        """Close the run: FINISHED, KILLED or FAILED."""
        self.flush()
        self.client.set_terminated(self.run_id, status)

    def history(self, key: str) -> list[tuple[int, float]]:
        """All logged (step, value) of one metric, in order of steps."""
        self.flush()
        return sorted((m.step, m.value) for m in self.client.get_metric_history(self.run_id, key))

    def dataset(self, dataset: Dataset) -> None:
        """Record which dataset went in, as an MLflow dataset input."""
        source = resolve_dataset_source(dataset.path)
        described = MetaDataset(source, name=Path(dataset.path).name, digest=dataset.version[:36])
        mlflow.log_input(described, context="training")
        self.tags({"lwddpm.dataset_version": dataset.version, "lwddpm.dataset_path": dataset.path})


@contextmanager
def tracked_run(
    job: AnyJob, uri: str, run_id: str | None, digest: str, *, nested: bool = False
) -> Iterator[TrackedRun]:
    """Open a run, or open one again, and end it with what really happened.

    Leaves it FINISHED, KILLED on Ctrl-C or SIGTERM, FAILED on any other error.

    Args:
        job: logged as parameters and as `job.yaml`.
        uri: absolute tracking URI.
        run_id: an earlier attempt to continue, or None for a new run.
        digest: identifies the job's training.
        nested: whether the process has a run open already, which stays open.
    """
    client = connect(uri)
    mlflow.set_system_metrics_sampling_interval(_SYSTEM_METRICS_EVERY_S)
    fresh = run_id is None or not _exists(client, run_id)
    status = RunStatus.to_string(RunStatus.FAILED)
    try:
        if fresh:
            experiment_id = _experiment(client, uri, job.tracking.experiment)
            active = mlflow.start_run(
                experiment_id=experiment_id, run_name=job.name, log_system_metrics=True, nested=nested
            )
        else:  # in the experiment where it began
            active = mlflow.start_run(run_id=run_id, log_system_metrics=True, nested=nested)
        run = TrackedRun(active.info.run_id, client)
        if fresh:
            run.describe(job)
        run.tags({"lwddpm.digest": digest, "lwddpm.kind": job.kind, **_environment()})
        try:
            yield run
        finally:
            run.flush()
        status = RunStatus.to_string(RunStatus.FINISHED)
    except KeyboardInterrupt:
        status = RunStatus.to_string(RunStatus.KILLED)
        raise
    finally:
        mlflow.end_run(status)


def child_run(parent: TrackedRun, job: AnyJob, run_id: str | None, digest: str) -> TrackedRun:
    """A run beneath another, opened or opened again; whoever opens it ends it.

    Many may be open at a time, which MLflow's own nested runs cannot be.
    """
    client = parent.client
    if run_id is not None and _exists(client, run_id):
        client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        return TrackedRun(run_id, client)
    experiment_id = client.get_run(parent.run_id).info.experiment_id
    created = client.create_run(experiment_id, run_name=job.name, tags={"mlflow.parentRunId": parent.run_id})
    run = TrackedRun(created.info.run_id, client)
    run.describe(job)
    run.tags({"lwddpm.digest": digest, "lwddpm.kind": job.kind, "mlflow.user": getpass.getuser()})
    return run


def open_children(parent: TrackedRun) -> list[str]:
    """Ids of the runs beneath this one that are still RUNNING, as a killed driver leaves them."""
    experiment_id = parent.client.get_run(parent.run_id).info.experiment_id
    query = f"tags.`mlflow.parentRunId` = '{parent.run_id}' and attributes.status = 'RUNNING'"
    return [found.info.run_id for found in parent.client.search_runs([experiment_id], query, max_results=5000)]


def _experiment(client: MlflowClient, uri: str, name: str) -> str:
    """Id of the experiment, created where it is new; the artifacts of an SQLite store lie beside its file."""
    try:
        found = client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "active":
            return str(found.experiment_id)
        beside = Path(uri.removeprefix("sqlite:///")).parent / "mlruns" / name
        return str(client.create_experiment(name, str(beside) if uri.startswith("sqlite:///") else None))
    except mlflow.MlflowException as error:
        raise ConfigError(f"tracking.experiment: {name} cannot be used ({error}); choose another name") from None


def _exists(client: MlflowClient, run_id: str) -> bool:
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except mlflow.MlflowException:
        return False


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _environment() -> dict[str, str]:
    tags = {
        "lwddpm.host": platform.node(),
        "lwddpm.python": platform.python_version(),
        "lwddpm.command": _PASSWORD.sub("//", " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
    }
    tags |= {f"lwddpm.version.{name}": version(name) for name in _VERSIONED}
    commit = git_commit()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def git_commit() -> str | None:
    """Commit of the checkout that this code comes from, or None outside one."""
    if "LWDDPM_COMMIT" in os.environ:  # a submitted job's code was uploaded from a checkout
        return os.environ["LWDDPM_COMMIT"] or None
    folder = Path(__file__).parent
    try:
        found = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def log_images(run: TrackedRun, images: np.ndarray) -> None:
    """Keep generated slices with the run: `samples/images.npy`, uint8 [N, H, W]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, images)
        run.client.log_artifact(run.run_id, str(path), "samples")
