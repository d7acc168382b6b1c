"""Training on Ray Train: starts the workers, listens to rank 0, hands the outcome back."""

import logging
import os
import queue
import signal
import threading
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2._internal.execution import context as ray_train_context
from ray.util.queue import Queue as RayQueue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lwddpm import errors
from lwddpm.cluster.network import GroupConfig
from lwddpm.cluster.session import Session
from lwddpm.config import TrainJob, WorkersConfig
from lwddpm.data.store import Dataset, open_dataset
from lwddpm.errors import JobError, LwddpmError
from lwddpm.evaluation.collapse import collapse_warning
from lwddpm.progress import Bar, bar, say
from lwddpm.tracking.outbox import Outbox
from lwddpm.training.allocator import ENVIRONMENT
from lwddpm.training.loop import TrainingOutcome, train
from lwddpm.training.reporter import SilentReporter
from lwddpm.training.schedule import Schedule

_STARTS = 10  # attempts of 60 s to place the workers, in all; Ray Train's default is to try for ever
_ELASTIC_START_S = "15"  # an elastic group is placed where there is room, or was, seconds ago: then the next try knows
RESIZE_EVERY_S = 60.0  # how often an elastic group looks for more room


Rows = dict[int, dict[str, float]]  # numbers by step


class Listener(Protocol):
    """Hears the workers of a training, in the driver."""

    def metrics(self, rows: Rows) -> None:
        """Rank 0 reports numbers."""

    def worker_started(self, rank: int, world: int, until: int | None, gpu: str) -> None:
        """A worker begins, or begins again after a loss: `metrics.JobMetrics.worker_started`."""


class WorkerReporter(Outbox):
    """Rank 0's reports: into the run folder, for MLflow; the numbers also to whoever watches in the driver."""

    def __init__(self, folder: Path, events: Any) -> None:
        super().__init__(folder)
        self._events = events

    def metrics(self, rows: Rows) -> None:
        super().metrics(rows)
        self._events.put(("metrics", (rows,)))


def train_on_workers(job: TrainJob, dataset: Dataset, run_dir: Path, session: Session) -> TrainingOutcome:
    """Train to the end, or from the newest checkpoint in `run_dir` to the end; reports go to `run_dir/outbox`.

    Ctrl-C or SIGTERM asks the workers for a checkpoint, waits for it and raises KeyboardInterrupt; a second
    one does not wait.

    Raises:
        JobError: the training failed, or a worker was lost more often than `workers.max_failures` allows.
        KeyboardInterrupt: stopped by the user; a checkpoint is saved.
    """
    total = Schedule.of(job.training, dataset.num("train"), job.batches_per_step).num_steps
    with bar("training", total) as progress, StopRequest(run_dir / "stop") as stop:
        outcome = run_workers(job, dataset, run_dir, _Shown(progress, session), session, stop.file)
        session.metrics.training_ended()
    if stop.requested or not outcome.finished:
        say(f"stopped at step {outcome.step} of {total}; the same command continues from there")
        raise KeyboardInterrupt
    return outcome


class _Shown:
    """Shows how far the training is, on the terminal and in the exported metrics."""

    def __init__(self, progress: Bar, session: Session) -> None:
        self._progress, self._session = progress, session

    def metrics(self, rows: Rows) -> None:
        self._session.metrics.metrics(rows)
        step, values = max(rows.items())
        if "train/images_per_s" in values:
            rate = values["train/images_per_s"]
            self._progress.advance_to(step, f"loss {values['train/loss']:.4f}, {rate:.1f} images/s")
        warning = collapse_warning(values.get("train/diversity", 1.0))
        if warning is not None:
            say(f"warning: step {step}: {warning}")

    def worker_started(self, rank: int, world: int, until: int | None, gpu: str) -> None:
        resources = {} if self._session.in_process else self._session.worker_resources
        self._session.metrics.worker_started(rank, world, until, gpu, resources)


def run_workers(
    job: TrainJob,
    dataset: Dataset,
    run_dir: Path,
    listener: Listener,
    session: Session,
    stop_file: Path,
    until: int | None = None,
) -> TrainingOutcome:
    """Start the workers and wait for the end.

    Args:
        listener: called in this thread.
        stop_file: once it exists, the workers save a checkpoint and end.
        until: optimizer step to pause at; default: the end of the training.

    Raises:
        JobError: as `train_on_workers`.
    """
    if not session.in_process:
        session.connect()
    logging.getLogger("ray").setLevel(logging.ERROR)
    workers = job.workers
    if workers.elastic:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", _ELASTIC_START_S)
    events: Any = queue.Queue() if session.in_process else RayQueue(actor_options=_beside_the_driver())
    payload = {
        "job": job.model_dump(mode="json"),
        "dataset": dataset.path,
        "run_dir": str(run_dir),
        "stop_file": str(stop_file),
        "until": until,
        "in_process": session.in_process,
        "threads": session.cpus_per_worker,
        "use_gpu": session.use_gpu,
        "events": events,
    }
    trainer = TorchTrainer(
        _work,
        train_loop_config=payload,
        torch_config=GroupConfig(),
        scaling_config=ScalingConfig(
            num_workers=_num_workers(workers, session),
            elastic_resize_monitor_interval_s=RESIZE_EVERY_S,
            use_gpu=session.use_gpu,
            resources_per_worker=None if session.in_process else session.worker_resources,
        ),
        run_config=RunConfig(
            # Unique: with a known name Ray Train would restore its own state; a run's state is its checkpoints.
            name=f"{run_dir.name}-{uuid.uuid4().hex[:8]}",
            storage_path=str(run_dir / "ray"),
            worker_runtime_env={"env_vars": ENVIRONMENT},
            failure_config=FailureConfig(max_failures=workers.max_failures, controller_failure_limit=_STARTS),
        ),
    )
    attempt = _Attempt(trainer, events)
    attempt.start()
    for name, arguments in iter(events.get, None):
        getattr(listener, name)(*arguments)
    return attempt.outcome()


def _beside_the_driver() -> dict[str, Any]:
    """Options of an actor that must not be lost with a node that works for the driver."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return {"num_cpus": 0, "scheduling_strategy": here}


def _num_workers(workers: WorkersConfig, session: Session) -> int | tuple[int, int]:
    if session.in_process:
        return 0
    return (workers.min_count, workers.max_count) if workers.elastic else workers.max_count


def _work(payload: dict[str, Any]) -> dict[str, Any]:
    """What every worker runs.

    Errors meant for users are returned as values: Ray Train would retry an exception, and a run that diverged diverges
    again. Such a JobError comes to all ranks together; what one rank may meet alone (it does not see the dataset) it
    raises, so that Ray Train ends the group at once.
    """
    torch.set_num_threads(payload["threads"])
    job = TrainJob.model_validate(payload["job"])
    run_dir = Path(payload["run_dir"])
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    reporter = WorkerReporter(run_dir / "outbox", payload["events"]) if rank == 0 else SilentReporter()
    device = _device(payload["use_gpu"])
    payload["events"].put(("worker_started", (rank, world, payload["until"], _gpu_name(device))))
    stop_file = Path(payload["stop_file"])

    def stop() -> bool:
        return stop_file.exists() or (not payload["in_process"] and _preempted())

    try:
        dataset = open_dataset(payload["dataset"])
        outcome = train(job, dataset, run_dir, reporter, device, stop, payload["until"])
        paused = payload["until"] is not None and outcome.step >= payload["until"]
        if not (outcome.finished or paused or stop_file.exists()):
            # Not a failure to Ray Train, which has announced the preemption itself: it starts the group elsewhere.
            raise RuntimeError(f"a node is about to end; the checkpoint of step {outcome.step} is saved")
        return asdict(outcome)
    except LwddpmError as error:
        if rank != 0 and not isinstance(error, JobError):
            raise
        return {"error": type(error).__name__, "message": str(error)}


def _preempted() -> bool:
    """Whether a node of this worker's group has been told that it will end soon.

    Ray Train tells every worker. Its public function for it is a barrier, which would cost milliseconds a report.
    """
    told = getattr(ray_train_context.get_train_context(), "preemption_context", None)  # younger than Ray 2.51
    return getattr(told, "preemption_info", None) is not None


def _device(use_gpu: bool) -> torch.device:
    if not use_gpu:
        return torch.device("cpu")
    # In the driver's process Ray Train's get_device() would start a second Ray to ask for GPU ids.
    device: torch.device = get_device() if ray.is_initialized() and dist.is_initialized() else torch.device("cuda", 0)
    return device


def _gpu_name(device: torch.device) -> str:
    """As NVML and Ray's metrics call it; empty for a CPU."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else ""


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a stop file that the workers look for; a second one interrupts.

    A flag instead of an exception: an interrupt in the middle of a request to MLflow would lose what it carries.
    """

    def __init__(self, file: Path) -> None:
        self.requested = False
        self.file = file
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        self.file.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self.file.unlink(missing_ok=True)

    def _note(self, number: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self.file.touch()
        say("stopping: saving a checkpoint (Ctrl-C again: do not wait)")


def training_goes_on() -> bool:
    """Whether a training of this process has not ended yet."""
    return any(isinstance(thread, _Attempt) for thread in threading.enumerate())


class _Attempt(threading.Thread):
    """`trainer.fit()` beside the driver's main thread, which stays free for tracking, progress and signals.

    The last event is None: what rank 0 reported is in the queue before it.
    """

    def __init__(self, trainer: TorchTrainer, events: Any) -> None:
        super().__init__(daemon=True, name="ray-train-fit")
        self._trainer, self._events = trainer, events
        self._result: dict[str, Any] | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._trainer.fit().return_value
        except BaseException as error:  # carried to the main thread, which raises it
            self._error = error
        finally:
            self._events.put(None)

    def outcome(self) -> TrainingOutcome:
        self.join()
        if isinstance(self._error, ray.train.WorkerGroupError):
            causes = "; ".join(f"rank {rank}: {cause}" for rank, cause in self._error.worker_failures.items())
            raise JobError(f"training failed: {causes}; the same command continues from the last checkpoint")
        if isinstance(self._error, ray.train.TrainingFailedError):
            reason = " ".join(str(self._error).split()) or type(self._error).__name__
            raise JobError(f"training failed: {reason}; the same command continues from the last checkpoint")
        if self._error is not None:
            raise self._error
        result = self._result or {"error": "JobError", "message": "the workers ended without a result"}
        if "error" in result:
            raise getattr(errors, result["error"])(result["message"])
        return TrainingOutcome(**result)
