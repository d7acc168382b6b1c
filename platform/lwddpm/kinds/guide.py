"""The guide of a training's model: the snapshot that `training.guide_epoch` names, kept with it."""

from pathlib import Path

from lwddpm.config import SearchJob, TrainingJob, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, DataError
from lwddpm.training.checkpoint import latest_checkpoint, read_state, snapshot_path
from lwddpm.training.schedule import Schedule
from lwddpm.training.stored_guide import GUIDE_FOLDER, has_guide, write_guide
from lwddpm.training.stored_model import read_saved_model


def check_guide_epoch(job: TrainingJob, dataset: Dataset) -> None:
    """Refuse, before training, a guide that is no weaker than the model.

    Raises:
        DataError: its epoch does not lie before the end of the training.
    """
    wanted, schedule = job.training.guide_epoch, _schedule(job, dataset)
    if wanted is not None and schedule.guide is None:
        raise DataError(
            f"training.guide_epoch: must lie before the end of the training, which has {schedule.num_steps} steps of "
            f"{schedule.steps_per_epoch:g} an epoch, got {wanted:g}; lower it: the guide is weaker than the model"
        )


def check_guide_of_trials(job: SearchJob, dataset: Dataset, first_rung: int) -> None:
    """Refuse, before the first trial, to measure with a guide that trials do not have yet.

    Args:
        first_rung: optimizer step at which trials are measured first.

    Raises:
        DataError: names the steps.
    """
    schedule = _schedule(job, dataset)
    if job.search.proxy.guidance != 1 and (schedule.guide is None or schedule.guide >= first_rung):
        epoch = job.training.guide_epoch or 0
        raise DataError(
            f"search.proxy.guidance: trials are measured from step {first_rung} on, and have a guide only after "
            f"training.guide_epoch = {epoch:g}, step {round(epoch * schedule.steps_per_epoch)}; lower that, or raise "
            "search.grace_steps"
        )


def check_guide_snapshot(job: TrainJob, dataset: Dataset, folder: Path) -> None:
    """Refuse, before training, a guide that the training of a folder has passed without keeping a snapshot.

    Raises:
        ConfigError: names the epochs that have one.
    """
    wanted, schedule = job.training.guide_epoch, _schedule(job, dataset)
    checkpoint = latest_checkpoint(folder)
    if wanted is None or schedule.guide is None or checkpoint is None or read_state(checkpoint).step < schedule.guide:
        return
    if _snapshot(schedule, folder).exists() or _guide_step(folder / "model") == schedule.guide:
        return
    kept = sorted(read_saved_model(path).epoch for path in (folder / "snapshots").glob("epoch_*"))
    others = f"take {', '.join(f'{epoch:g}' for epoch in kept)}, " if kept else ""
    raise ConfigError(
        f"training.guide_epoch: must be an epoch that has a snapshot, got {wanted:g}, which the training had passed "
        f"when it was asked for; {others}leave it out, or train again with --fresh"
    )


def keep_guide(job: TrainJob, dataset: Dataset, folder: Path) -> None:
    """Give the model of a finished training the guide that is asked for, if it was trained without or with another.

    Raises:
        JobError: the disk does not take it.
    """
    schedule, model_dir = _schedule(job, dataset), folder / "model"
    if schedule.guide is not None and _guide_step(model_dir) != schedule.guide:
        write_guide(model_dir, _snapshot(schedule, folder))


def _schedule(job: TrainingJob, dataset: Dataset) -> Schedule:
    return Schedule.of(job.training, dataset.num("train"), job.batches_per_step)


def _snapshot(schedule: Schedule, folder: Path) -> Path:
    return snapshot_path(folder, (schedule.guide or 0) / schedule.steps_per_epoch)


def _guide_step(model_dir: Path) -> int | None:
    return read_saved_model(model_dir / GUIDE_FOLDER).step if has_guide(model_dir) else None
