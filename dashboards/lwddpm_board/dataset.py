"""Datasets: what is in them by class and split, what stands out, what was rejected and why, which slices are copies."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from lwddpm.data.manifest import SPLITS, Manifest, read_manifest
from lwddpm.data.remarks import remarks
from lwddpm.data.store import Dataset, open_dataset
from lwddpm.errors import DataError
from lwddpm_board.pages import render
from lwddpm_board.pictures import png
from lwddpm_board.runs import Store, experiments
from lwddpm_board.stores import Missing, NothingYet, Stores

SHEET = 48
_GROUPS = 8
_SHOWN_OF_GROUP = 8
_MOST_DATASETS = 24
_KEPT_S = 86_400  # a version is a hash of the content
_TAG = "lwddpm.dataset_version"

router = APIRouter()
Version = Annotated[str, Path(pattern="^[0-9a-f]{8,64}$")]
Split = Annotated[str, Path(pattern=f"^({'|'.join(SPLITS)})$")]


@dataclass(frozen=True)
class KnownDataset:
    """A dataset that a run has used, or that the board was started with."""

    version: str
    path: str


@router.get("/datasets")
def datasets_page(request: Request, stores: Store) -> Response:
    datasets = known(stores)
    if not datasets:
        raise NothingYet("no run has used a dataset yet")
    rows: list[tuple[KnownDataset, Manifest | None, str]] = []
    for dataset in datasets:
        try:
            rows.append((dataset, open_known(stores, dataset.version).manifest, ""))
        except (DataError, Missing) as error:
            rows.append((dataset, None, str(error)))
    return render(request, "datasets.html", rows=rows)


@router.get("/datasets/{version}")
def dataset_page(
    request: Request,
    stores: Store,
    version: Version,
    split: Annotated[str, Query(pattern=f"^({'|'.join(SPLITS)})$")] = "train",
    label: Annotated[str, Query(max_length=200)] = "",
    subject: Annotated[str, Query(max_length=200)] = "",
    sequence: Annotated[str, Query(max_length=200)] = "",
    plane: Annotated[str, Query(max_length=200)] = "",
    volume: Annotated[str, Query(max_length=500)] = "",
    page: Annotated[int, Query(ge=1)] = 1,
    group_page: Annotated[int, Query(ge=1)] = 1,
) -> Response:
    dataset = open_known(stores, version)
    rows = columns(dataset, split)
    filters = {"label": label, "subject": subject, "sequence": sequence, "plane": plane, "volume": volume}
    chosen = rows.chosen(filters)
    first = (page - 1) * SHEET
    slices = [_slice(split, rows, index) for index in chosen[first : first + SHEET].tolist()]
    groups = duplicate_groups(dataset)
    start = (group_page - 1) * _GROUPS
    return render(
        request, "dataset.html", dataset=dataset, manifest=dataset.manifest, remarks=remarks(dataset.manifest),
        splits=SPLITS, slices=slices, options=rows.options(), subjects=subject_counts(dataset),
        chosen={"split": split, **filters, "page": page, "group_page": group_page},
        pages=max(1, -(-len(chosen) // SHEET)), num_chosen=len(chosen), num_groups=len(groups),
        groups=[_group(dataset, *group) for group in groups[start : start + _GROUPS]],
        group_pages=max(1, -(-len(groups) // _GROUPS)),
    )  # fmt: skip


@router.get("/datasets/{version}/{split}/{index}.png")
def slice_picture(stores: Store, version: Version, split: Split, index: Annotated[int, Path(ge=0)]) -> Response:
    dataset = open_known(stores, version)
    if index >= dataset.num(split):
        raise Missing(f"{split} has {dataset.num(split)} slices")
    return png(dataset.images(split)[index], keep_s=_KEPT_S)


def known(stores: Stores) -> list[KnownDataset]:
    """Datasets that runs name, the most recently used first, and those that the board was started with.

    Each request asks MLflow for the newest run with a dataset that is not listed yet: few requests, however many runs.
    """
    by_version: dict[str, KnownDataset] = {}
    for path in stores.datasets:
        manifest = read_manifest(path)
        if manifest is not None:
            by_version[manifest.version] = KnownDataset(manifest.version, path)
    try:
        ids = experiments(stores.client)
    except NothingYet:
        ids = []
    named: set[str] = set()
    while ids and len(named) < _MOST_DATASETS:
        query = " and ".join(
            [f"tags.`{_TAG}` IS NOT NULL", *(f"tags.`{_TAG}` != '{version}'" for version in sorted(named))]
        )
        newest = next(iter(stores.client.search_runs(ids, query, max_results=1)), None)
        version = newest.data.tags[_TAG] if newest else ""
        if newest is None or not re.fullmatch("[0-9a-f]+", version):
            break
        named.add(version)
        by_version.setdefault(version, KnownDataset(version, newest.data.tags.get("lwddpm.dataset_path", "")))
    return list(by_version.values())


def open_known(stores: Stores, version: str) -> Dataset:
    """A dataset by its version: only folders that MLflow or the command line names are ever opened.

    Raises:
        Missing: no run names this version, or another one lies at its place now.
        DataError: it cannot be read from this machine.
    """
    return _opened(stores, version)


@lru_cache(maxsize=16)
def _opened(stores: Stores, version: str) -> Dataset:
    path = next((dataset.path for dataset in known(stores) if dataset.version == version), None)
    if path is None:
        raise Missing(f"no run has used a dataset of version {version}")
    dataset = open_dataset(path)
    if dataset.version != version:
        raise Missing(f"{path} has been prepared anew: it holds version {dataset.version} now, not {version}")
    return dataset


@dataclass(frozen=True)
class Columns:
    """What is known of each slice of a split, in the order of its images; texts are empty where it is not known.

    Attributes:
        positions: across the plane in mm; 0 where slices are from no volumes.
    """

    labels: np.ndarray
    sources: list[str]
    groups: np.ndarray
    subjects: np.ndarray
    sequences: np.ndarray
    planes: np.ndarray
    volumes: np.ndarray
    positions: np.ndarray

    def chosen(self, filters: dict[str, str]) -> np.ndarray:
        """Numbers of the slices that all filters leave in; those of one volume from its lower (back, left) end on."""
        left = np.ones(len(self.sources), bool)
        for name, wanted in filters.items():
            if wanted:
                left &= getattr(self, f"{name}s") == wanted
        numbers = np.flatnonzero(left)
        return numbers[np.argsort(self.positions[numbers], kind="stable")] if filters["volume"] else numbers

    def options(self) -> dict[str, list[str]]:
        """What there is to filter by, where there is more than nothing."""
        names = ("subject", "sequence", "plane", "volume")
        there = {name: sorted(set(getattr(self, f"{name}s").tolist()) - {""}) for name in names}
        return {name: values for name, values in there.items() if values}


def columns(dataset: Dataset, split: str) -> Columns:
    """The columns of a split; kept, for they take long to read."""
    return _columns(dataset.path, dataset.version, split)


@lru_cache(maxsize=16)
def _columns(path: str, version: str, split: str) -> Columns:
    dataset = open_dataset(path)
    names = np.array(dataset.label_names, dtype=object)
    num = dataset.num(split)
    scan = dataset.scan_columns(split)

    def texts(values: list[str | None]) -> np.ndarray:
        return np.array([value or "" for value in values] or [""] * num, dtype=object)

    return Columns(
        names[dataset.labels(split)],
        dataset.sources(split),
        dataset.groups(split),
        texts(dataset.subjects(split)),
        texts([row.sequence for row in scan]),
        texts([row.plane for row in scan]),
        texts([row.volume for row in scan]),
        np.array([row.position_mm for row in scan] or [0.0] * num),
    )


def subject_counts(dataset: Dataset) -> list[dict[str, Any]]:
    """Slices, volumes and split of each known subject, the one with most slices first."""
    found: list[dict[str, Any]] = []
    for split in SPLITS:
        rows = columns(dataset, split)
        for subject, num in zip(*np.unique(rows.subjects.astype(str), return_counts=True), strict=True):
            if subject:
                volumes = sorted(set(rows.volumes[rows.subjects == subject].tolist()) - {""})
                found.append({"subject": str(subject), "split": split, "num": int(num), "volumes": volumes})
    return sorted(found, key=lambda row: (-row["num"], row["subject"]))


def duplicate_groups(dataset: Dataset) -> list[tuple[str, int, int]]:
    """(split, group, slices) of all groups of more than one slice, the largest first."""
    groups: list[tuple[str, int, int]] = []
    for split in SPLITS:
        numbers, counts = np.unique(columns(dataset, split).groups, return_counts=True)
        groups += [(split, int(n), int(count)) for n, count in zip(numbers, counts, strict=True) if count > 1]
    return sorted(groups, key=lambda group: -group[2])


def _group(dataset: Dataset, split: str, number: int, count: int) -> dict[str, Any]:
    rows = columns(dataset, split)
    members = np.flatnonzero(rows.groups == number)
    return {
        "split": split,
        "count": count,
        "labels": sorted(set(rows.labels[members].tolist())),
        "slices": [_slice(split, rows, index) for index in members[:_SHOWN_OF_GROUP].tolist()],
    }


def _slice(split: str, rows: Columns, index: int) -> dict[str, Any]:
    caption = f"{rows.positions[index]:g} mm" if rows.volumes[index] else rows.labels[index]
    found = {"split": split, "index": index, "label": rows.labels[index], "source": rows.sources[index]}
    return found | {"caption": caption, "volume": rows.volumes[index]}
