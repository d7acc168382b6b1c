"""What changed between two attempts at a training is said, and stands in its MLflow run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.kinds.earlier_attempts import come_back
from lwddpm.tracking.earlier_runs import run_digest
from lwddpm.tracking.outbox import Outbox
from lwddpm.tracking.rundir import run_folder
from lwddpm.tracking.runs import tracked_run
from lwddpm.training.loop import train

Build = Callable[..., TrainJob]


def _stopped(job: TrainJob, dataset: Dataset, after: int) -> Path:
    """Train a few steps; returns the run folder."""
    folder, stops = run_folder(job), iter([False] * after)
    train(job, dataset, folder, Outbox(folder / "outbox"), torch.device("cpu"), should_stop=lambda: next(stops, True))
    return folder


def test_settings_that_change_on_the_way_are_said_and_recorded(
    tiny_job: Build, tiny_dataset: Dataset, store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    job = tiny_job("training.snapshot_epochs=[]")
    folder = _stopped(job, tiny_dataset, after=4)
    second = tiny_job("training.grad_accumulation_steps=2", "training.snapshot_epochs=[0.5]")
    third = tiny_job("training.grad_accumulation_steps=4", "training.snapshot_epochs=[0.5]")
    with tracked_run(job, store, None, run_digest(job)) as run:
        come_back(job, job, tiny_dataset, folder, run)
        assert "from step" not in capfd.readouterr().err
        come_back(second, job, tiny_dataset, folder, run)
        come_back(third, second, tiny_dataset, folder, run)
        told = capfd.readouterr().err
        tags = run.client.get_run(run.run_id).data.tags
    assert "no snapshots of the epochs 0.5, which had passed" in told
    assert "from step 5 on, training.grad_accumulation_steps was 2, is 4" in told
    assert tags["lwddpm.changed_at_step.5"] == (
        "training.grad_accumulation_steps was 1, is 2, training.snapshot_epochs was [], is [0.5]; "
        "then training.grad_accumulation_steps was 2, is 4"
    )
    train(third, tiny_dataset, folder, Outbox(folder / "outbox"), torch.device("cpu"))
    come_back(job, third, tiny_dataset, folder, run)
    assert "from step" not in capfd.readouterr().err, "it is trained"


def test_a_training_that_another_one_begins_is_named_in_its_run(
    tiny_job: Build, tiny_dataset: Dataset, store: str
) -> None:
    short, long = (tiny_job("training.lr_schedule=constant", f"training.max_steps={steps}") for steps in (6, 8))
    folder = _stopped(short, tiny_dataset, after=99)
    (folder / "run.json").write_text('{"run_id": "abc", "tracking_uri": "x"}')
    (folder / "job.yaml").write_text(short.model_dump_json())
    with tracked_run(long, store, None, run_digest(long)) as run:
        come_back(long, None, tiny_dataset, run_folder(long), run)
    assert run.client.get_run(run.run_id).data.tags["lwddpm.continues"] == "abc"
