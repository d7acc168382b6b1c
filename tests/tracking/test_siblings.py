"""A longer training equals an uninterrupted one where it continues a shorter one; where it does not, it says why."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.files import locked
from lwddpm.tracking.metric_log import MetricLog
from lwddpm.tracking.outbox import Outbox
from lwddpm.tracking.rundir import LOCK, run_folder, write_job, write_run_id
from lwddpm.tracking.siblings import begin_training, missing_snapshots
from lwddpm.training.checkpoint import is_whole, latest_checkpoint
from lwddpm.training.loop import train
from lwddpm.training.schedule import Schedule

Build = Callable[..., TrainJob]
CONSTANT = ("training.lr_schedule=constant", "training.warmup_steps=2", "training.snapshot_epochs=[0.5, 1]")
NUM_TRAIN = 48  # slices of `tiny_dataset`: 6 steps an epoch


def _train(job: TrainJob, dataset: Dataset, folder: Path | None = None) -> Path:
    """Train as a job does, in the job's run folder or in another; returns the folder."""
    folder = folder or run_folder(job)
    folder.mkdir(parents=True, exist_ok=True)
    write_job(folder, job)
    write_run_id(folder, f"run-of-{job.training.max_steps}-steps", "sqlite:///mlflow.db")
    train(job, dataset, folder, Outbox(folder / "outbox"), torch.device("cpu"))
    return folder


def _begin(job: TrainJob, dataset: Dataset) -> str | None:
    return begin_training(job, run_folder(job), dataset.num("train"), dataset.version)


def _weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    return {file.name: load_file(file) for file in checkpoint.glob("*.safetensors")}


def _assert_equal(one: Path, other: Path) -> None:
    first, second = _weights(one), _weights(other)
    assert first.keys() == second.keys()
    for file, tensors in first.items():
        assert all(torch.equal(tensors[key], second[file][key]) for key in tensors), file


@pytest.mark.parametrize("kind", ["lw_ddpm", "gan", "wgan"])
def test_a_longer_training_continues_a_shorter_one_and_equals_an_uninterrupted_one(
    kind: str,
    tiny_job: Build,
    tiny_gan: Build,
    tiny_dataset: Dataset,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    build = tiny_job if kind == "lw_ddpm" else lambda *overrides: tiny_gan(f"model.family={kind}", *overrides)
    short, long = (build(*CONSTANT, f"training.max_steps={steps}") for steps in (6, 9))
    whole = _train(long, tiny_dataset, tmp_path / "whole")
    shorter = _train(short, tiny_dataset)
    kept = {file: file.stat().st_mtime_ns for file in shorter.rglob("*") if file.is_file()}
    assert _begin(long, tiny_dataset) == "run-of-6-steps"
    told = capfd.readouterr().err
    assert f"continues from step 6 of {shorter}: training.max_steps was 6, is 9" in told
    longer = run_folder(long)
    _train(long, tiny_dataset)
    _assert_equal(longer, whole)
    losses = MetricLog(longer).curves()["train/loss"]
    assert losses == MetricLog(whole).curves()["train/loss"]
    snapshots = [{path.name for path in folder.glob("snapshots/*")} for folder in (longer, whole)]
    assert snapshots[0] == snapshots[1] != set()
    assert kept == {file: file.stat().st_mtime_ns for file in shorter.rglob("*") if file.is_file()}
    reported = [Outbox(longer / "outbox").read(path).metrics for path in Outbox(longer / "outbox").waiting()]
    assert {step for rows in reported for step in rows} == set(range(1, 10))


def test_a_shorter_training_takes_what_a_longer_one_has_before_its_end(
    tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    long, short = (tiny_job(*CONSTANT, "training.keep_checkpoints=9", f"training.max_steps={n}") for n in (9, 8))
    _train(long, tiny_dataset)
    assert _begin(short, tiny_dataset) == "run-of-9-steps"
    _train(short, tiny_dataset)
    _assert_equal(run_folder(short), _train(short, tiny_dataset, tmp_path / "whole"))


def test_a_checkpoint_of_another_file_system_is_copied(
    tiny_job: Build, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    short, long = (tiny_job(*CONSTANT, f"training.max_steps={steps}") for steps in (4, 6))
    _train(short, tiny_dataset)
    assert _begin(long, tiny_dataset)
    _assert_equal(run_folder(short), run_folder(long))


def test_a_damaged_checkpoint_is_passed_over_for_an_earlier_whole_one(
    tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    short, long = (tiny_job(*CONSTANT, "training.keep_checkpoints=9", f"training.max_steps={n}") for n in (6, 9))
    shorter = _train(short, tiny_dataset)
    newest = latest_checkpoint(shorter)
    assert newest is not None
    weights = max(newest.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # of the same size, and still a number
    weights.write_bytes(content)
    assert _begin(long, tiny_dataset) == "run-of-6-steps"
    begun = latest_checkpoint(run_folder(long))
    assert begun is not None
    assert is_whole(begun)
    assert begun.name < newest.name
    _train(long, tiny_dataset)
    _assert_equal(run_folder(long), _train(long, tiny_dataset, tmp_path / "whole"))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (["training.lr=1e-3"], ["training.lr=1e-4"], r"training.lr was 0.001, is 0.0001"),
        (["seed=1"], ["seed=2", "training.max_steps=9"], r"seed was 1, is 2, training.max_steps was 8, is 9"),
        (
            ["training.lr_schedule=cosine"],
            ["training.lr_schedule=cosine", "training.max_steps=9"],
            "training.max_steps was 8, is 9; "
            "with training.lr_schedule: cosine the learning rate depends on the length; "
            "a training with training.lr_schedule: constant can be continued",
        ),
        (
            [],
            ["training.max_steps=9", "training.snapshot_epochs=[0.2, 0.5, 1]"],
            "it has no snapshots of the epochs 0.166667; without these",
        ),
        ([], ["training.max_steps=2"], "it has no whole checkpoint from before the end of this one"),
    ],
)
def test_a_training_that_begins_anew_says_beside_what_and_why(
    before: list[str],
    now: list[str],
    expected: str,
    tiny_job: Build,
    tiny_dataset: Dataset,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = _train(tiny_job(*CONSTANT, *before), tiny_dataset)
    job = tiny_job(*CONSTANT, *now)
    assert _begin(job, tiny_dataset) is None
    told = capfd.readouterr().err
    assert f"{job.name}: begins at step 0, beside step 8 of {folder}: " in told
    assert expected in told
    assert not run_folder(job).exists()


def test_what_cannot_be_continued_now_is_said(
    tiny_job: Build, tiny_dataset: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    short, long = (tiny_job(*CONSTANT, f"training.max_steps={steps}") for steps in (4, 6))
    folder = _train(short, tiny_dataset)
    with locked(folder / LOCK):
        assert _begin(long, tiny_dataset) is None
    assert "it is being trained at this moment" in capfd.readouterr().err
    assert begin_training(long, run_folder(long), NUM_TRAIN, "another") is None
    assert "its dataset had another version" in capfd.readouterr().err
    (folder / "job.yaml").unlink()
    assert _begin(long, tiny_dataset) is None
    assert "version 0.1.0 wrote it, which kept no settings to compare with" in capfd.readouterr().err


def test_jobs_of_other_names_are_no_siblings(
    tiny_job: Build, tiny_dataset: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    _train(tiny_job(*CONSTANT, "name=demo-seed1", "training.max_steps=4"), tiny_dataset)
    assert _begin(tiny_job(*CONSTANT, "name=demo", "training.max_steps=6"), tiny_dataset) is None
    assert "begins" not in capfd.readouterr().err


def test_snapshots_that_were_asked_for_too_late_are_named(tiny_job: Build, tiny_dataset: Dataset) -> None:
    folder = _train(tiny_job(*CONSTANT), tiny_dataset)
    for asked, missing in (("[0.5, 1]", []), ("[0.2, 1]", ["0.166667"])):
        job = tiny_job(*CONSTANT, f"training.snapshot_epochs={asked}")
        assert missing_snapshots(job, folder, Schedule.of(job.training, NUM_TRAIN), step=8) == missing
