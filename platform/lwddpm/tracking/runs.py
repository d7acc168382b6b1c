"""One MLflow run per job, owned by the driver from opening to final status."""

import getpass
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from matplotlib.figure import Figure
from mlflow.entities import Dataset as DatasetRecord
from mlflow.entities import DatasetInput, InputTag, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lwddpm.addresses import public
from lwddpm.config import AnyJob, TrainJob
from lwddpm.config.section import hex_digest
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, DataError, JobError, LwddpmError
from lwddpm.jobfile import flattened
from lwddpm.progress import say
from lwddpm.tracking import notes
from lwddpm.tracking.delivery import PATIENCE_S, STORE_ERRORS, Delivery, reason_of
from lwddpm.tracking.outbox import WARNING, Outbox
from lwddpm.tracking.provenance import environment_tags
from lwddpm.tracking.reconcile import close_dead_runs, identity
from lwddpm.tracking.rundir import job_yaml
from lwddpm.tracking.store import check_answers, connect, open_experiment, run_url

_SYSTEM_METRICS_EVERY_S = 30
_REASON = "lwddpm.reason"
_MAX_REASON = 1000  # characters; a tag takes 8000
_MAX_PARAMETER = 6000  # characters that MLflow takes
_PARENT, _DIGEST = "mlflow.parentRunId", "lwddpm.digest"


class TrackedRun:
    """An open run.

    Reports of the training reach it through the outbox in the run folder, whenever the store answers. What is logged
    directly (figures, results) waits while the store does not: MLflow tries again for about four minutes.

    Args:
        folder: the run folder, for runs that train.
    """

    def __init__(self, run_id: str, client: MlflowClient, folder: Path | None = None) -> None:
        self.run_id, self.client = run_id, client
        self._delivery: Delivery | None = None
        if folder is not None:
            outbox = Outbox(folder / "outbox")
            outbox.reopen()
            self._delivery = Delivery(outbox, run_id, client)

    def flush(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until every report has arrived.

        Raises:
            JobError: the store does not take them; they are kept.
        """
        if self._delivery is not None:
            self._delivery.flush(patience_s)

    def end(self, status: str, tags: dict[str, str] | None = None) -> None:
        """Have the run ended (FINISHED, KILLED or FAILED) after its last report, without waiting for it."""
        assert self._delivery is not None, "a run without a folder is ended by `tracked_run`"
        self._delivery.outbox.end(status, tags or {})
        self._delivery.wake()

    def close(self) -> None:
        """Stop delivering; what is left is delivered when the run is opened again."""
        if self._delivery is not None:
            self._delivery.close()

    def figure(self, figure: Figure, name: str) -> None:
        """Store a figure under figures/."""
        self.client.log_figure(self.run_id, figure, f"figures/{name}.png")

    def text(self, text: str, file: str) -> None:
        self.client.log_text(self.run_id, text, file)

    def values(self, metrics: dict[str, float], step: int, model_id: str | None = None) -> None:
        """Log final numbers, such as `eval/...`, and attach them to a logged model where one is named."""
        mlflow.log_metrics(metrics, step=step, run_id=self.run_id, model_id=model_id)

    @property
    def uri(self) -> str:
        """The store that the run is in."""
        return str(self.client.tracking_uri)

    def tags(self, tags: dict[str, str]) -> None:
        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def warn(self, warning: str) -> None:
        """Add to the tag `lwddpm.warning`, beside what it says already: a damaged checkpoint, a mode collapse."""
        self.flush()  # reports of the training may bring one
        before = self.client.get_run(self.run_id).data.tags.get(WARNING, "")
        if warning not in before:
            self.tags({WARNING: f"{before}; {warning}" if before else warning})

    def evaluates(self, parent: str, job: AnyJob) -> None:
        """Put the run beneath that of an attempt with other settings."""
        tags = {_PARENT: parent}
        if isinstance(job, TrainJob):
            tags |= {"lwddpm.kind": "evaluate", notes.NOTE: notes.evaluation_note(job)}
        self.tags(tags)

    def describe(self, job: AnyJob) -> None:
        """Log a job's settings: those that make numbers as parameters, which never change; all of them as `job.yaml`,
        which is that of the last attempt."""
        parameters = [Param(key, value) for key, value in _parameters(job).items()]
        self.client.log_batch(self.run_id, params=parameters)
        self.tags({notes.NOTE: notes.run_note(job)})
        self.text(job_yaml(job), "job.yaml")

    def history(self, key: str) -> list[tuple[int, float]]:
        """All logged (step, value) of one metric, in order of steps."""
        self.flush()
        return sorted((m.step, m.value) for m in self.client.get_metric_history(self.run_id, key))

    def dataset(self, dataset: Dataset) -> None:
        """Record which dataset went in, as an MLflow dataset input."""
        scheme, separator, _ = dataset.path.partition("://")
        record = DatasetRecord(
            name=Path(dataset.path).name,
            digest=dataset.version[:36],
            source_type=scheme if separator else "local",
            source=json.dumps({"uri": dataset.path}),
        )
        context = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(self.run_id, [DatasetInput(record, [context])])
        self.tags({"lwddpm.dataset_version": dataset.version, "lwddpm.dataset_path": dataset.path})


@dataclass(frozen=True)
class Place:
    """Where the numbers of a job that comes back go.

    Attributes:
        run_id: a run that has the job's settings as its parameters; None: a new one.
        parent: the run of an attempt with other settings, beneath which it lies; None: there is none.
        parent_finished: whether nothing is left to do in that one.
    """

    run_id: str | None
    parent: str | None = None
    parent_finished: bool = False


def place_of(job: AnyJob, uri: str, run_id: str | None) -> Place:
    """Find where a job goes on: in its earlier run, or, where that has other parameters, in one of its own beneath it.

    Every number stands beside the settings that made it: MLflow lets nobody change a parameter.

    Args:
        run_id: of the earlier attempt, if there was one.

    Raises:
        JobError: the store does not answer.
    """
    if run_id is None:
        return Place(None)
    client = connect(uri)
    try:
        if not _status(client, run_id):
            return Place(None)
        earlier = client.get_run(run_id)
        if _records(earlier, job):
            return Place(run_id)
        query = f"tags.`{_PARENT}` = '{run_id}' and tags.`{_DIGEST}` = '{run_digest(job)}'"
        own = client.search_runs([earlier.info.experiment_id], query, max_results=1)
    except STORE_ERRORS as error:
        raise JobError(f"tracking: {public(uri)}: {reason_of(error)}; the same command tries again") from None
    finished = earlier.info.status == RunStatus.to_string(RunStatus.FINISHED)
    return Place(own[0].info.run_id if own else None, run_id, finished)


def run_digest(job: AnyJob) -> str:
    """12 hex digits of the parameters of a job's run."""
    return hex_digest(_parameters(job))


def _parameters(job: AnyJob) -> dict[str, str]:
    flat = flattened(job.model_dump(mode="json"))
    return {key: str(value)[:_MAX_PARAMETER] for key, value in flat.items() if job.is_parameter(key)}


def _records(run: Run, job: AnyJob) -> bool:
    """Whether the parameters of a run are the settings of a job; version 0.1.0 recorded all settings."""
    recorded = {key: value for key, value in run.data.params.items() if job.is_parameter(key)}
    return not run.data.params or recorded == _parameters(job)  # without any it was killed before they were logged


@contextmanager
def tracked_run(
    job: AnyJob,
    uri: str,
    run_id: str | None,
    digest: str,
    folder: Path | None = None,
    *,
    nested: bool = False,
    parent: str | None = None,
) -> Iterator[TrackedRun]:
    """Open a run, or open one again, say where it is, and end it with what really happened.

    Leaves it FINISHED, KILLED on Ctrl-C or SIGTERM, FAILED on any other error, with the reason as a tag; wrong input
    leaves an earlier attempt that has FINISHED as it was. Runs that a crash left open on this machine are closed first.

    Args:
        job: logged as parameters, and at every attempt as `job.yaml`, unless the run has others as parameters.
        uri: absolute tracking URI.
        run_id: an earlier attempt to continue, or None for a new run.
        digest: `run_digest` of the job.
        folder: the run folder of a job that trains.
        nested: whether the process has a run open already, which stays open.
        parent: the run that this one evaluates with other settings, and lies beneath.

    Raises:
        JobError: the store stopped answering, for longer than it is waited for.
    """
    client = connect(uri)
    run, before, outer = None, "", mlflow.active_run()
    try:
        experiment_id = open_experiment(client, uri, job.tracking.experiment)
        close_dead_runs(client, experiment_id, run_id)
        before = _status(client, run_id) if run_id is not None else ""
        above = parent or (outer.info.run_id if nested and outer is not None else None)
        if above is not None:
            experiment_id = client.get_run(above).info.experiment_id
        run = _open(client, experiment_id, job, run_id if before else None, digest, folder, nested)
        if parent is not None:
            run.evaluates(parent, job)
        yield run
        run.flush()
        _end(run, outer, RunStatus.FINISHED)
    except STORE_ERRORS as error:
        reason = reason_of(error)
        _end(run, outer, RunStatus.FAILED, reason)
        raise JobError(f"tracking: {public(uri)}: {reason}; what is done is kept, the same command continues") from None
    except KeyboardInterrupt:
        _end(run, outer, RunStatus.KILLED)
        raise
    except (ConfigError, DataError) as error:
        finished = before == RunStatus.to_string(RunStatus.FINISHED)
        _end(run, outer, RunStatus.FINISHED if finished else RunStatus.FAILED, "" if finished else str(error))
        raise
    except BaseException as error:
        _end(run, outer, RunStatus.FAILED, str(error) or type(error).__name__)
        raise


def _open(
    client: MlflowClient,
    experiment_id: str,
    job: AnyJob,
    run_id: str | None,
    digest: str,
    folder: Path | None,
    nested: bool,
) -> TrackedRun:
    mlflow.set_system_metrics_sampling_interval(_SYSTEM_METRICS_EVERY_S)
    if run_id is None:
        with _environment_variable("MLFLOW_RUN_ID", None):  # MLflow would continue that run, whoever's it is
            active = mlflow.start_run(
                experiment_id=experiment_id, run_name=job.name, log_system_metrics=True, nested=nested, tags=identity()
            )
    else:  # in the experiment where it began
        active = mlflow.start_run(run_id=run_id, log_system_metrics=True, nested=nested)
    if folder is not None:
        Outbox(folder / "outbox").sweep()
    run = TrackedRun(active.info.run_id, client, folder)
    if _records(active, job):
        run.describe(job)
        run.tags({_DIGEST: digest})
    if _REASON in active.data.tags:  # of the attempt before
        client.delete_tag(run.run_id, _REASON)
    run.tags({"lwddpm.kind": job.kind, **identity(), **environment_tags()})
    say(f"MLflow run {run.run_id} ({run_url(client, run.run_id)})")
    return run


def _end(run: TrackedRun | None, outer: mlflow.ActiveRun | None, status: int, reason: str = "") -> None:
    """End the open run as well as can be: a store that does not answer must not hide what happened."""
    name, answers = RunStatus.to_string(status), True
    if run is not None:
        try:
            check_answers(str(run.client.tracking_uri))
            if status != RunStatus.FINISHED:  # otherwise everything has arrived
                run.flush(0)
            if reason:
                run.tags({_REASON: reason[:_MAX_REASON]})
        except (LwddpmError, *STORE_ERRORS) as error:
            say(reason_of(error))
            answers = False
        run.close()
    if mlflow.active_run() is outer:  # it was not even opened
        return
    try:
        # With a store known not to answer, minutes of trying at the end of a process would gain nothing.
        with nullcontext() if answers else _environment_variable("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"):
            mlflow.end_run(name)
    except STORE_ERRORS:
        say(f"that the run is {name} could not be recorded; the same command puts it right")


@contextmanager
def _environment_variable(name: str, value: str | None) -> Iterator[None]:
    """Set a variable of this process, or remove it, while the block runs."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def child_run(parent: TrackedRun, job: AnyJob, run_id: str | None, digest: str, folder: Path) -> TrackedRun:
    """A run beneath another, opened or opened again; whoever opens it ends it.

    Many may be open at a time, which MLflow's own nested runs cannot be.
    """
    client = parent.client
    if run_id is not None and _status(client, run_id):
        client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        run = TrackedRun(run_id, client, folder)
        if _records(client.get_run(run_id), job):
            run.describe(job)
        run.tags(identity())
        return run
    experiment_id = client.get_run(parent.run_id).info.experiment_id
    tags = {_PARENT: parent.run_id, **identity()}
    created = client.create_run(experiment_id, run_name=job.name, tags=tags)
    run = TrackedRun(created.info.run_id, client, folder)
    run.describe(job)
    run.tags({_DIGEST: digest, "lwddpm.kind": job.kind, "mlflow.user": getpass.getuser()})
    return run


def open_children(parent: TrackedRun) -> list[str]:
    """Ids of the runs beneath this one that are still RUNNING, as a killed driver leaves them."""
    experiment_id = parent.client.get_run(parent.run_id).info.experiment_id
    query = f"tags.`{_PARENT}` = '{parent.run_id}' and attributes.status = 'RUNNING'"
    return [child.info.run_id for child in parent.client.search_runs([experiment_id], query, max_results=5000)]


def _status(client: MlflowClient, run_id: str) -> str:
    """Of an earlier attempt; empty where it has been deleted."""
    try:
        info = client.get_run(run_id).info
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return ""
        raise  # a store that does not answer is no reason to begin a second run
    return str(info.status) if info.lifecycle_stage == "active" else ""


def if_deleted(uri: str, result: dict[str, Any]) -> str:
    """What to add to "finished already" where the run of a result was deleted in this store; else nothing."""
    run_id = result["run_id"]
    try:
        if result["tracking_uri"] != public(uri) or _status(connect(uri), run_id):
            return ""
    except (LwddpmError, *STORE_ERRORS):  # nothing is known, and nothing is needed from the store
        return ""
    return (
        f"; its MLflow run was deleted, MLFLOW_TRACKING_URI={public(uri)} mlflow runs restore --run-id {run_id} "
        "brings it back"
    )


def log_images(run: TrackedRun, images: np.ndarray) -> None:
    """Keep generated slices with the run: `samples/images.npy`, uint8 [N, H, W]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, images)
        run.client.log_artifact(run.run_id, str(path), "samples")
