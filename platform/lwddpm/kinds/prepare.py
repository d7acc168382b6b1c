"""A prepare job, and the first step of every job that needs a dataset: scans become a prepared dataset, once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lwddpm.audit.near_copies import near_copies
from lwddpm.cluster.session import Session
from lwddpm.config import DataConfig
from lwddpm.data.class_folders import describe_classes
from lwddpm.data.manifest import Manifest
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.remarks import remarks
from lwddpm.data.store import Dataset
from lwddpm.progress import say


def prepare(data: DataConfig, session: Session, fresh: bool) -> Dataset:
    """Prepare the dataset on the session's CPUs, or open the one that is there, and say what is in it."""
    dataset = prepare_dataset(data, session.map, fresh=fresh, alike=near_copies)
    if "://" not in dataset.path:  # workers have working folders of their own
        dataset = replace(dataset, path=str(Path(dataset.path).absolute()))
    manifest = dataset.manifest
    splits = ", ".join(f"{split.num} {name}" for name, split in manifest.splits.items())
    duplicates = manifest.duplicates
    say(
        f"dataset {dataset.path} version {dataset.version[:12]}: {splits}; {duplicates.exact_copies} exact copies and "
        f"{duplicates.near_pairs} near-duplicate pairs kept within one split each"
    )
    if data.reads_volumes and data.keep_subject_ids is not None:
        say(f"  subject ids and file names are kept as they are: {data.keep_subject_ids}")
    for line in describe_classes(class_counts(manifest), data.reads_volumes):
        say(f"  {line}")
    for remark in remarks(manifest):
        say(f"  {remark}")
    for rejected in manifest.rejected[:5]:
        say(f"  rejected {rejected.source}: {rejected.reason}")
    if len(manifest.rejected) > 5:
        say(f"  and {len(manifest.rejected) - 5} more: see {dataset.path}/dataset.json")
    return dataset


def class_counts(manifest: Manifest) -> dict[str, int]:
    """Slices of each class in all splits."""
    return {name: sum(split.counts.get(name, 0) for split in manifest.splits.values()) for name in manifest.label_names}


def summary_of(dataset: Dataset) -> dict[str, Any]:
    """The dataset in a job's summary."""
    manifest = dataset.manifest
    return {
        "path": dataset.path,
        "version": dataset.version,
        "simulated": manifest.simulated,
        "classes": class_counts(manifest),
        "splits": {name: split.num for name, split in manifest.splits.items()},
        "rejected": len(manifest.rejected),
        "not_taken": manifest.not_taken.counts(),
        "nearly_empty": len(manifest.nearly_empty),
        "with_text": len(manifest.with_text),
        "duplicates": manifest.duplicates.model_dump(mode="json", exclude={"label_conflicts", "subject_links"}),
    }
