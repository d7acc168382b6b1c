"""The prepared dataset: Parquet shards, `dataset.json`, and a memory map that all processes of a node share.

A dataset is a folder on any pyarrow filesystem:

    dataset.json            Manifest: version, counts, settings, rejected files, duplicates
    train-00000.parquet     columns image (S*S uint8 bytes, row-major), label, split, group, subject_id, source; of
                            volumes also plane, sequence, position_mm, volume, spacing_mm
    validation-00000.parquet ...

`dataset.json` is written last, so a folder that has one is complete.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lwddpm.data.location import locate
from lwddpm.data.manifest import MANIFEST, PREPARE_AGAIN, SPLITS, Manifest, SplitSummary, read_manifest
from lwddpm.data.shards import ROW_GROUP_BYTES, ScanColumns
from lwddpm.errors import DataError
from lwddpm.files import cache_folder, locked, replacing


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset; cheap to pickle. Rows of a split are ordered by source: draw subsets with a seed."""

    path: str
    manifest: Manifest

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class names; `labels` holds indices into them."""
        return self.manifest.label_names

    def num(self, split: str) -> int:
        """Number of slices in "train", "validation" or "test"."""
        return self._summary(split).num

    def images(self, split: str) -> np.ndarray:
        """All slices of a split, read-only uint8 [N, S, S], backed by the page cache and shared by all processes.

        The first process of a node streams them from Parquet into a cache file (LWDDPM_CACHE, default
        ~/.cache/lwddpm), which is checked against the manifest; the others wait for it.

        Raises:
            DataError: a shard is missing or damaged, or the cache cannot be written or is not whole.
        """
        num, size = self.num(split), self.manifest.image_size
        if num == 0:
            empty = np.empty((0, size, size), np.uint8)
            empty.flags.writeable = False
            return empty
        folder = cache_folder()
        cached = folder / f"{self.version}-{split}.npy"
        if not cached.exists():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with locked(cached.with_suffix(".lock")):
                    if not cached.exists():
                        self._build_cache(split, cached)
            except OSError as error:
                raise DataError(
                    f"{folder}: cannot hold the image cache ({error.strerror or error}); "
                    "set LWDDPM_CACHE to a writable folder with enough space"
                ) from error
        return _mapped(cached, (num, size, size))

    def column(self, split: str, name: str) -> list[Any]:
        """Values of any column but the image's, in the order of `images`."""
        return self._column(split, name)

    def labels(self, split: str) -> np.ndarray:
        """Class indices, int64 [N], into `label_names`, in the order of `images`."""
        index = {name: i for i, name in enumerate(self.label_names)}
        return np.array([index[name] for name in self._column(split, "label")], dtype=np.int64)

    def sources(self, split: str) -> list[str]:
        """Paths relative to the source folder, in the order of `images`."""
        return self._column(split, "source")

    def groups(self, split: str) -> np.ndarray:
        """Group numbers, int64 [N], in the order of `images`; duplicates and slices of a subject share one."""
        return np.array(self._column(split, "group"), dtype=np.int64)

    def subjects(self, split: str) -> list[str | None]:
        """Whom each slice shows, in the order of `images`; None where that is not known."""
        return self._column(split, "subject_id")

    def scan_columns(self, split: str) -> list[ScanColumns]:
        """Where each slice lies in its volume, in the order of `images`; nothing where slices are from no volumes."""
        if not self.manifest.columns:
            return []
        columns = [self._column(split, name) for name in ScanColumns._fields]
        return [ScanColumns(*values) for values in zip(*columns, strict=True)]

    def _summary(self, split: str) -> SplitSummary:
        if split not in self.manifest.splits:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        return self.manifest.splits[split]

    def _batches(self, split: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        folder = locate(self.path)
        for shard in self._summary(split).shards:
            try:
                with (
                    folder.filesystem.open_input_file(f"{folder.path}/{shard}") as stream,
                    pq.ParquetFile(stream) as file,
                ):
                    rows = max(1, ROW_GROUP_BYTES // self.manifest.image_size**2)
                    yield from file.iter_batches(batch_size=rows, columns=columns)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{self.path}/{shard}: missing or damaged ({error}); {PREPARE_AGAIN}") from error

    def _column(self, split: str, name: str) -> list[Any]:
        return [value for batch in self._batches(split, [name]) for value in batch.column(0).to_pylist()]

    def _build_cache(self, split: str, cached: Path) -> None:
        for stale in cached.parent.glob(f"*{cached.stem}.*partial"):  # of a killed process: we hold the lock
            stale.unlink(missing_ok=True)
        summary, size = self._summary(split), self.manifest.image_size
        digest = hashlib.sha256()
        columns = ["image", "label", "group", "subject_id", "source", *self.manifest.columns]
        with replacing(cached) as partial:
            with partial.open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (summary.num, size, size)}
                np.lib.format.write_array_header_1_0(file, header)
                for batch in self._batches(split, columns):
                    pixels, *rows = (batch.column(i) for i in range(len(columns)))
                    for image, *row in zip(pixels, *(column.to_pylist() for column in rows), strict=True):
                        buffer = image.as_buffer()
                        digest.update(buffer)
                        digest.update(json.dumps(row).encode())
                        file.write(buffer)
            if digest.hexdigest() != summary.sha256:
                raise DataError(f"{self.path}: the {split} shards are not those of dataset.json; {PREPARE_AGAIN}")


def _mapped(cached: Path, shape: tuple[int, int, int]) -> np.ndarray:
    # numpy.load would read the header as Python source, which is not safe in several threads before Python 3.11.8
    # (CPython gh-106905), and the board's pictures are read by many.
    with cached.open("rb") as file:
        header = 10 + int.from_bytes(file.read(10)[8:], "little")  # format 1.0: magic, version, length, dict
    if cached.stat().st_size != header + math.prod(shape):
        raise DataError(
            f"{cached}: is not the {math.prod(shape)} pixels of its dataset; remove it, and it is made again"
        )
    return np.memmap(cached, np.uint8, "r", offset=header, shape=shape)


def open_dataset(path: str) -> Dataset:
    """Open a prepared dataset by its folder or URI.

    Raises:
        DataError: there is none, or it was written by an incompatible version.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise DataError(f"{path}: no prepared dataset here (no {MANIFEST}); prepare one with a job of kind: prepare")
    return Dataset(path, manifest)
