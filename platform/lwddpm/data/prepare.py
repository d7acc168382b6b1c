"""From a source of slices to a prepared dataset: stage, group, split, write, and only then publish.

Workers decode chunks of slices and leave the pixels in a staging folder beside the dataset (on a cluster:
on storage that they share); the driver receives hashes only.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from lwddpm.config import PHANTOM, DataConfig
from lwddpm.data.dicom_folder import open_dicom_folder
from lwddpm.data.grouping import Grouping, group_slices
from lwddpm.data.image_folder import ImageFolder, open_image_folder
from lwddpm.data.location import Location, TargetError, locate
from lwddpm.data.manifest import (
    OTHER_DATASET,
    SCHEMA_VERSION,
    SPLITS,
    Manifest,
    SplitSummary,
    check_settings,
    read_manifest,
)
from lwddpm.data.nifti import SUFFIXES
from lwddpm.data.nifti_folder import open_nifti_folder
from lwddpm.data.phantom import Phantom
from lwddpm.data.phantom_volumes import PhantomVolumes
from lwddpm.data.pseudonyms import pseudonyms_of
from lwddpm.data.remarks import largest_group
from lwddpm.data.selection import count_left_out, num_without_subject, separate_rejected
from lwddpm.data.shards import Row, ScanColumns, SplitWriter
from lwddpm.data.sources import PART, UNLABELLED, Source
from lwddpm.data.splits import split_by_group
from lwddpm.data.staging import Chunk, StagedSlice, Staging, stage_chunk, volume_chunks
from lwddpm.data.store import Dataset
from lwddpm.data.withdrawn import Left, leave_out, read_withdrawals
from lwddpm.data.workspace import check_target, open_workspace
from lwddpm.errors import DataError

T = TypeVar("T")
R = TypeVar("R")
GIVE = {"nifti": "give a folder of .nii or .nii.gz files", "dicom": "lwddpm data inspect says what is in it"}
CHUNK = 32  # slices per task; changes no result
ROWS_VERSION = 1  # of what a dataset's version covers; not raised with SCHEMA_VERSION, so equal data keep theirs


# uint8 [N, S, S] -> pairs of slices that show the same picture, int64 [P, 2]
Alike = Callable[[np.ndarray], np.ndarray]


class ParallelMap(Protocol):
    """Applies a picklable function to picklable items on some workers, and yields the results in their order."""

    def __call__(self, function: Callable[[T], R], items: Sequence[T], *, description: str) -> Iterator[R]: ...


def prepare_dataset(
    data: DataConfig, parallel_map: ParallelMap, *, fresh: bool = False, alike: Alike | None = None
) -> Dataset:
    """Prepare `data.source` under `data.dataset_path`, or return the same dataset if it lies there already.

    The result does not depend on the number of workers. Every slice is kept; duplicates share a group.

    Args:
        data: source, target and settings.
        parallel_map: runs the decoding; its workers must reach the source and the target.
        fresh: replace whatever dataset lies at the target.
        alike: the search of `data.near_duplicates: correlation`, which stands further right than this room.

    Raises:
        DataError: the source is missing, empty or too damaged, or the target cannot be used.
    """
    if existing := _existing(data, fresh):
        return existing
    by_correlation = data.near_duplicates == "correlation"
    if by_correlation and alike is None:
        raise ValueError("data.near_duplicates = correlation takes a search, got none; use kinds.prepare")
    target = locate(data.dataset_path)
    check_target(target)
    try:
        with open_workspace(target) as workspace:
            if existing := _existing(data, fresh):  # by another process, while this one waited for it
                return existing
            pseudonyms = pseudonyms_of(data)
            source, left = scan(data)
            names, fingerprint = left.names, left.fingerprint
            without_subject = num_without_subject(data, source, names)
            workspace.create()
            staging = Staging(workspace.staging, data.image_size, "accept" if source.simulated else data.text)
            chunks = [
                Chunk(source.portion([name for _, name in slices]), slices)
                for slices in volume_chunks(source, names, CHUNK)
            ]
            parts = parallel_map(partial(stage_chunk, staging), chunks, description="Preparing slices")
            staged = [slice_ for part in parts for slice_ in part]
            usable, rejected = separate_rejected(staged, source, pseudonyms, data)
            subjects = [source.subject_id(slice_.name) or None for slice_ in usable]
            labels = _labels(usable, subjects, source, data)
            volumes = [source.volume(slice_.name) for slice_ in usable]
            # From here on nobody is named by the source's names.
            usable = [
                replace(slice_, name=pseudonyms.name(slice_.name, subject))
                for slice_, subject in zip(usable, subjects, strict=True)
            ]
            volumes = [
                volume and pseudonyms.name(volume, subject) for volume, subject in zip(volumes, subjects, strict=True)
            ]
            subjects = [pseudonyms.subject(subject) for subject in subjects]
            order = sorted(range(len(usable)), key=lambda i: usable[i].name)  # that of the real names tells about them
            usable, labels = [usable[i] for i in order], [labels[i] for i in order]
            subjects, volumes = [subjects[i] for i in order], [volumes[i] for i in order]
            grouping = group_slices(usable, labels, subjects, volumes, staging, alike if by_correlation else None)
            rows = [
                Row(label, int(group), subject, slice_.name, _scan_columns(slice_))
                for label, group, subject, slice_ in zip(labels, grouping.groups, subjects, usable, strict=True)
            ]
            label_names, splits = _write(usable, rows, grouping, staging, workspace.dataset, data)
            not_taken = pseudonyms.not_taken(source)
            manifest = Manifest(
                schema_version=SCHEMA_VERSION,
                version=_version(data.image_size, source.simulated, label_names, splits),
                simulated=source.simulated,
                source=data.public_source,
                source_fingerprint=fingerprint,
                image_size=data.image_size,
                label_names=label_names,
                settings=data.content_settings(),
                splits=splits,
                rejected=rejected,
                duplicates=grouping.summary,
                without_subject=without_subject,
                not_taken=not_taken.model_copy(
                    update={
                        "pages": {slice_.name: slice_.pages_left for slice_ in usable if slice_.pages_left},
                        "other": not_taken.other | count_left_out(staged),
                        "withdrawn": left.num_withdrawn,
                        "unmatched": left.unmatched,
                    }
                ),
                columns=ScanColumns._fields if rows[0].scan is not None else (),
                nearly_empty=tuple(slice_.name for slice_ in usable if slice_.nearly_empty),
                with_text=tuple(slice_.name for slice_ in usable if slice_.text),
            )
            workspace.publish(manifest.model_dump_json(indent=2))
    except TargetError as error:
        raise DataError(
            f"data.path: {data.dataset_path}: the dataset cannot be written ({error}); set another data.path"
        ) from error
    return Dataset(data.dataset_path, manifest)


def check_source(data: DataConfig, *, fresh: bool = False) -> None:
    """Find out without decoding anything whether `prepare_dataset` has what it needs.

    Raises:
        DataError: the source is missing or empty, or has too many files without a subject, and nothing is prepared; or
            the target cannot be used.
    """
    if _existing(data, fresh) is None:
        source, left = scan(data)
        num_without_subject(data, source, left.names)
        check_target(locate(data.dataset_path))


def open_source(data: DataConfig) -> Source:
    """The source that `data.source` names.

    Raises:
        DataError: there is no such folder.
    """
    if data.source == PHANTOM:
        return PhantomVolumes.of(data) if data.phantom == "volumes" else Phantom.of(data)
    match data.format:
        case "nifti":
            return open_nifti_folder(data)
        case "dicom":
            return open_dicom_folder(data)
        case "images":
            return open_image_folder(data)


def scan(data: DataConfig) -> tuple[Source, Left]:
    """The source of a job, and what data.withdrawn leaves of it: the names of its slices in sorted order.

    Raises:
        DataError: the source is missing or empty, or the list cannot be read.
    """
    source = open_source(data)
    names, fingerprint = source.scan()
    if not names and data.reads_volumes:
        raise DataError(
            f"data.source: holds no {data.public_source} that data.include, data.exclude and data.slices leave in; "
            f"{GIVE[data.format]}"
        )
    if not names:
        raise DataError(f"data.source: {data.source}: holds no images; give a folder of images in class/ sub-folders")
    if data.format == "images" and all(name.lower().endswith(SUFFIXES) for name in names):
        raise DataError(f"data.source: {data.source}: holds NIfTI volumes and no images; set data.format=nifti")
    if data.withdrawn is None:
        return source, Left(names, fingerprint)
    left = leave_out(read_withdrawals(data.withdrawn), source, names, fingerprint, pseudonyms_of(data))
    if not left.names:
        raise DataError(f"data.withdrawn: {data.withdrawn}: leaves none of {len(names)} slices in; check the list")
    return source, left


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
        source, left = scan(data)
    except DataError:
        if manifest.source == data.public_source:  # the source has been removed since; the dataset is all one needs
            return Dataset(path, manifest)
        raise
    if left.fingerprint != manifest.source_fingerprint:
        withdrawn = ", or data.withdrawn leaves out others" if data.withdrawn is not None else ""
        raise DataError(
            f"data.path: {path}: was prepared from {manifest.source}, and {data.public_source} holds other files now "
            f"(their names, sizes or times differ{withdrawn}); {OTHER_DATASET}"
        )
    if manifest.schema_version == 1 and isinstance(source, ImageFolder) and (deep := source.first_deep(left.names)):
        raise DataError(
            f"data.path: {path}: was prepared by version 0.1 of lwddpm, which read files of more than 8 bits, such as "
            f"{deep}, otherwise; {OTHER_DATASET}"
        )
    return Dataset(path, manifest)


def _scan_columns(slice_: StagedSlice) -> ScanColumns | None:
    geometry = slice_.geometry
    if geometry is None:
        return None
    volume = slice_.name.rpartition(PART)[0]
    return ScanColumns(geometry.plane, geometry.sequence, geometry.position_mm, volume, list(geometry.spacing_mm))


def _labels(
    usable: Sequence[StagedSlice], subjects: Sequence[str | None], source: Source, data: DataConfig
) -> list[str]:
    """Class of each slice; a folder that is a subject (one subject's alone, and named after it) is not a class.

    Where the job says which folder is the class, it is.
    """
    labels = [source.label(slice_.name) for slice_ in usable]
    if data.label_from != "auto" or data.reads_volumes:
        return labels
    subjects_of: dict[str, set[str | None]] = {}
    for label, subject in zip(labels, subjects, strict=True):
        subjects_of.setdefault(label, set()).add(subject)
    are_subjects = {
        label for label, (subject, *others) in subjects_of.items() if subject and subject in label and not others
    }
    return [UNLABELLED if label in are_subjects else label for label in labels]


def _write(
    usable: list[StagedSlice],
    rows: list[Row],
    grouping: Grouping,
    staging: Staging,
    folder: Location,
    data: DataConfig,
) -> tuple[tuple[str, ...], dict[str, SplitSummary]]:
    """Split the slices and stream them from the staging folder into shards."""
    label_names, labels = np.unique([row.label for row in rows], return_inverse=True)
    try:
        split_of = split_by_group(grouping.groups, labels, data.splits, data.seed)
    except DataError as error:
        raise DataError(f"{error} ({largest_group(grouping.summary)})") from None
    columns = ScanColumns._fields if rows[0].scan is not None else ()
    writers = [SplitWriter(folder, split, data.image_size, columns) for split in SPLITS]
    for start in range(0, len(usable), CHUNK):
        part = usable[start : start + CHUNK]
        images = staging.read([(slice_.chunk, slice_.position) for slice_ in part])
        for i, image in enumerate(images, start):
            writers[split_of[i]].append(image, rows[i])
    summaries = {}
    for number, (split, writer) in enumerate(zip(SPLITS, writers, strict=True)):
        members = np.flatnonzero(split_of == number)
        pictures, first, counts = np.unique(grouping.pictures[members], return_index=True, return_counts=True)
        repeated = {}
        if len(pictures):
            most = counts.argmax()
            source = rows[members[first[most]]].source
            repeated = {"same_picture": int(counts[most]), "same_picture_source": source}
        num_groups = len(np.unique(grouping.groups[members]))
        summaries[split] = writer.close().model_copy(update={"groups": num_groups} | repeated)
    return tuple(label_names.tolist()), summaries


def _version(image_size: int, simulated: bool, label_names: Sequence[str], splits: dict[str, SplitSummary]) -> str:
    """16 hex digits over all that training can see; where it came from and how long it took do not matter."""
    content = [ROWS_VERSION, image_size, simulated, label_names, [splits[split].sha256 for split in SPLITS]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
