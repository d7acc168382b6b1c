"""What a training finds of earlier attempts and of others of its name: what it takes over, and what it says."""

from pathlib import Path

from lwddpm.config import TrainJob, shown
from lwddpm.data.store import Dataset
from lwddpm.jobfile import flattened
from lwddpm.progress import say
from lwddpm.tracking.runs import TrackedRun
from lwddpm.tracking.siblings import begin_training, missing_snapshots
from lwddpm.training.checkpoint import latest_checkpoint, read_state
from lwddpm.training.schedule import Schedule


def come_back(job: TrainJob, before: TrainJob | None, dataset: Dataset, folder: Path, run: TrackedRun) -> None:
    """Say, here and in the run, which other settings there were before, and begin with what can be taken over.

    Args:
        before: the job of the attempt before.
        folder: of the training.
        run: the MLflow run of the training.
    """
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        continued = begin_training(job, folder, dataset.num("train"), dataset.version)
        if continued:
            run.tags({"lwddpm.continues": continued})
        return
    say_missing_snapshots(job, dataset, folder)
    old, new = (flattened({"training": each.training.model_dump(mode="json")}) for each in (before or job, job))
    changes = [f"{key} was {shown(old.get(key))}, is {shown(now)}" for key, now in new.items() if now != old.get(key)]
    if not changes or (folder / "model").exists():
        return
    step = read_state(checkpoint).step
    tag, words = f"lwddpm.changed_at_step.{step}", ", ".join(changes)
    said = run.client.get_run(run.run_id).data.tags.get(tag)  # by an attempt that came no further
    run.tags({tag: f"{said}; then {words}" if said else words})
    say(f"{job.name}: from step {step} on, {words}")


def say_missing_snapshots(job: TrainJob, dataset: Dataset, folder: Path) -> None:
    """Name the snapshots that are asked for and that the training had passed without them."""
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        return
    schedule = Schedule.of(job.training, dataset.num("train"), job.batches_per_step)
    missing = missing_snapshots(job, folder, schedule, read_state(checkpoint).step)
    if missing:
        say(f"{job.name}: no snapshots of the epochs {', '.join(missing)}, which had passed when they were asked for")
