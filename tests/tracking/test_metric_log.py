"""What a training has reported, as its run folder keeps it."""

import json
import math
from pathlib import Path

import pytest

from lwddpm.errors import JobError
from lwddpm.tracking.metric_log import MetricLog
from lwddpm.tracking.outbox import Outbox


def test_reports_become_curves_in_order_of_steps(tmp_path: Path) -> None:
    log = MetricLog(tmp_path / "run")
    assert log.curves() == {}
    log.append({3: {"train/loss": 0.3, "train/lr": 1e-4}, 4: {"train/loss": math.inf}})
    log.append({1: {"train/loss": 0.1}, 2: {"train/loss": 0.2, "val/loss": 0.7}})
    assert log.curves() == {
        "train/loss": [(1, 0.1), (2, 0.2), (3, 0.3), (4, math.inf)],
        "train/lr": [(3, 1e-4)],
        "val/loss": [(2, 0.7)],
    }


def test_a_resumed_training_replaces_the_steps_that_it_repeats(tmp_path: Path) -> None:
    MetricLog(tmp_path).append({step: {"train/loss": float(step)} for step in range(1, 6)})
    MetricLog(tmp_path).append({step: {"train/loss": 10.0 * step} for step in range(4, 8)})
    values = [1.0, 2.0, 3.0, 40.0, 50.0, 60.0, 70.0]
    assert MetricLog(tmp_path).curves()["train/loss"] == list(enumerate(values, start=1))


def test_wherever_a_kill_cuts_the_file_whole_reports_before_and_after_are_read(tmp_path: Path) -> None:
    log = MetricLog(tmp_path)
    reports = [{10 * i: {"train/loss": 0.125 * i, "val/loss": math.nan}} for i in range(1, 4)]
    for report in reports:
        log.append(report)
    content = log.path.read_bytes()
    ends = [content.rindex(f'"{step}"'.encode()) for step in (20, 30)]
    for length in range(len(content)):
        log.path.write_bytes(content[:length])
        log.append({40: {"train/loss": 4.0}})
        steps = [step for step, _ in log.curves()["train/loss"]]
        assert steps[-1] == 40
        assert (10 in steps) == (length >= ends[0] - 2)
        assert (30 in steps) is False


def test_what_is_reported_stays_when_the_outbox_is_emptied(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    outbox.metrics({1: {"train/loss": 0.5}, 2: {"train/loss": 0.25}})
    for path in outbox.waiting():
        path.unlink()
    assert MetricLog(tmp_path).curves() == {"train/loss": [(1, 0.5), (2, 0.25)]}
    lines = (tmp_path / "metrics.jsonl").read_text().split()
    assert [json.loads(line) for line in lines] == [{"1": {"train/loss": 0.5}, "2": {"train/loss": 0.25}}]


def test_a_disk_that_refuses_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="cannot be written"):
        MetricLog(tmp_path / "file").append({1: {"train/loss": 0.5}})
