"""Processes die by SIGKILL: the driver, and training workers."""

import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from ..processes import wait_until


def _again(training: Any, condition: Callable[[], object], what: str) -> None:
    process = training.start()
    training.wait_for(condition, what)
    process.kill()
    assert process.wait() == -signal.SIGKILL, f"ended by itself before: {what}"


def test_the_driver_is_killed_at_every_stage(
    training: Callable[..., Any], reference: Callable[..., Any], assert_same_outcome: Callable[..., None]
) -> None:
    """With one worker it is also the process that trains. Every start is the same command."""
    disturbed = training()
    _again(disturbed, lambda: any(disturbed.folder.glob("runs/*/outbox/[0-9]*")), "the first report")
    assert disturbed.checkpoints() == [] or disturbed.newest() <= 2 * 6
    for _ in range(2):
        driver = disturbed.start()
        before = disturbed.newest()
        disturbed.wait_for(lambda before=before: disturbed.newest() > before, "another checkpoint")
        (frozen,) = disturbed.stop_while_writing(lambda driver=driver: [psutil.Process(driver.pid)])
        frozen.kill()
        assert driver.wait() == -signal.SIGKILL
    _again(disturbed, lambda: (disturbed.run_dir / "model").exists(), "the end of the training")
    _again(disturbed, lambda: (disturbed.run_dir / "evaluation.json").exists(), "the end of the evaluation")
    disturbed.finish()
    assert_same_outcome(disturbed, reference(1))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_newest_checkpoint_is_damaged_after_a_kill(
    workers: int,
    training: Callable[..., Any],
    reference: Callable[..., Any],
    assert_same_outcome: Callable[..., None],
) -> None:
    """The steps after the checkpoint before it are computed, and reported, once more: none is in MLflow twice."""
    disturbed = training(f"workers.count={workers}")
    _again(disturbed, lambda: disturbed.newest() >= 24, "the fourth checkpoint")
    for worker in disturbed.workers():  # before they notice that their driver is gone they could reach the end
        worker.kill()
    wait_until(lambda: not disturbed.workers(), timeout_s=60)
    assert not (disturbed.run_dir / "model").exists()
    newest = max(disturbed.run_dir.glob("checkpoints/step_*"))
    with (newest / "optimizer.safetensors").open("r+b") as file:
        file.seek(-1000, 2)
        file.write(bytes(500))  # zeros are valid moments: only the checksum tells
    disturbed.finish()
    assert (newest.parent / f"damaged_{newest.name}").exists()
    assert f"kept as damaged_{newest.name}; the training goes on from step" in disturbed.log
    assert f"damaged_{newest.name}" in disturbed.run().data.tags["lwddpm.warning"]
    assert_same_outcome(disturbed, reference(workers))


def test_training_workers_are_killed(
    training: Callable[..., Any], reference: Callable[..., Any], assert_same_outcome: Callable[..., None]
) -> None:
    """One of two, then whichever is there while a checkpoint is being written; the driver lives and ends the job."""
    disturbed = training("workers.count=2")
    disturbed.start()
    disturbed.wait_for(lambda: disturbed.newest() >= 12 and len(disturbed.workers()) == 2, "the second checkpoint")
    disturbed.workers()[1].kill()
    reached = disturbed.newest()
    disturbed.wait_for(lambda: disturbed.newest() > reached, "a checkpoint of the group that was started again")
    for worker in disturbed.stop_while_writing(disturbed.workers):
        worker.kill()
    disturbed.finish()
    assert len(disturbed.processes) == 1
    assert_same_outcome(disturbed, reference(2))
