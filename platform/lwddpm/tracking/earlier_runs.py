"""What an earlier attempt left in MLflow: its run, whether it is still there, and whether its settings are these."""

from dataclasses import dataclass
from typing import Any

from mlflow.entities import Run, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lwddpm.addresses import public
from lwddpm.config import AnyJob
from lwddpm.config.section import hex_digest
from lwddpm.errors import JobError, LwddpmError
from lwddpm.jobfile import flattened
from lwddpm.tracking.delivery import STORE_ERRORS, reason_of
from lwddpm.tracking.store import connect

PARENT, DIGEST = "mlflow.parentRunId", "lwddpm.digest"
_MAX_PARAMETER = 6000  # characters that MLflow takes


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
        if not status_of(client, run_id):
            return Place(None)
        earlier = client.get_run(run_id)
        if has_settings_of(earlier, job):
            return Place(run_id)
        query = f"tags.`{PARENT}` = '{run_id}' and tags.`{DIGEST}` = '{run_digest(job)}'"
        own = client.search_runs([earlier.info.experiment_id], query, max_results=1)
    except STORE_ERRORS as error:
        raise JobError(f"tracking: {public(uri)}: {reason_of(error)}; the same command tries again") from None
    finished = earlier.info.status == RunStatus.to_string(RunStatus.FINISHED)
    return Place(own[0].info.run_id if own else None, run_id, finished)


def run_digest(job: AnyJob) -> str:
    """12 hex digits of the parameters of a job's run."""
    return hex_digest(parameters_of(job))


def parameters_of(job: AnyJob) -> dict[str, str]:
    flat = flattened(job.public().model_dump(mode="json"))
    return {key: str(value)[:_MAX_PARAMETER] for key, value in flat.items() if job.is_parameter(key)}


def has_settings_of(run: Run, job: AnyJob) -> bool:
    """Whether the parameters of a run are the settings of a job; version 0.1.0 recorded all settings."""
    recorded = {key: value for key, value in run.data.params.items() if job.is_parameter(key)}
    return not run.data.params or recorded == parameters_of(job)  # without any it was killed before they were logged


def status_of(client: MlflowClient, run_id: str) -> str:
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
        if result["tracking_uri"] != public(uri) or status_of(connect(uri), run_id):
            return ""
    except (LwddpmError, *STORE_ERRORS):  # nothing is known, and nothing is needed from the store
        return ""
    return (
        f"; its MLflow run was deleted, MLFLOW_TRACKING_URI={public(uri)} mlflow runs restore --run-id {run_id} "
        "brings it back"
    )
