"""`dataset.json`: what a prepared dataset holds and how it came about."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lwddpm.config import PHANTOM, DataConfig
from lwddpm.config.data import OPTIONAL
from lwddpm.data.location import locate
from lwddpm.errors import DataError

SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test")
MANIFEST = "dataset.json"
PREPARE_AGAIN = "prepare it again: lwddpm run JOB --fresh"
OTHER_DATASET = "set another data.path, or replace the dataset: lwddpm run JOB --fresh"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RejectedFile(_Record):
    source: str
    reason: str


class SplitSummary(_Record):
    """`counts` is the number of slices by label; `sha256` covers every row's pixels and columns, in order."""

    num: int
    counts: dict[str, int]
    shards: tuple[str, ...]
    sha256: str


class DuplicatesSummary(_Record):
    """What was grouped. All copies stay in the dataset, in one split.

    Attributes:
        exact_copies: slices whose decoded pixels equal those of an earlier slice.
        near_pairs: pairs of different slices that were verified to show the same picture.
        groups: number of groups; a group never straddles two splits.
        largest_group: number of slices in the largest group.
        label_conflicts: the sources of every group of duplicates that has more than one label.
    """

    exact_copies: int
    near_pairs: int
    groups: int
    largest_group: int
    label_conflicts: tuple[tuple[str, ...], ...]


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
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{path}/{MANIFEST}: schema version must be {SCHEMA_VERSION}, got {version}: another version of lwddpm "
                f"has written it; {PREPARE_AGAIN}"
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
    for key in OPTIONAL:  # a version that does not know them does as their defaults say
        default = DataConfig.model_fields[key].get_default()
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
