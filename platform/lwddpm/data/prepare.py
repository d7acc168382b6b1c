"""From a source of slices to a prepared dataset: stage, group, split, write, and only then publish.

Workers decode chunks of slices and leave the pixels in a staging folder beside the dataset (on a cluster:
on storage that they share); the driver receives hashes only.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from lwddpm.config import PHANTOM, DataConfig
from lwddpm.data.duplicates import candidate_pairs, connected_groups, equal_links, verified_pairs
from lwddpm.data.image_folder import open_image_folder
from lwddpm.data.location import Location, locate
from lwddpm.data.manifest import (
    OTHER_DATASET,
    SCHEMA_VERSION,
    SPLITS,
    DuplicatesSummary,
    Manifest,
    RejectedFile,
    SplitSummary,
    check_settings,
    read_manifest,
)
from lwddpm.data.phantom import Phantom
from lwddpm.data.shards import Row, SplitWriter
from lwddpm.data.sources import Source
from lwddpm.data.splits import split_by_group
from lwddpm.data.staging import StagedSlice, Staging, stage_chunk
from lwddpm.data.store import Dataset
from lwddpm.data.workspace import check_target, open_workspace
from lwddpm.errors import DataError

T = TypeVar("T")
R = TypeVar("R")
CHUNK = 32  # slices per task; changes no result


class ParallelMap(Protocol):
    """Applies a picklable function to picklable items on some workers, and yields the results in their order."""

    def __call__(self, function: Callable[[T], R], items: Sequence[T], *, description: str) -> Iterator[R]: ...


def prepare_dataset(data: DataConfig, parallel_map: ParallelMap, *, fresh: bool = False) -> Dataset:
    """Prepare `data.source` under `data.dataset_path`, or return the same dataset if it lies there already.

    The result does not depend on the number of workers. Every slice is kept; duplicates share a group.

    Args:
        data: source, target and settings.
        parallel_map: runs the decoding; its workers must reach the source and the target.
        fresh: replace whatever dataset lies at the target.

    Raises:
        DataError: the source is missing, empty or too damaged, or the target cannot be used.
    """
    if existing := _existing(data, fresh):
        return existing
    target = locate(data.dataset_path)
    check_target(target)
    try:
        with open_workspace(target) as workspace:
            if existing := _existing(data, fresh):  # by another process, while this one waited for it
                return existing
            source, names, fingerprint = scan(data)
            workspace.create()
            staging = Staging(workspace.staging, data.image_size)
            numbered = list(enumerate(names))
            chunks = [numbered[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
            parts = parallel_map(partial(stage_chunk, source, staging), chunks, description="Preparing slices")
            usable, rejected = _separate_rejected([staged for part in parts for staged in part], data)
            groups, duplicates = _group(usable, source, staging)
            label_names, splits = _write(usable, groups, source, staging, workspace.dataset, data)
            manifest = Manifest(
                schema_version=SCHEMA_VERSION,
                version=_version(data.image_size, source.simulated, label_names, splits),
                simulated=source.simulated,
                source=data.source,
                source_fingerprint=fingerprint,
                image_size=data.image_size,
                label_names=label_names,
                settings=data.content_settings(),
                splits=splits,
                rejected=rejected,
                duplicates=duplicates,
            )
            workspace.publish(manifest.model_dump_json(indent=2))
    except OSError as error:
        raise DataError(
            f"data.path: {data.dataset_path}: the dataset cannot be written ({error}); set another data.path"
        ) from error
    return Dataset(data.dataset_path, manifest)


def check_source(data: DataConfig, *, fresh: bool = False) -> None:
    """Find out without decoding anything whether `prepare_dataset` has what it needs.

    Raises:
        DataError: the source is missing or empty and nothing is prepared, or the target cannot be used.
    """
    if _existing(data, fresh) is None:
        scan(data)
        check_target(locate(data.dataset_path))


def open_source(data: DataConfig) -> Source:
    """The source that `data.source` names.

    Raises:
        DataError: there is no such folder.
    """
    return Phantom.of(data) if data.source == PHANTOM else open_image_folder(data)


def scan(data: DataConfig) -> tuple[Source, list[str], str]:
    """The source of a job, the names of its slices in sorted order, and its fingerprint.

    Raises:
        DataError: the source is missing or empty, or no name matches data.subject_pattern.
    """
    source = open_source(data)
    names, fingerprint = source.scan()
    if not names:
        raise DataError(f"data.source: {data.source}: holds no images; give a folder of images in class/ sub-folders")
    if data.subject_pattern and data.source != PHANTOM and all(source.subject_id(name) is None for name in names):
        raise DataError(
            f"data.subject_pattern: {data.subject_pattern!r} matches none of {len(names)} files, such as {names[0]}; "
            "write it for paths relative to data.source"
        )
    return source, names, fingerprint


def _existing(data: DataConfig, fresh: bool) -> Dataset | None:
    """The dataset that lies at the target, if it is what the job asks for; None if it must be prepared.

    Raises:
        DataError: another dataset lies there, or there is neither a dataset nor a source.
    """
    path = data.dataset_path
    manifest = None if fresh else read_manifest(path)
    if manifest is None:
        return None
    check_settings(manifest, data)
    try:
        _, _, fingerprint = scan(data)
    except DataError:
        if manifest.source == data.source:  # the source has been removed since; the dataset is all one needs
            return Dataset(path, manifest)
        raise
    if fingerprint != manifest.source_fingerprint:
        raise DataError(
            f"data.path: {path}: was prepared from {manifest.source}, and {data.source} holds other files now; "
            f"{OTHER_DATASET}"
        )
    return Dataset(path, manifest)


def _separate_rejected(
    staged: list[StagedSlice], data: DataConfig
) -> tuple[list[StagedSlice], tuple[RejectedFile, ...]]:
    """Separate usable from rejected files; refuse too many of the latter."""
    usable = [slice_ for slice_ in staged if slice_.reason is None]
    rejected = tuple(RejectedFile(source=_as_utf8(s.name), reason=s.reason) for s in staged if s.reason is not None)
    if not usable or len(rejected) > data.max_rejected_fraction * len(staged):
        first = "; ".join(f"{file.source}: {file.reason}" for file in rejected[:3])
        more = f"; and {len(rejected) - 3} more" if len(rejected) > 3 else ""
        limit = f", more than data.max_rejected_fraction = {data.max_rejected_fraction} allows" if usable else ""
        remedy = "repair or remove them" + (", or raise data.max_rejected_fraction" if usable else "")
        raise DataError(
            f"data.source: {data.source}: {len(rejected)} of {len(staged)} files cannot be used{limit} "
            f"({first}{more}); {remedy}"
        )
    return usable, rejected


def _group(usable: list[StagedSlice], source: Source, staging: Staging) -> tuple[np.ndarray, DuplicatesSummary]:
    """Group of each slice: duplicates and slices of a subject stay together."""
    exact = equal_links([slice_.pixels_sha256 for slice_ in usable])
    distinct = np.setdiff1d(np.arange(len(usable)), exact[:, 1])
    hashes = np.frombuffer(b"".join(usable[i].hashes for i in distinct), np.uint64).reshape(len(distinct), 2, 4)

    def read(positions: Sequence[int]) -> np.ndarray:
        return staging.read([(usable[i].chunk, usable[i].position) for i in distinct[positions]])

    near = distinct[verified_pairs(candidate_pairs(hashes), read, staging.image_size)[:, :2]]
    copies = connected_groups(len(usable), exact, near)
    groups = connected_groups(len(usable), exact, near, equal_links([source.subject_id(s.name) for s in usable]))

    labels = np.array([source.label(slice_.name) for slice_ in usable])
    label_sets: dict[int, set[str]] = {}
    for copy, label in zip(copies.tolist(), labels.tolist(), strict=True):
        label_sets.setdefault(copy, set()).add(label)
    conflicts = [np.flatnonzero(copies == copy) for copy, names in label_sets.items() if len(names) > 1]
    return groups, DuplicatesSummary(
        exact_copies=len(exact),
        near_pairs=len(np.unique(near, axis=0)),
        groups=int(groups.max()) + 1,
        largest_group=int(np.bincount(groups).max()),
        label_conflicts=tuple(tuple(usable[i].name for i in members) for members in conflicts),
    )


def _write(
    usable: list[StagedSlice], groups: np.ndarray, source: Source, staging: Staging, folder: Location, data: DataConfig
) -> tuple[tuple[str, ...], dict[str, SplitSummary]]:
    """Split the slices and stream them from the staging folder into shards."""
    label_names, labels = np.unique([source.label(slice_.name) for slice_ in usable], return_inverse=True)
    split_of = split_by_group(groups, labels, data.splits, data.seed)
    writers = [SplitWriter(folder, split, data.image_size) for split in SPLITS]
    for start in range(0, len(usable), CHUNK):
        part = usable[start : start + CHUNK]
        images = staging.read([(slice_.chunk, slice_.position) for slice_ in part])
        for i, (image, slice_) in enumerate(zip(images, part, strict=True), start):
            row = Row(source.label(slice_.name), int(groups[i]), source.subject_id(slice_.name), slice_.name)
            writers[split_of[i]].append(image, row)
    return tuple(label_names.tolist()), {split: writer.close() for split, writer in zip(SPLITS, writers, strict=True)}


def _version(image_size: int, simulated: bool, label_names: Sequence[str], splits: dict[str, SplitSummary]) -> str:
    """16 hex digits over all that training can see; where it came from and how long it took do not matter."""
    content = [SCHEMA_VERSION, image_size, simulated, label_names, [splits[split].sha256 for split in SPLITS]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _as_utf8(name: str) -> str:
    """A file name that can be stored as UTF-8 whatever its bytes are."""
    return name.encode("utf-8", "backslashreplace").decode()
