"""What an audit is made of: a model and the dataset it was trained on; what is refused before anything is drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lwddpm.audit.result import method_code
from lwddpm.audit.thresholds import check_groups
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.session import Session
from lwddpm.config import AuditJob, SamplingConfig
from lwddpm.config.section import hex_digest
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, DataError
from lwddpm.evaluation.features import EXTRACTION_VERSION
from lwddpm.training.stored_files import sha256_of
from lwddpm.training.stored_guide import GUIDE_FOLDER
from lwddpm.training.stored_model import WEIGHTS_FILE, SavedModel
from lwddpm.training.stored_prior import PRIOR_FILE

# (settings, numbers of the samples, how many there are in all) -> uint8 [N, S, S]
Draw = Callable[[SamplingConfig, range, int], np.ndarray]


@dataclass(frozen=True)
class Audited:
    """A model that is audited, and with what.

    Attributes:
        named: the model's folder, or `models:/NAME/VERSION`.
        weights: SHA-256 of them.
        sampling: how slices are drawn.
        folder: of the audit.
        draw: draws slices over the workers.
    """

    job: AuditJob
    named: str
    model_dir: Path
    saved: SavedModel
    weights: str
    sampling: SamplingConfig
    dataset: Dataset
    folder: Path
    session: Session
    exported: ExportedSeries
    draw: Draw

    @property
    def of_dataset(self) -> list[Any]:
        """What scores of the dataset's own slices depend on, as JSON values."""
        return [self.dataset.version, method_code(), EXTRACTION_VERSION]

    @property
    def known_subjects(self) -> bool:
        """Whether the dataset says of any training slice whom it shows."""
        return any(subject is not None for subject in self.dataset.subjects("train"))

    def slices_folder(self, sampling: SamplingConfig) -> Path:
        """Where slices that are drawn so are kept; its name stands for all that they and their scores depend on."""
        parts = [self.model_dir / PRIOR_FILE, self.model_dir / GUIDE_FOLDER / WEIGHTS_FILE]
        of_model = [self.weights, *(sha256_of(part) for part in parts if part.exists()), sampling.essentials()]
        return self.folder / "slices" / hex_digest([*self.of_dataset, *of_model])


def check_dataset(job: AuditJob, dataset: Dataset, saved: SavedModel) -> None:
    """Refuse, before anything is drawn, a dataset that the audit cannot be made with.

    Raises:
        ConfigError: `audit.not_held_out` names what is not held out.
        DataError: the model was trained on another one, or there are too few training slices.
    """
    if dataset.version != saved.dataset_version:
        raise DataError(
            f"{dataset.path}: must be the dataset that the model was trained on, version {saved.dataset_version[:12]}, "
            f"is version {dataset.version[:12]}; give the settings of its training with --set data..."
        )
    sources = {source for split in ("validation", "test") for source in dataset.sources(split)}
    unknown = [name for name in job.audit.not_held_out if name not in sources]
    if unknown:
        raise ConfigError(
            f"audit.not_held_out: must name slices of validation or test, got {unknown[0]}; the report lists them as "
            "the dataset names them"
        )
    if dataset.num("train") < 2:
        raise DataError(f"{dataset.path}: an audit takes 2 or more training slices, got {dataset.num('train')}")


def check_held_out(job: AuditJob, dataset: Dataset) -> None:
    """Refuse too few held-out groups to set and try thresholds on.

    Raises:
        DataError: says how many it takes.
    """
    _, groups, _ = held_out(job, dataset)
    check_groups(len(np.unique(groups)), job.audit.false_alarm_rate, dataset.path)


def held_out(job: AuditJob, dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, groups and sources of the held-out slices, without those that a person has taken out."""
    splits = ("validation", "test")
    sources = np.array([source for split in splits for source in dataset.sources(split)], dtype=object)
    stays = ~np.isin(sources, list(job.audit.not_held_out))
    images = np.concatenate([dataset.images(split) for split in splits])
    groups = np.concatenate([dataset.groups(split) for split in splits])
    return images[stays], groups[stays], sources[stays]
