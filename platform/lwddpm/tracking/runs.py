"""One MLflow run per job, owned by the driver from opening to final status."""

import getpass
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import mlflow
import numpy as np
from matplotlib.figure import Figure
from mlflow.entities import Dataset as DatasetRecord
from mlflow.entities import DatasetInput, InputTag, Param, RunStatus, RunTag
from mlflow.tracking import MlflowClient

from lwddpm.addresses import public
from lwddpm.config import AnyJob, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, DataError, JobError, LwddpmError
from lwddpm.marks.mark import FIGURE
from lwddpm.progress import say
from lwddpm.tracking import notes
from lwddpm.tracking.delivery import PATIENCE_S, STORE_ERRORS, Delivery, reason_of
from lwddpm.tracking.earlier_runs import DIGEST, PARENT, has_settings_of, parameters_of, status_of
from lwddpm.tracking.outbox import WARNING, Outbox
from lwddpm.tracking.provenance import environment_tags
from lwddpm.tracking.reconcile import close_dead_runs, identity
from lwddpm.tracking.rundir import job_yaml
from lwddpm.tracking.store import check_answers, connect, open_experiment, run_url

_SYSTEM_METRICS_EVERY_S = 30
_REASON = "lwddpm.reason"
_MAX_REASON = 1000  # characters; a tag takes 8000


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
        said = {"metadata": {"Description": FIGURE}}
        self.client.log_figure(self.run_id, figure, f"figures/{name}.png", save_kwargs=said)

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
        tags = {PARENT: parent}
        if isinstance(job, TrainJob):
            tags |= {"lwddpm.kind": "evaluate", notes.NOTE: notes.evaluation_note(job)}
        self.tags(tags)

    def describe(self, job: AnyJob) -> None:
        """Log a job's settings: those that make numbers as parameters, which never change; all of them as `job.yaml`,
        which is that of the last attempt."""
        parameters = [Param(key, value) for key, value in parameters_of(job).items()]
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
        before = status_of(client, run_id) if run_id is not None else ""
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
    if has_settings_of(active, job):
        run.describe(job)
        run.tags({DIGEST: digest})
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
    if run_id is not None and status_of(client, run_id):
        client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        run = TrackedRun(run_id, client, folder)
        if has_settings_of(client.get_run(run_id), job):
            run.describe(job)
        run.tags(identity())
        return run
    experiment_id = client.get_run(parent.run_id).info.experiment_id
    tags = {PARENT: parent.run_id, **identity()}
    created = client.create_run(experiment_id, run_name=job.name, tags=tags)
    run = TrackedRun(created.info.run_id, client, folder)
    run.describe(job)
    run.tags({DIGEST: digest, "lwddpm.kind": job.kind, "mlflow.user": getpass.getuser()})
    return run


def open_children(parent: TrackedRun) -> list[str]:
    """Ids of the runs beneath this one that are still RUNNING, as a killed driver leaves them."""
    experiment_id = parent.client.get_run(parent.run_id).info.experiment_id
    query = f"tags.`{PARENT}` = '{parent.run_id}' and attributes.status = 'RUNNING'"
    return [child.info.run_id for child in parent.client.search_runs([experiment_id], query, max_results=5000)]


def log_images(run: TrackedRun, images: np.ndarray) -> None:
    """Keep generated slices with the run: `samples/images.npy`, uint8 [N, H, W]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, images)
        run.client.log_artifact(run.run_id, str(path), "samples")
