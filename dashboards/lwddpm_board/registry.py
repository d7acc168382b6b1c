"""The registry: every version with what it scored and where it comes from; comparing, promoting, downloading."""

import getpass
import json
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, Field

from lwddpm.config import CLASS_MEASURES
from lwddpm.errors import ConfigError, LwddpmError
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.release import alerts, dossier, promotion, wording
from lwddpm.release.log_check import check_log
from lwddpm.release.policy import policy_in_force
from lwddpm.release.verdict import APPROVAL, Verdict, judge
from lwddpm.tracking import registry, registry_log
from lwddpm.tracking.chain import Entry
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm_board.pages import grouped, quality, render
from lwddpm_board.reader_study import judged
from lwddpm_board.runs import REPORT_POLICY, Store, Summary, differences, evaluation
from lwddpm_board.stores import Missing, NothingYet, Stores

router = APIRouter()
ModelName = Annotated[str, Path(max_length=250)]
Number = Annotated[int, Path(ge=1)]
_MODEL_FILES = ("model.safetensors", "config.json")
_COMPARED = 16


class Promotion(BaseModel):
    """What the page sends to move an alias."""

    name: str
    version: int
    alias: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,49}$")] = registry.CHAMPION
    reason: Annotated[str, Field(min_length=3, max_length=1000)]
    by: Annotated[str, Field(min_length=1, max_length=100)]
    approver: Annotated[str, Field(max_length=100)] = ""


@router.get("/registry")
def registry_page(request: Request, stores: Store) -> Response:
    versions = all_versions(stores)
    models: dict[str, list[RegisteredVersion]] = {}
    for version in versions:
        models.setdefault(version.name, []).append(version)
    return render(request, "registry.html", models=models)


@router.get("/registry/compare")
def compare_versions(request: Request, stores: Store, version: Annotated[list[str], Query(max_length=50)]) -> Response:
    references = list(dict.fromkeys(version))
    if len(references) != 2:
        raise Missing("two different versions can be compared: choose two in the registry")
    first, second = (find(stores, reference) for reference in references)
    results = [evaluation(stores, one.run_id) for one in (first, second)]
    return render(
        request, "versions.html", both=(first, second), count=_COMPARED,
        results=results, scored=_scored((first, second), results), by_class=_by_class(results),
        settings=differences(*(stores.client.get_run(one.run_id).data.params for one in (first, second))),
    )  # fmt: skip


class Score(NamedTuple):
    """One figure of a version; None where it is not known."""

    value: float
    floor: float | None
    interval: tuple[float, float] | None
    n: int | None


def _scored(
    versions: Iterable[RegisteredVersion], results: Iterable[EvaluationResult | None]
) -> list[tuple[str, list[tuple[str, list[Score | None]]]]]:
    """(heading, metrics) in groups; a metric is its name with the figures of all versions that have it."""
    scores = []
    for version, result in zip(versions, results, strict=True):
        logged = {
            name: Score(value, floor, None, version.n.get(f"eval/{name}"))
            for name, value, floor in quality(version.metrics)
        }
        records = result.records if result else ()
        scores.append(logged | {one.name: Score(one.value, one.floor, one.interval, one.n) for one in records})
    names = dict.fromkeys(name for of_version in scores for name in of_version)
    rows = [(name, [of_version.get(name) for of_version in scores]) for name in names]
    return grouped(rows, of=lambda row: row[0])


class ClassRow(NamedTuple):
    """One class: a figure of each of two versions; None where it is not known.

    Attributes:
        real: the same of real slices; two where the versions have floors of different n.
    """

    name: str
    values: tuple[float | None, ...]
    real: tuple[float, ...]


def _by_class(results: Iterable[EvaluationResult | None]) -> list[tuple[str, list[ClassRow]]]:
    """(metric, classes) of all figures that either evaluation tells by class, those of what was asked for first."""
    told = [{} if result is None else _told_by_class(result) for result in results]
    known = dict.fromkeys(name for of_one in told for name in of_one)
    names = [name for name in CLASS_MEASURES if name in known] + [name for name in known if name not in CLASS_MEASURES]
    found = []
    for name in names:
        figures = [of_one.get(name, ({}, {})) for of_one in told]
        classes = dict.fromkeys(part for values, _ in figures for part in values)
        rows = [
            ClassRow(
                part,
                tuple(values.get(part) for values, _ in figures),
                tuple(dict.fromkeys(floors[part] for _, floors in figures if part in floors)),
            )
            for part in classes
        ]
        found.append((name, rows))
    return found


def _told_by_class(result: EvaluationResult) -> dict[str, tuple[dict[str, float], dict[str, float]]]:
    """Metric -> its values and its floors by class."""
    told = {
        record.name: (record.parts, record.floor_parts)
        for record in result.records
        if record.parts and record.name != "out_of_band"  # whose parts are sides of a band
    }
    values, floors = told.get("obedience_lite0", ({}, {}))
    if values and not floors and result.confusion is not None:  # of an earlier version: what its judge recognises
        confusion = result.confusion
        told["obedience_lite0"] = values, {
            name: confusion.real[row][row] for row, name in enumerate(confusion.classes) if name in values
        }
    return told


@router.post("/api/registry/promote")
def promote(stores: Store, wanted: Promotion) -> JSONResponse:
    """Through the gate, as `lwddpm models promote`; an override is left to the command line."""
    version = find(stores, f"{wanted.name}/{wanted.version}")
    uri, approver = f"{version.name}/{version.version}", wanted.approver.strip() or None
    result = promotion.promote(uri, wanted.reason, wanted.alias, wanted.by, approver)
    alerts.promoted(result)
    if not result["promoted"]:
        refused = [one for one in result["gate"]["findings"] if one["status"] != "passed"]
        why = "; ".join(f"{one['rule']}: {one['status']}, {one['reason']}" for one in refused)
        return JSONResponse({"error": f"the gate refuses it: {why}", "gate": result["gate"]}, 409)
    return JSONResponse(result)


@router.get("/registry/{name}/log")
def log_page(request: Request, stores: Store, name: ModelName) -> Response:
    entries, problems = _log(stores, name)
    return render(
        request, "registry_log.html", name=name, entries=entries[::-1], problems=problems, told=wording.told,
        signed=sum(entry.get("signature") is not None for entry in entries),
    )  # fmt: skip


@router.get("/registry/{name}/log.jsonl")
def log_export(stores: Store, name: ModelName) -> Response:
    """What `lwddpm models verify-log NAME FILE` compares with."""
    entries, _ = _log(stores, name)
    text = "".join(json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n" for entry in entries)
    headers = {"content-disposition": f'attachment; filename="{_file_name(name, 0).removesuffix("-v0")}.log.jsonl"'}
    return PlainTextResponse(text, headers=headers, media_type="application/x-ndjson")


def _log(stores: Stores, name: str) -> tuple[list[Entry], list[str]]:
    _ = stores.client  # connects
    try:
        result = check_log(name, None, [])
        return registry_log.of_registered(name), result["problems"]
    except ConfigError:
        raise Missing(f"the registry has no {name}") from None


@router.get("/registry/{name}/{number}")
def version_page(request: Request, stores: Store, name: ModelName, number: Number) -> Response:
    version = find(stores, f"{name}/{number}")
    others = [other for other in all_versions(stores) if other.name == name and other.version != number]
    return render(
        request, "version.html", version=version, run=_run_of(stores, version),
        result=_evaluation(stores, version), gate=_gate(version),
        history=registry.promotions(name)[::-1], others=others, studies=judged(stores, name, number),
        user=getpass.getuser(), champion=registry.CHAMPION, override=wording.overridden(version.tags),
        audit=_newest_audit(version),
    )  # fmt: skip


def _newest_audit(version: RegisteredVersion) -> dict[str, str] | None:
    """What the log says of the newest audit of a version."""
    of_version = [
        entry["data"]
        for entry in registry_log.entries(version.name)
        if entry.get("kind") == "audit" and entry.get("version") == version.version
    ]
    return {"verdict": str(of_version[-1].get("verdict", "unknown"))} if of_version else None


def _evaluation(stores: Stores, version: RegisteredVersion) -> EvaluationResult | None:
    """What the run of a version has measured; of a version that was given a prior since, that was another model."""
    return None if registry.CALIBRATED_FROM in version.tags else evaluation(stores, version.run_id)


class Gate(NamedTuple):
    """What stands beside the promote button.

    Attributes:
        verdict: None: the model has no policy, or its policy cannot be told.
        problem: why it cannot be told; nothing is promoted then.
        blocked: whether a promotion would be refused whoever approves.
        approval: whether an approver must be named.
    """

    verdict: Verdict | None
    problem: str
    blocked: bool
    approval: bool


def _gate(version: RegisteredVersion) -> Gate:
    try:
        policy = policy_in_force(version.name)
        if policy is None:
            return Gate(None, "", False, False)
        verdict = judge(policy, version, promotion.approver_of(version))
    except LwddpmError as error:
        return Gate(None, str(error), True, False)
    blocked = any(finding.status != "passed" and finding.rule != APPROVAL for finding in verdict.findings)
    return Gate(verdict, "", blocked, policy.approver)


@router.get("/registry/{name}/{number}/dossier.html")
def dossier_page(stores: Store, name: ModelName, number: Number) -> Response:
    """The dossier as `lwddpm models dossier` writes it: a page with styles of its own."""
    text = dossier.page(dossier.contents(find(stores, f"{name}/{number}")))
    return HTMLResponse(text, headers={"content-security-policy": REPORT_POLICY})


@router.get("/registry/{name}/{number}/card.md")
def card(stores: Store, name: ModelName, number: Number) -> Response:
    text = find(stores, f"{name}/{number}").card
    headers = {"content-disposition": f'attachment; filename="{_file_name(name, number)}.md"'}
    return PlainTextResponse(text, headers=headers, media_type="text/markdown")


@router.get("/registry/{name}/{number}/files/{file}")
def model_file(stores: Store, name: ModelName, number: Number, file: str) -> Response:
    """Weights or config of a version."""
    if file not in _MODEL_FILES:
        raise Missing(f"a model has {' and '.join(_MODEL_FILES)}")
    folder = model_folder(stores, find(stores, f"{name}/{number}"))
    return FileResponse(folder / file, filename=f"{_file_name(name, number)}-{file}")


def _file_name(name: str, number: int) -> str:
    return f"{''.join(c if c.isascii() and (c.isalnum() or c in '._-') else '_' for c in name)}-v{number}"


def all_versions(stores: Stores) -> list[RegisteredVersion]:
    """All versions of all models, newest first.

    Raises:
        NothingYet: the registry is empty.
    """
    _ = stores.client  # connects: the registry's functions use the store that this process is pointed at
    versions = registry.list_versions()
    if not versions:
        raise NothingYet("no model is registered yet")
    return versions


def find(stores: Stores, reference: str) -> RegisteredVersion:
    """The version that `NAME/VERSION` names."""
    _ = stores.client  # connects: the registry's functions use the store that this process is pointed at
    try:
        return registry.find_version(reference)
    except ConfigError:
        raise Missing(f"the registry has no {reference}") from None


def _run_of(stores: Stores, version: RegisteredVersion) -> Summary | None:
    try:
        return Summary.of(stores.client.get_run(version.run_id))
    except MlflowException:  # deleted since
        return None


def model_folder(stores: Stores, version: RegisteredVersion) -> FilePath:
    """A folder with the files of a version, fetched once.

    Raises:
        CheckpointError: its files are gone.
    """
    return registry.fetch_model(f"models:/{version.name}/{version.version}", stores.workspace / "models")
