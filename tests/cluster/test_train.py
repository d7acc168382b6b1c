"""A training in this process, without Ray: how it is stopped, and what it leaves behind."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.session import Session
from lwddpm.cluster.stop import BackgroundCall
from lwddpm.cluster.train import train_on_workers
from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import JobError
from lwddpm.tracking.rundir import run_folder
from lwddpm.training.checkpoint import latest_checkpoint

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
