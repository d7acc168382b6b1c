"""`dataset.json`: what a prepared dataset holds and how it came about."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lwddpm.data.location import locate
from lwddpm.errors import DataError

SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test")
MANIFEST = "dataset.json"


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RejectedFile(Record):
    source: str
    reason: str


class SplitSummary(Record):
    """`counts` is the number of slices by label; `sha256` covers every row's pixels and columns, in order."""

    num: int
    counts: dict[str, int]
    shards: tuple[str, ...]
    sha256: str


class DuplicatesSummary(Record):
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


class Manifest(Record):
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
        found = values.get("schema_version") if isinstance(values, dict) else None
        if found != SCHEMA_VERSION:
            raise DataError(
                f"{path}/{MANIFEST}: schema version must be {SCHEMA_VERSION}, got {found}; prepare again with --fresh"
            )
        return Manifest.model_validate(values)
    except (ValueError, ValidationError) as error:
        raise DataError(f"{path}/{MANIFEST}: damaged ({error}); prepare again with --fresh") from error
