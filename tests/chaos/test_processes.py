"""Processes die by SIGKILL: the driver, and training workers."""

from collections.abc import Callable
from typing import Any

import psutil


def _again(training: Any, condition: Callable[[], object], what: str) -> None:
    process = training.start()
    training.wait_for(condition, what)
    process.kill()
    process.wait()


def test_the_driver_is_killed_at_every_stage(
    training: Callable[..., Any], calm: Callable[..., Any], ended_alike: Callable[..., None]
) -> None:
    """With one worker it is also the process that trains. Every start is the same command."""
    hurt = training()
    _again(hurt, lambda: any(hurt.folder.glob("runs/*/outbox/[0-9]*")), "the first report")
    assert hurt.checkpoints() == [] or hurt.newest() <= 2 * 6
    for _ in range(2):
        driver = hurt.start()
        before = hurt.newest()
        hurt.wait_for(lambda before=before: hurt.newest() > before, "another checkpoint")
        (frozen,) = hurt.stop_while_writing(lambda driver=driver: [psutil.Process(driver.pid)])
        frozen.kill()
        driver.wait()
    _again(hurt, lambda: (hurt.run_dir / "model").exists(), "the end of the training")
    _again(hurt, lambda: (hurt.run_dir / "evaluation.json").exists(), "the end of the evaluation")
    hurt.finish()
    ended_alike(hurt, calm(1))


def test_training_workers_are_killed(
    training: Callable[..., Any], calm: Callable[..., Any], ended_alike: Callable[..., None]
) -> None:
    """One of two, then whichever is there while a checkpoint is being written; the driver lives and ends the job."""
    hurt = training("workers.count=2")
    hurt.start()
    hurt.wait_for(lambda: hurt.newest() >= 12 and len(hurt.workers()) == 2, "the second checkpoint")
    hurt.workers()[1].kill()
    reached = hurt.newest()
    hurt.wait_for(lambda: hurt.newest() > reached, "a checkpoint of the group that was started again")
    for worker in hurt.stop_while_writing(hurt.workers):
        worker.kill()
    hurt.finish()
    assert len(hurt.processes) == 1
    ended_alike(hurt, calm(2))
