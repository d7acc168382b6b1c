"""A comparison that runs: what all of its steps need."""

from dataclasses import dataclass
from pathlib import Path

from lwddpm.cluster.session import Session
from lwddpm.config import CompareJob
from lwddpm.data.store import Dataset
from lwddpm.kinds.compare.kept import MeasurementCache
from lwddpm.kinds.compare.plan import Plan
from lwddpm.tracking.runs import TrackedRun


@dataclass(frozen=True)
class Comparison:
    """The job, what it trains, and where it works.

    Attributes:
        folder: of the comparison; trainings have run folders of their own beside it.
        run: the comparison's MLflow run; those of its trainings lie beneath it.
        started: when the run began, ISO 8601, UTC.
        cache: of samples and measurements.
    """

    job: CompareJob
    plan: Plan
    dataset: Dataset
    folder: Path
    session: Session
    run: TrackedRun
    started: str
    cache: MeasurementCache
