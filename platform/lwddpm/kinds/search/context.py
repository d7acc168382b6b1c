"""A search that has been opened: what its stages share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from lwddpm.addresses import public
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.session import Session
from lwddpm.config import SearchJob, TrainJob
from lwddpm.config.section import hex_digest
from lwddpm.data.store import Dataset
from lwddpm.search.budget import Budget
from lwddpm.search.definition import NUM_SLICES, Definition, open_study
from lwddpm.search.objectives import num_slices
from lwddpm.search.ownership import folder_id
from lwddpm.search.space import SearchSpace, load_space, numbered_trial_job
from lwddpm.search.storage import storage_url
from lwddpm.tracking.runs import TrackedRun


@dataclass(frozen=True)
class SearchRun:
    """One session of a search.

    Attributes:
        folder: of the search; its trials have run folders beneath.
        study: the record of all its sessions.
        run: its MLflow run; trials have runs beneath.
        exported: its exported series.
    """

    job: SearchJob
    folder: Path
    dataset: Dataset
    budget: Budget
    space: SearchSpace
    study: optuna.Study
    run: TrackedRun
    exported: ExportedSeries
    session: Session

    @classmethod
    def open(
        cls,
        job: SearchJob,
        folder: Path,
        dataset: Dataset,
        run: TrackedRun,
        exported: ExportedSeries,
        session: Session,
    ) -> "SearchRun":
        """Create the study, or load it to continue, and say so in the MLflow run.

        Raises:
            ConfigError: the space or a budget is wrong, or the study was made with other settings.
        """
        budget, space = Budget.of(job, dataset.num("train")), load_space(job.search.space, job)
        storage = storage_url(job.search.storage)
        definition = _definition(job, space, budget, dataset)
        study = open_study(
            storage, job.name, definition, made_by=folder_id(folder), earlier_job=_earlier_job_digest(job, dataset)
        )
        study.set_user_attr(NUM_SLICES, num_slices(job, dataset))
        run.tags({"lwddpm.study": job.name, "lwddpm.storage": public(storage)})
        run.dataset(dataset)
        return cls(job, folder, dataset, budget, space, study, run, exported, session)

    def trial_job(self, number: int, values: dict[str, Any]) -> TrainJob:
        """The training job of a trial, given its job values by dotted key."""
        return numbered_trial_job(self.job, number, values, self.folder)


def _definition(job: SearchJob, space: SearchSpace, budget: Budget, dataset: Dataset) -> Definition:
    search = job.search
    compared = [job.training_settings(), job.measured_settings()]
    return Definition(
        space=space.describe(),
        sampler=search.sampler,
        seed=job.seed,
        objectives=search.objectives,
        scheduler=search.scheduler,
        prune_on=search.pruned_on,
        max_steps=budget.max_steps,
        grace_steps=budget.grace_steps,
        reduction_factor=search.reduction_factor,
        job=f"{hex_digest(compared, 8)}-{dataset.version[:12]}",
        proxy=search.proxy.digest(),
        constraints=search.limits,
    )


def _earlier_job_digest(job: SearchJob, dataset: Dataset) -> str:
    """What stands as `job` in the definition of a study that 0.1.0 has made for this job."""
    return f"{job.earlier_training_digest()}-{dataset.version[:12]}"
