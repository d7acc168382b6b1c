"""Writing the slices of a split to Parquet."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lwddpm.data.location import Location, writing_target
from lwddpm.data.manifest import SplitSummary

ROW_GROUP_BYTES = 8 << 20
SHARD_BYTES = 64 << 20


class ScanColumns(NamedTuple):
    """The columns that slices of volumes have beside the others, see `sources.ScanGeometry`.

    Attributes:
        volume: the volume that a slice was cut from, as its source is named.
    """

    plane: str
    sequence: str | None
    position_mm: float
    volume: str
    spacing_mm: list[float]


SCAN_SCHEMA = {
    "plane": pa.string(),
    "sequence": pa.string(),
    "position_mm": pa.float64(),
    "volume": pa.string(),
    "spacing_mm": pa.list_(pa.float64()),
}


@dataclass(frozen=True)
class Row:
    """The columns of one slice beside its pixels and its split."""

    label: str
    group: int
    subject_id: str | None
    source: str
    scan: ScanColumns | None = None


class SplitWriter:
    """Streams the rows of one split into Parquet shards; holds at most one row group in memory."""

    def __init__(self, folder: Location, split: str, image_size: int, scan_columns: Sequence[str] = ()) -> None:
        self._folder, self._split, self._bytes_per_image = folder, split, image_size**2
        self._scan_columns = scan_columns
        columns = [("image", pa.binary(image_size**2)), ("label", pa.string()), ("split", pa.string())]
        columns += [("group", pa.int64()), ("subject_id", pa.string()), ("source", pa.string())]
        columns_of_scan = [(name, SCAN_SCHEMA[name]) for name in self._scan_columns]
        self._schema = pa.schema(columns + columns_of_scan, metadata={"image_size": str(image_size)})
        self._images: list[bytes] = []
        self._rows: list[Row] = []
        self._writer: pq.ParquetWriter | None = None
        self._rows_in_shard = 0
        self._shards: list[str] = []
        self._counts: Counter[str] = Counter()
        self._hash = hashlib.sha256()

    def append(self, image: np.ndarray, row: Row) -> None:
        """Add one slice, uint8 [S, S]."""
        pixels = image.tobytes()
        self._hash.update(pixels)
        self._hash.update(json.dumps([row.label, row.group, row.subject_id, row.source, *(row.scan or ())]).encode())
        self._counts[row.label] += 1
        self._images.append(pixels)
        self._rows.append(row)
        if len(self._rows) * self._bytes_per_image >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> SplitSummary:
        self._flush()
        self._end_shard()
        counts = dict(sorted(self._counts.items()))
        shards, num = tuple(self._shards), self._counts.total()
        return SplitSummary(num=num, counts=counts, shards=shards, sha256=self._hash.hexdigest())

    @writing_target()
    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._shards.append(f"{self._split}-{len(self._shards):05d}.parquet")
            self._writer = pq.ParquetWriter(
                f"{self._folder.path}/{self._shards[-1]}",
                self._schema,
                filesystem=self._folder.filesystem,
                compression="zstd",
                compression_level=1,
                use_dictionary=["label", "split"],
                write_statistics=["label", "split", "group"],
            )
        columns = {
            "image": self._images,
            "label": [row.label for row in self._rows],
            "split": [self._split] * len(self._rows),
            "group": [row.group for row in self._rows],
            "subject_id": [row.subject_id for row in self._rows],
            "source": [row.source for row in self._rows],
        }
        columns |= {name: [getattr(row.scan, name) for row in self._rows] for name in self._scan_columns}
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows_in_shard += len(self._rows)
        self._images, self._rows = [], []
        if self._rows_in_shard * self._bytes_per_image >= SHARD_BYTES:
            self._end_shard()

    @writing_target()
    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._rows_in_shard = None, 0
