"""The registry: every version of every model, what it scored and where it comes from; the log of a model."""

import json
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import PlainTextResponse, Response

from lwddpm.errors import ConfigError
from lwddpm.release import wording
from lwddpm.release.log_check import check_log
from lwddpm.tracking import model_files, registry, registry_log
from lwddpm.tracking.chain import Entry
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm_board.pages import render
from lwddpm_board.runs import Store
from lwddpm_board.stores import Missing, NothingYet, Stores

router = APIRouter()
ModelName = Annotated[str, Path(max_length=250)]
Number = Annotated[int, Path(ge=1)]


@router.get("/registry")
def registry_page(request: Request, stores: Store) -> Response:
    versions = all_versions(stores)
    models: dict[str, list[RegisteredVersion]] = {}
    for version in versions:
        models.setdefault(version.name, []).append(version)
    return render(request, "registry.html", models=models)


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
    headers = {"content-disposition": f'attachment; filename="{file_name(name, 0).removesuffix("-v0")}.log.jsonl"'}
    return PlainTextResponse(text, headers=headers, media_type="application/x-ndjson")


def _log(stores: Stores, name: str) -> tuple[list[Entry], list[str]]:
    _ = stores.client  # connects
    try:
        result = check_log(name, None, [])
        return registry_log.of_registered(name), result["problems"]
    except ConfigError:
        raise Missing(f"the registry has no {name}") from None


def file_name(name: str, number: int) -> str:
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


def model_folder(stores: Stores, version: RegisteredVersion) -> FilePath:
    """A folder with the files of a version, fetched once.

    Raises:
        CheckpointError: its files are gone.
    """
    return model_files.fetch_model(f"models:/{version.name}/{version.version}", stores.workspace / "models")
