"""`dataset.json`: what a prepared dataset holds and how it came about."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lwddpm.config import PHANTOM, DataConfig, Section
from lwddpm.config.data import OPTIONAL
from lwddpm.data.location import locate
from lwddpm.errors import DataError

# 2 adds what has a default below; files of more than 8 bits became other pixels with 1. 3 adds columns of volumes.
SCHEMA_VERSION = 3
READABLE_VERSIONS = (1, 2, SCHEMA_VERSION)
SPLITS = ("train", "validation", "test")
MANIFEST = "dataset.json"
PREPARE_AGAIN = "prepare it again: lwddpm run JOB --fresh"
OTHER_DATASET = "set another data.path, or replace the dataset: lwddpm run JOB --fresh"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RejectedFile(_Record):
    source: str
    reason: str


class NotTaken(_Record):
    """What lies in a source and is not in the dataset, beside rejected files.

    Attributes:
        pages: number of pages that are not taken, by file (data.pages).
        excluded: number of files that data.include and data.exclude leave out.
        system_folders: folders that are hidden or that systems leave behind; what is in them is not counted.
        system_files: number of files of this kind elsewhere.
        outputs: folders that this platform has made.
        other: numbers by reason of what else is not taken of a source of volumes.
        withdrawn: number of slices that data.withdrawn leaves out.
        unmatched: which of its entries match nothing, in words; they are named by their lines alone.
        listed: the series that are passed over, by their first files, with the reason; `other` counts their files.
    """

    pages: dict[str, int] = {}
    excluded: int = 0
    system_folders: tuple[str, ...] = ()
    system_files: int = 0
    outputs: tuple[str, ...] = ()
    other: dict[str, int] = {}
    withdrawn: int = 0
    unmatched: str = ""
    listed: tuple[RejectedFile, ...] = ()

    def counts(self) -> dict[str, int]:
        """Its numbers alone."""
        return {
            "pages": sum(self.pages.values()),
            "files_with_pages": len(self.pages),
            "excluded": self.excluded,
            "system_folders": len(self.system_folders),
            "system_files": self.system_files,
            "outputs": len(self.outputs),
            "other": sum(self.other.values()),
            "withdrawn": self.withdrawn,
        }


class SplitSummary(_Record):
    """The slices of one split.

    Attributes:
        counts: number of slices by label.
        sha256: covers every row's pixels and columns, in order.
        groups: number of groups of slices that stay together; None in datasets of older versions.
        same_picture: number of slices that show the most frequent picture; blank slices count as one picture.
        same_picture_source: one of them.
    """

    num: int
    counts: dict[str, int]
    shards: tuple[str, ...]
    sha256: str
    groups: int | None = None
    same_picture: int = 0
    same_picture_source: str = ""


class SubjectLink(_Record):
    """Two subjects that stay in one split because a slice of one is a copy of a slice of the other."""

    subjects: tuple[str, str]
    sources: tuple[str, str]
    exact: bool


class LargestGroup(_Record):
    """Why the largest group is one: its subjects, volumes and copies, and a pair of these, between subjects if any."""

    subjects: tuple[str, ...]
    volumes: tuple[str, ...] = ()
    exact_copies: int
    near_pairs: int
    example: tuple[str, ...]


class DuplicatesSummary(_Record):
    """What was grouped. All copies stay in the dataset, in one split.

    Attributes:
        exact_copies: slices whose decoded pixels equal those of an earlier slice.
        near_pairs: pairs of different slices that were verified to show the same picture.
        groups: number of groups; a group never straddles two splits.
        largest_group: number of slices in the largest group.
        label_conflicts: the sources of every group of duplicates that has more than one label.
        blank: slices without content; they are nobody's copies.
        largest: why the largest group is one; None in datasets of older versions.
        subject_links: one pair of copies for each two subjects that copies tie together.
    """

    exact_copies: int
    near_pairs: int
    groups: int
    largest_group: int
    label_conflicts: tuple[tuple[str, ...], ...]
    blank: int = 0
    largest: LargestGroup | None = None
    subject_links: tuple[SubjectLink, ...] = ()


class Manifest(_Record):
    """`dataset.json`. `version` is a hash of everything that training can see, so equal versions are equal data."""

    schema_version: int
    version: str
    simulated: bool
    source: str
    source_fingerprint: str
    image_size: int
    label_names: tuple[str, ...]
    settings: dict[str, Any]
    splits: dict[str, SplitSummary]
    rejected: tuple[RejectedFile, ...]
    duplicates: DuplicatesSummary
    without_subject: int = 0  # files that data.subject_pattern does not match
    not_taken: NotTaken = NotTaken()
    columns: tuple[str, ...] = ()  # of the shards, beside those that every dataset has
    nearly_empty: tuple[str, ...] = ()  # sources of slices with hardly any contrast, the blank ones among them
    with_text: tuple[str, ...] = ()  # sources of slices near whose borders text was found

    @property
    def num(self) -> int:
        """Number of slices in all splits."""
        return sum(split.num for split in self.splits.values())


def read_manifest(path: str) -> Manifest | None:
    """The manifest under `path`, or None where there is none.

    Raises:
        DataError: the manifest is damaged, of another schema version, or out of reach.
    """
    location = locate(path)
    try:
        content = (location / MANIFEST).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); check data.path and its credentials") from error
    if content is None:
        return None
    try:
        values = json.loads(content)
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version not in READABLE_VERSIONS:
            raise DataError(
                f"{path}/{MANIFEST}: schema version must be {READABLE_VERSIONS[0]} to {SCHEMA_VERSION}, got {version}: "
                f"another version of lwddpm has written it; {PREPARE_AGAIN}"
            )
        return Manifest.model_validate(values)
    except (ValueError, ValidationError) as error:
        raise DataError(f"{path}/{MANIFEST}: damaged ({error}); {PREPARE_AGAIN}") from error


def check_settings(manifest: Manifest, data: DataConfig) -> None:
    """Make sure that a dataset was prepared as a job asks for: the same settings, and the same values.

    Another version of lwddpm may know other settings. What both know is compared; what only one knows could be
    anything, so such a dataset is refused rather than taken for another one.

    Raises:
        DataError: names the first setting that differs, or is not known.
    """
    prepared, wanted = manifest.settings, data.content_settings()
    if manifest.schema_version == 1:  # 0.1.0 did not know it; the caller looks whether it matters
        wanted.pop("intensity", None)
    for key in OPTIONAL:  # a version that does not know them does as their defaults say
        default = DataConfig.model_fields[key].get_default()
        default = default.model_dump(mode="json") if isinstance(default, Section) else default
        if key in prepared or key in wanted:
            prepared, wanted = {key: default} | prepared, {key: default} | wanted
    if (manifest.source == PHANTOM) != (data.source == PHANTOM):  # folders and phantoms have settings of their own
        prepared, wanted = {"source": manifest.source}, {"source": data.source}
    for key in wanted:
        if key in prepared and prepared[key] != wanted[key]:
            raise DataError(
                f"data.path: {data.dataset_path}: was prepared with data.{key} = {prepared[key]}, the job says "
                f"{wanted[key]}; {OTHER_DATASET}"
            )
    if unknown := sorted(prepared.keys() ^ wanted.keys()):
        raise DataError(
            f"data.path: {data.dataset_path}: was prepared by a version of lwddpm with other settings: whether "
            f"data.{unknown[0]} is what the job says cannot be known; {OTHER_DATASET}"
        )
