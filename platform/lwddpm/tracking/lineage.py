"""Lineage backwards: which datasets hold somebody's slices, and which runs, versions and samples follow from these.

Datasets are those that runs of the tracking store name, those in ./datasets, and those that are given. Sample sets
are folders of `lwddpm sample`, by the dataset version that their `samples.json` names.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from lwddpm.data.lookup import HeldSlice, entries_held, is_hashed
from lwddpm.data.manifest import SPLITS
from lwddpm.data.pseudonyms import Pseudonyms
from lwddpm.data.store import Dataset, open_dataset
from lwddpm.data.withdrawn import Withdrawals
from lwddpm.errors import DataError
from lwddpm.tracking.registry import WITHDRAWN, withdrawn_in

DATASET_VERSION, DATASET_PATH = "lwddpm.dataset_version", "lwddpm.dataset_path"
ARTIFACTS = ("mlruns", "mlartifacts")  # folders of MLflow, which hold no sample sets
_RUNS_AT_ONCE = 1000
_TRAIN_NOTHING = ("audit", "evaluate", "prepare", "sample", "tradeoff")  # kinds of runs
_VERSION = re.compile("[0-9a-f]{1,64}")

Find = Callable[[Dataset], Iterable[HeldSlice]]


@dataclass
class Known:
    """A dataset that something names: its version, where it is said to lie, and the runs that used it."""

    version: str
    paths: list[str]
    runs: list[Run] = field(default_factory=list)

    def open(self) -> Dataset:
        """The dataset.

        Raises:
            DataError: none of this version lies at any of its places.
        """
        reasons = []
        for path in self.paths:
            try:
                dataset = open_dataset(path)
            except DataError as error:
                reasons.append(str(error))
                continue
            if dataset.version == self.version:
                return dataset
            reasons.append(f"{path}: has been prepared anew, and holds version {dataset.version} now")
        raise DataError("; ".join(reasons))


def trace(find: Find, datasets: Sequence[str] = (), samples: Sequence[str] = (".",)) -> dict[str, Any]:
    """What holds the slices that `find` finds, and what was made from it.

    Args:
        find: finds them in one dataset.
        datasets: folders of further datasets.
        samples: folders that are looked through for sample sets.

    Returns:
        `datasets` that hold some, with their slices by split; `runs` that used one of these, and `versions` of models
        (`trained_on`: whether the training split holds some); `samples` drawn from these; `not_looked_at`: datasets
        that cannot be read, with the reason; `searched`: number of datasets that were; `hashed`: how many of those
        name subjects and files by hashes.
    """
    holding: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    versions: list[dict[str, Any]] = []
    not_looked_at: list[dict[str, str]] = []
    searched = hashed = 0
    for known in _known(datasets):
        try:
            dataset = known.open()
            held = list(find(dataset))
        except DataError as error:
            not_looked_at.append({"version": known.version, "reason": str(error)})
            continue
        searched += 1
        hashed += is_hashed(dataset.manifest)
        if not held:
            continue
        splits = {split: sum(slice_.split == split for slice_ in held) for split in SPLITS}
        holding.append(
            {
                "path": dataset.path,
                "version": known.version,
                "splits": splits,
                "subjects": sorted({slice_.subject for slice_ in held} - {None}),
                "slices": [slice_._asdict() for slice_ in held],
            }
        )
        trained_on = splits["train"] > 0
        runs += [_run(run, known.version, trained_on) for run in known.runs]
        versions += _versions(known.version, trained_on)
    return {
        "datasets": holding,
        "runs": runs,
        "versions": versions,
        "samples": list(_sample_sets({each["version"] for each in holding}, samples)),
        "not_looked_at": not_looked_at,
        "searched": searched,
        "hashed": hashed,
    }


def made_from(dataset: str, samples: Sequence[str] = (".",)) -> dict[str, Any]:
    """What was made from a dataset, by its version: `runs`, `versions` and `samples` as `trace` has them."""
    return {
        "runs": [_run(run, dataset, True) for run in _runs(dataset)],
        "versions": list(_versions(dataset, True)),
        "samples": list(_sample_sets({dataset}, samples)),
    }


def mark_withdrawn(withdrawals: Withdrawals, pseudonyms: Pseudonyms, datasets: Sequence[str] = ()) -> dict[str, Any]:
    """Mark the registered versions that were trained on a dataset with slices of withdrawn subjects or files.

    A version of a dataset that was looked at and holds none, such as after an entry was taken back, loses its mark.

    Returns:
        `entries`: of the list; `datasets` that hold some, `versions` that are marked, each with how many entries;
        `cleared`: versions whose mark was removed; `not_looked_at`: see `trace`.
    """
    client = MlflowClient()
    result: dict[str, Any] = {
        "entries": len(withdrawals.lines), "datasets": [], "versions": [], "cleared": [], "not_looked_at": [],
    }  # fmt: skip
    for known in _known(datasets):
        try:
            dataset = known.open()
            held = entries_held(dataset, withdrawals.lines, pseudonyms)
        except DataError as error:
            result["not_looked_at"].append({"version": known.version, "reason": str(error)})
            continue
        if held:
            result["datasets"].append({"path": dataset.path, "version": known.version, "entries": len(held)})
        for stored in client.search_model_versions(f"tags.`{DATASET_VERSION}` = '{known.version}'"):
            uri = f"models:/{stored.name}/{stored.version}"
            if held:
                mark = {"entries": len(held), "at": datetime.now(UTC).isoformat(timespec="seconds")}
                client.set_model_version_tag(stored.name, str(stored.version), WITHDRAWN, json.dumps(mark))
                result["versions"].append({"uri": uri, "dataset": known.version, "entries": len(held)})
            elif WITHDRAWN in stored.tags:
                client.delete_model_version_tag(stored.name, str(stored.version), WITHDRAWN)
                result["cleared"].append(uri)
    return result


def _known(datasets: Sequence[str]) -> list[Known]:
    """Every dataset that a run, the working folder or the caller names, by version."""
    by_version: dict[str, Known] = {}

    def add(version: str, path: str) -> Known:
        known = by_version.setdefault(version, Known(version, []))
        if path and path not in known.paths:
            known.paths.append(path)
        return known

    for path in [*datasets, *sorted(str(file.parent) for file in Path("datasets").glob("*/dataset.json"))]:
        add(open_dataset(path).version, path)
    for run in _runs():
        tags = run.data.tags
        if not _VERSION.fullmatch(tags[DATASET_VERSION]):
            continue  # not by this platform
        add(tags[DATASET_VERSION], tags.get(DATASET_PATH, "")).runs.append(run)
    return list(by_version.values())


def _runs(dataset: str = "") -> Iterator[Run]:
    """The runs that used a dataset, of this version or of any."""
    client = MlflowClient()
    query = f"tags.`{DATASET_VERSION}` = '{dataset}'" if dataset else f"tags.`{DATASET_VERSION}` IS NOT NULL"
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    token: str | None = ""
    while experiments and token is not None:
        page = client.search_runs(experiments, query, max_results=_RUNS_AT_ONCE, page_token=token or None)
        yield from page
        token = page.token or None


def _run(run: Run, dataset: str, trained_on: bool) -> dict[str, Any]:
    kind = run.data.tags.get("lwddpm.kind", "")
    return {
        "run_id": run.info.run_id, "name": run.info.run_name, "kind": kind, "status": run.info.status,
        "dataset": dataset, "trained_on": trained_on and kind not in _TRAIN_NOTHING,
    }  # fmt: skip


def _versions(dataset: str, trained_on: bool) -> Iterator[dict[str, Any]]:
    client = MlflowClient()
    for stored in client.search_model_versions(f"tags.`{DATASET_VERSION}` = '{dataset}'"):
        full = client.get_model_version(stored.name, str(stored.version))  # a search does not return aliases
        yield {
            "uri": f"models:/{stored.name}/{stored.version}", "aliases": sorted(full.aliases), "run_id": stored.run_id,
            "dataset": dataset, "trained_on": trained_on, "withdrawn": withdrawn_in(full.tags),
        }  # fmt: skip


def _sample_sets(datasets: set[str], folders: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Folders of `lwddpm sample` below some folders, drawn from models of these datasets."""
    seen: set[Path] = set()
    for top in folders if datasets else ():
        for folder, below, files in os.walk(top):
            below[:] = sorted(name for name in below if not name.startswith(".") and name not in ARTIFACTS)
            place = Path(folder).absolute()
            if "samples.json" not in files or place in seen:
                continue
            seen.add(place)
            try:
                about = json.loads((place / "samples.json").read_bytes())
                dataset = about["model"]["dataset_version"]
                found = {
                    "path": str(place), "drawn_by": about.get("drawn_by") or about["model_uri"],
                    "count": int(about["count"]), "dataset": dataset,
                }  # fmt: skip
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # of another program, or damaged
            if dataset in datasets:
                yield found
