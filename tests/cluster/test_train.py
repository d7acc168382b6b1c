"""A training, in this process and on two workers of Ray: how it is stopped, how it fails, what it leaves behind."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.listener import Rows
from lwddpm.cluster.session import Session
from lwddpm.cluster.stop import BackgroundCall
from lwddpm.cluster.train import run_workers, train_on_workers
from lwddpm.config import TrainJob
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.store import Dataset, open_dataset
from lwddpm.errors import CheckpointError, JobError
from lwddpm.tracking.rundir import run_folder
from lwddpm.training.checkpoint import latest_checkpoint

from ..conftest import serial_map

Build = Callable[..., TrainJob]


def _train(job: TrainJob, dataset: Dataset) -> None:
    folder = run_folder(job)
    folder.mkdir(parents=True)
    train_on_workers(job, dataset, folder, Session(job.workers), ExportedSeries(job.name, ""))


def _interrupt_after_the_first_report(folder: Path) -> threading.Thread:
    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not any(folder.glob("outbox/[0-9]*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread


def test_an_interrupt_saves_a_checkpoint_and_leaves_the_process_as_it_was(
    tiny_job: Build, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job("training.max_steps=100000", "training.checkpoint_every_epochs=10000", "training.snapshot_epochs=[]")
    torch.optim.SGD([torch.zeros(1)])  # the first optimizer imports what sets variables of its own
    environment, level = dict(os.environ), logging.getLogger("ray").level
    interrupting = _interrupt_after_the_first_report(run_folder(job))
    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", logged.append)
    logging.getLogger("ray").addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _train(job, tiny_dataset)
    finally:
        logging.getLogger("ray").removeHandler(handler)
    interrupting.join()
    assert not logged, "Ray says what is not meant for users"
    assert latest_checkpoint(run_folder(job)) is not None
    assert not (run_folder(job) / "stop").exists()
    assert not [thread for thread in threading.enumerate() if isinstance(thread, BackgroundCall)]
    assert dict(os.environ) == environment
    assert logging.getLogger("ray").level == level


def test_an_error_for_users_arrives_from_the_training_thread(tiny_job: Build, tiny_dataset: Dataset) -> None:
    job = tiny_job("training.lr=1", "training.max_grad_norm=null", "training.max_steps=200")
    with pytest.raises(JobError, match=r"diverged at step \d+"):
        _train(job, tiny_dataset)


class _Recorder:
    """Hears of every start of a worker, of numbers and of warnings."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.steps: list[int] = []
        self.warnings: list[str] = []

    def metrics(self, rows: Rows) -> None:
        self.steps += rows

    def warning(self, step: int, message: str) -> None:
        self.warnings.append(message)

    def worker_started(self, rank: int, world_size: int, until: int | None, gpu: str) -> None:
        self.started.append(rank)


def _on_two_workers(job: TrainJob) -> _Recorder:
    folder, recorder = run_folder(job), _Recorder()
    folder.mkdir(parents=True, exist_ok=True)
    dataset = open_dataset(job.data.dataset_path)
    run_workers(job, dataset, folder, recorder, Session(job.workers), folder / "stop")
    return recorder


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_what_fails_on_every_worker_ends_the_group_at_once_and_what_is_damaged_ends_nothing(
    tiny_job: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job("workers.count=2", f"data.path={tmp_path / 'data'}", "training.snapshot_epochs=[]")
    prepare_dataset(job.data, serial_map)
    _on_two_workers(job)
    newest = latest_checkpoint(run_folder(job))
    assert newest is not None

    (newest / "ema.safetensors").write_bytes(b"")
    again = _on_two_workers(job)
    assert sorted(again.started) == [0, 1]
    (warning,) = again.warnings
    assert f"kept as damaged_{newest.name}" in warning
    assert max(again.steps) == 8

    prepare_dataset(job.data.model_copy(update={"phantom_count": 66}), serial_map, fresh=True)
    started = []
    monkeypatch.setattr(_Recorder, "worker_started", lambda self, rank, *others: started.append(rank))
    with pytest.raises(CheckpointError, match=r"dataset version it began with.*start over with --fresh") as refused:
        _on_two_workers(job)
    assert "the same command" not in str(refused.value)
    assert sorted(started) == [0, 1], "Ray Train has started the group again"
