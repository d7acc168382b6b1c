"""The disk refuses to take more: before the first checkpoint, and while one is being written."""

import resource
from collections.abc import Callable
from typing import Any

import psutil
import pytest


def _fill_the_disk(pid: int) -> None:
    """No file of this process may grow beyond 60 kB any more: the kernel refuses as it does on a full disk.

    A checkpoint and MLflow's SQLite file are larger.
    """
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (60_000, 60_000))


@pytest.mark.parametrize("moment", ["before the first checkpoint", "while writing one"])
def test_the_job_ends_with_one_message_and_the_same_command_continues(
    moment: str, training: Callable[..., Any], reference: Callable[..., Any], assert_same_outcome: Callable[..., None]
) -> None:
    disturbed = training()
    driver = disturbed.start()
    if moment == "before the first checkpoint":
        disturbed.wait_for(lambda: any(disturbed.folder.glob("runs/*/outbox/[0-9]*")), "the first report")
        _fill_the_disk(driver.pid)
    else:
        disturbed.wait_for(lambda: disturbed.newest() >= 12, "the second checkpoint")
        (frozen,) = disturbed.stop_while_writing(lambda: [psutil.Process(driver.pid)])
        _fill_the_disk(driver.pid)
        frozen.resume()
    assert driver.wait(timeout=300) == 1, disturbed.log
    (message,) = [line for line in disturbed.log.splitlines() if line.startswith("error:")]
    assert "cannot be written" in message
    assert "File too large" in message
    assert "Traceback" not in disturbed.log
    assert not disturbed.half_written()
    disturbed.finish()
    assert_same_outcome(disturbed, reference(1))
