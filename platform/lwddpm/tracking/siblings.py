"""Run folders of one job name and other settings: what a training begins beside, and which of them it continues.

Where the learning rate does not depend on the length of a training, its first steps are those of a shorter one: a job
that differs in length alone goes on from the other's checkpoint, in a folder of its own; the other stays as it is.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lwddpm.config import TrainJob, shown
from lwddpm.errors import CheckpointError
from lwddpm.files import complete_folder, link_or_copy, locked, read_json
from lwddpm.jobfile import flattened
from lwddpm.progress import say
from lwddpm.tracking.metric_log import MetricLog
from lwddpm.tracking.outbox import Outbox
from lwddpm.tracking.rundir import LOCK, read_job
from lwddpm.training.checkpoint import copy_checkpoint, is_whole, read_state, snapshot_path
from lwddpm.training.schedule import Schedule
from lwddpm.training.stored_model import read_saved_model

_LENGTH = {"training.epochs", "training.max_steps"}
_STEPS_IN_A_REPORT = 1000


@dataclass(frozen=True)
class Sibling:
    """A run folder of the same job name that has a checkpoint.

    Attributes:
        changes: (value there, value here) of each setting that decides what is learnt, by dotted key; None where the
            folder has not kept its job.
        checkpoints: folders that can be read, by step.
    """

    folder: Path
    changes: dict[str, tuple[Any, Any]] | None
    checkpoints: dict[int, Path]

    @property
    def step(self) -> int:
        return max(self.checkpoints)

    @property
    def differs_in_length_alone(self) -> bool:
        return self.changes is not None and self.changes.keys() <= _LENGTH

    def differences(self) -> str:
        if self.changes is None:
            return "version 0.1.0 wrote it, which kept no settings to compare with"
        return ", ".join(f"{key} was {shown(before)}, is {shown(now)}" for key, (before, now) in self.changes.items())


def begin_training(job: TrainJob, folder: Path, num_train: int, dataset_version: str) -> str | None:
    """Where a training has no checkpoint yet but others of its name have: continue one of them, or say why not.

    Args:
        folder: of the training.
        num_train, dataset_version: slices of the training split, and version of the dataset.

    Returns:
        Id of the MLflow run whose training is continued, or None.

    Raises:
        JobError: the disk refuses.
    """
    siblings = sorted(_siblings(job, folder), key=lambda sibling: -sibling.step)
    if not siblings:
        return None
    schedule = Schedule.of(job.training, num_train, job.batches_per_step)
    alike, obstacles = [sibling for sibling in siblings if sibling.differs_in_length_alone], []
    for sibling in alike:
        obstacle = _continue(job, folder, sibling, schedule, dataset_version)
        if not obstacle:
            return str((read_json(sibling.folder / "run.json") or {}).get("run_id", ""))
        obstacles.append(obstacle)
    nearest = min(alike or siblings, key=lambda sibling: len(sibling.changes) if sibling.changes else 10**6)
    reasons = "; ".join([nearest.differences(), *obstacles[:1]])
    more = f" (and {len(siblings) - 1} more of this name)" if len(siblings) > 1 else ""
    say(f"{job.name}: begins at step 0, beside step {nearest.step} of {nearest.folder}{more}: {reasons}")
    return None


def missing_snapshots(job: TrainJob, folder: Path, schedule: Schedule, step: int) -> list[str]:
    """Epochs of `training.snapshot_epochs`, and `guide_epoch`, that a training had passed at a step without keeping a
    snapshot."""
    kept = _models(folder)
    passed = sorted(at for at in schedule.snapshots if at <= step and at < schedule.num_steps)
    return [f"{at / schedule.steps_per_epoch:g}" for at in passed if at not in kept]


def _siblings(job: TrainJob, folder: Path) -> list[Sibling]:
    siblings = []
    for other in folder.parent.glob(f"{job.name}-*"):
        if other == folder or not re.fullmatch("[0-9a-f]{8}", other.name.removeprefix(f"{job.name}-")):
            continue
        checkpoints = {}
        for path in (other / "checkpoints").glob("step_*"):
            try:
                checkpoints[read_state(path).step] = path
            except CheckpointError:
                continue
        if checkpoints:
            siblings.append(Sibling(other, _changes(read_job(other), job), checkpoints))
    return siblings


def _changes(before: TrainJob | None, now: TrainJob) -> dict[str, tuple[Any, Any]] | None:
    if before is None:
        return None
    old, new = (flattened(job.public().training_settings()) for job in (before, now))
    return {key: (old.get(key), new.get(key)) for key in sorted(old | new) if old.get(key) != new.get(key)}


def _continue(job: TrainJob, folder: Path, sibling: Sibling, schedule: Schedule, dataset_version: str) -> str:
    """Take over a sibling's checkpoint, and what it had reported and kept up to there; else what stands in the way."""
    if job.training.lr_schedule != "constant":
        return (
            f"with training.lr_schedule: {job.training.lr_schedule} the learning rate depends on the length; "
            "a training with training.lr_schedule: constant can be continued"
        )
    if job.consistency is not None:
        return "the distance of the noise levels of consistency tuning depends on the length"
    earlier = sorted((step for step in sibling.checkpoints if step < schedule.num_steps), reverse=True)
    step = next((step for step in earlier if is_whole(sibling.checkpoints[step])), None)
    if step is None:
        return "it has no whole checkpoint from before the end of this one"
    if read_state(sibling.checkpoints[step]).dataset_version != dataset_version:
        return "its dataset had another version"
    missing = missing_snapshots(job, sibling.folder, schedule, step)
    if missing:
        epochs = ", ".join(missing)
        return f"it has no snapshots of the epochs {epochs}; without these in training.snapshot_epochs it is continued"
    try:
        with locked(sibling.folder / LOCK, wait=False):
            _report_again(sibling.folder, folder, step)
            for at, model_dir in _models(sibling.folder).items():
                if at in schedule.snapshots and at <= step:
                    _link_folder(model_dir, snapshot_path(folder, at / schedule.steps_per_epoch))
            copy_checkpoint(sibling.checkpoints[step], folder, job.training_digest())  # the last: now it has begun
    except BlockingIOError:
        return "it is being trained at this moment"
    say(f"{job.name}: continues from step {step} of {sibling.folder}: {sibling.differences()}")
    return ""


def _models(folder: Path) -> dict[int, Path]:
    """Snapshots of a run folder, and its final model, by step."""
    models = [path for path in (*folder.glob("snapshots/epoch_*"), folder / "model") if path.exists()]
    return {read_saved_model(path).step: path for path in models}


def _report_again(source: Path, target: Path, step: int) -> None:
    """Report up to a step what another training has reported, so that the curves of this one are whole."""
    rows: dict[int, dict[str, float]] = defaultdict(dict)
    for name, points in MetricLog(source).curves().items():
        for at, value in points:
            if at <= step:
                rows[at][name] = value
    steps, outbox = sorted(rows), Outbox(target / "outbox")
    for begin in range(0, len(steps), _STEPS_IN_A_REPORT):
        outbox.metrics({at: rows[at] for at in steps[begin : begin + _STEPS_IN_A_REPORT]})


def _link_folder(source: Path, target: Path) -> None:
    with complete_folder(target) as folder:
        for file in (path for path in source.iterdir() if path.is_file()):
            link_or_copy(file, folder / file.name)
