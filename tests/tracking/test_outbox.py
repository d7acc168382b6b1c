import math
from pathlib import Path

import numpy as np
import pytest

from lwddpm.errors import JobError
from lwddpm.tracking.outbox import Delivered, Outbox


def test_reports_come_back_in_the_order_of_their_steps(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    outbox.end("FINISHED", {"lwddpm.state": "complete"})
    outbox.metrics({41: {"train/loss": math.inf}, 60: {"train/loss": 0.25}})
    outbox.metrics({21: {"train/loss": 0.5}})
    outbox.images(40, 2.0, np.full((16, 16, 16), 7, np.uint8))
    outbox.checkpoint(40, tmp_path / "step_40")
    first, grid, tag, second, last = (outbox.read(path) for path in outbox.waiting())
    assert (first.metrics, second.metrics) == (
        {21: {"train/loss": 0.5}},
        {41: {"train/loss": math.inf}, 60: {"train/loss": 0.25}},
    )
    assert grid.grid is not None
    assert (grid.grid.step, grid.grid.epoch) == (40, 2.0)
    assert (grid.grid.pixels() == 7).sum() == 16**3
    assert tag.tags == {"lwddpm.checkpoint": str(tmp_path / "step_40")}
    assert (last.status, last.tags) == ("FINISHED", {"lwddpm.state": "complete"})
    outbox.reopen()
    assert len(outbox.waiting()) == 4


def test_what_has_arrived_is_known_per_run(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    outbox.save_delivered(Delivered(run_id="a", steps={"train/loss": 7}))
    assert outbox.delivered("a").steps == {"train/loss": 7}
    assert outbox.delivered("b").steps == {}
    assert outbox.waiting() == []


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    outbox.metrics({1: {"train/loss": 1.0}})
    (path,) = outbox.waiting()
    path.write_text("{")
    with pytest.raises(JobError, match=f"{path.name}: not a report"):
        outbox.read(path)


def test_a_report_that_cannot_be_read_at_the_moment_is_not_to_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "outbox" / "000000000001-1.json"
    path.parent.mkdir()
    path.symlink_to(path)
    with pytest.raises(JobError, match=f"{path.name}: cannot be read .*; the same command tries again"):
        Outbox(tmp_path / "outbox").read(path)


def test_a_run_that_is_opened_late_leaves_alone_what_its_trial_is_writing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    half_written = tmp_path / ".000000000001-0000000000000000001.json.partial"
    half_written.write_text("{")
    outbox.reopen()
    assert half_written.exists()
    outbox.sweep()
    assert not half_written.exists()
