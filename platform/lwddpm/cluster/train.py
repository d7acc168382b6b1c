"""Training on Ray Train: starts the workers, listens to rank 0, hands the outcome back."""

import logging
import os
import queue
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.util.queue import Queue as RayQueue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lwddpm import errors
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.listener import Listener, Rows, WorkerReporter, deliver
from lwddpm.cluster.network import GroupConfig
from lwddpm.cluster.preemption import preemption_announced
from lwddpm.cluster.session import Session
from lwddpm.cluster.settings import ray_settings
from lwddpm.cluster.stop import BackgroundCall, StopRequest
from lwddpm.config import TrainJob, WorkersConfig
from lwddpm.data.store import Dataset, open_dataset
from lwddpm.errors import JobError, LwddpmError
from lwddpm.evaluation.collapse import collapse_warning
from lwddpm.progress import Bar, bar, say
from lwddpm.training.agreement import together
from lwddpm.training.allocator import ENVIRONMENT
from lwddpm.training.loop import TrainingOutcome, train
from lwddpm.training.reporter import SilentReporter
from lwddpm.training.schedule import Schedule

_PLACEMENT_ATTEMPTS = 10  # of 60 s each to place the workers; Ray Train's default is to try for ever
# An elastic group is placed where Ray believes room to be, which after a loss may be out of date: try anew soon.
_ELASTIC_PLACEMENT_S = "15"
RESIZE_EVERY_S = 60.0  # how often an elastic group looks for more room


def train_on_workers(
    job: TrainJob, dataset: Dataset, run_dir: Path, session: Session, exported: ExportedSeries
) -> TrainingOutcome:
    """Train to the end, or from the newest checkpoint in `run_dir` to the end; reports go to `run_dir/outbox`.

    Ctrl-C or SIGTERM asks the workers for a checkpoint, waits for it and raises KeyboardInterrupt; a second
    one does not wait.

    Args:
        exported: the job's series, which get what the workers report.

    Raises:
        JobError: the training failed, or a worker was lost more often than `workers.max_failures` allows.
        KeyboardInterrupt: stopped by the user; a checkpoint is saved.
    """
    total = Schedule.of(job.training, dataset.num("train"), job.batches_per_step).num_steps
    with bar("training", total) as progress, StopRequest(run_dir / "stop") as stop:
        listener = TrainingProgress(progress, session, exported)
        outcome = run_workers(job, dataset, run_dir, listener, session, stop.file)
        exported.training_ended()
    if stop.requested or not outcome.finished:
        say(f"stopped at step {outcome.step} of {total}; the same command continues from there")
        raise KeyboardInterrupt
    return outcome


class TrainingProgress:
    """A listener that shows how far the training is: on the terminal and in the exported series."""

    def __init__(self, progress: Bar, session: Session, exported: ExportedSeries) -> None:
        self._progress, self._session, self._exported = progress, session, exported

    def metrics(self, rows: Rows) -> None:
        self._exported.metrics(rows)
        step, values = max(rows.items())
        if "train/images_per_s" in values:
            rate = values["train/images_per_s"]
            self._progress.advance_to(step, f"loss {values['train/loss']:.4f}, {rate:.1f} images/s")
        warning = collapse_warning(values.get("train/diversity", 1.0))
        if warning is not None:
            say(f"warning: step {step}: {warning}")

    def warning(self, step: int, message: str) -> None:
        say(f"warning: step {step}: {message}")

    def worker_started(self, rank: int, world_size: int, until: int | None, gpu: str) -> None:
        resources = {} if self._session.in_process else self._session.worker_resources
        self._exported.worker_started(rank, world_size, until, gpu, resources)


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
    events: Any = queue.SimpleQueue() if session.in_process else RayQueue(actor_options=_beside_the_driver())
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
    with ray_settings(_environment(job.workers), logging.ERROR):
        fit = BackgroundCall(_trainer(payload, job.workers, run_dir, session).fit, events)
        fit.start()
        deliver(events, listener)
        return _outcome(fit)


def _trainer(payload: dict[str, Any], workers: WorkersConfig, run_dir: Path, session: Session) -> TorchTrainer:
    return TorchTrainer(
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
            failure_config=FailureConfig(
                max_failures=workers.max_failures, controller_failure_limit=_PLACEMENT_ATTEMPTS
            ),
        ),
    )


def _environment(workers: WorkersConfig) -> dict[str, str]:
    """Variables that Ray Train reads in the driver; the user's own stay."""
    name = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
    return {name: os.environ.get(name, _ELASTIC_PLACEMENT_S)} if workers.elastic else {}


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
    again. They come to all ranks together, from whichever has met one (`training.agreement`).
    """
    torch.set_num_threads(payload["threads"])
    job = TrainJob.model_validate(payload["job"])
    run_dir = Path(payload["run_dir"])
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    reporter = WorkerReporter(run_dir / "outbox", payload["events"]) if rank == 0 else SilentReporter()
    device = _device(payload["use_gpu"])
    payload["events"].put(("worker_started", (rank, world_size, payload["until"], _gpu_name(device))))
    stop_file = Path(payload["stop_file"])

    def stop() -> bool:
        return stop_file.exists() or (not payload["in_process"] and preemption_announced())

    try:
        dataset = together(lambda: open_dataset(payload["dataset"]), device)
        outcome = train(job, dataset, run_dir, reporter, device, stop, payload["until"])
        paused = payload["until"] is not None and outcome.step >= payload["until"]
        if not (outcome.finished or paused or stop_file.exists()):
            # Ray Train, which has announced the preemption, counts no failure and starts the group elsewhere.
            raise RuntimeError(f"a node is about to end; the checkpoint of step {outcome.step} is saved")
        return asdict(outcome)
    except LwddpmError as error:
        return {"error": errors.to_dict(error)}


def _device(use_gpu: bool) -> torch.device:
    if not use_gpu:
        return torch.device("cpu")
    # In the driver's process Ray Train's get_device() would start a second Ray to ask for GPU ids.
    device: torch.device = get_device() if ray.is_initialized() and dist.is_initialized() else torch.device("cuda", 0)
    return device


def _gpu_name(device: torch.device) -> str:
    """As NVML and Ray's metrics call it; empty for a CPU."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else ""


def _outcome(fit: BackgroundCall[Any]) -> TrainingOutcome:
    """What `_work` returned on rank 0.

    Raises:
        JobError: as `train_on_workers`.
        LwddpmError: as `training.loop.train`.
    """
    try:
        result: dict[str, Any] = fit.result().return_value or {}
    except ray.train.WorkerGroupError as error:
        causes = "; ".join(f"rank {rank}: {cause}" for rank, cause in error.worker_failures.items())
        raise JobError(f"training failed: {causes}; the same command continues from the last checkpoint") from None
    except ray.train.TrainingFailedError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise JobError(f"training failed: {reason}; the same command continues from the last checkpoint") from None
    if not result:
        raise JobError("training failed: its workers ended without a result; see Ray's logs")
    if "error" in result:
        raise errors.from_dict(result["error"])
    return TrainingOutcome(**result)
