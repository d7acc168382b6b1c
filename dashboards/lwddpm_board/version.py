"""One version: what it scored, its gate, promotion, history, and the files that it consists of."""

import getpass
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, Field

from lwddpm.errors import LwddpmError
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.release import alerts, dossier, promotion, wording
from lwddpm.release.policy import policy_in_force
from lwddpm.release.verdict import APPROVAL, Verdict, judge
from lwddpm.tracking import registry, registry_log
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm_board.pages import render
from lwddpm_board.reader_outcome import judged
from lwddpm_board.registry import ModelName, Number, all_versions, file_name, find, model_folder
from lwddpm_board.runs import REPORT_POLICY, Store, Summary, evaluation
from lwddpm_board.stores import Missing, Stores

router = APIRouter()
_MODEL_FILES = ("model.safetensors", "config.json")


class Promotion(BaseModel):
    """What the page sends to move an alias."""

    name: str
    version: int
    alias: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,49}$")] = registry.CHAMPION
    reason: Annotated[str, Field(min_length=3, max_length=1000)]
    by: Annotated[str, Field(min_length=1, max_length=100)]
    approver: Annotated[str, Field(max_length=100)] = ""


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


def _run_of(stores: Stores, version: RegisteredVersion) -> Summary | None:
    try:
        return Summary.of(stores.client.get_run(version.run_id))
    except MlflowException:  # deleted since
        return None


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
    headers = {"content-disposition": f'attachment; filename="{file_name(name, number)}.md"'}
    return PlainTextResponse(text, headers=headers, media_type="text/markdown")


@router.get("/registry/{name}/{number}/files/{file}")
def model_file(stores: Store, name: ModelName, number: Number, file: str) -> Response:
    """Weights or config of a version."""
    if file not in _MODEL_FILES:
        raise Missing(f"a model has {' and '.join(_MODEL_FILES)}")
    folder = model_folder(stores, find(stores, f"{name}/{number}"))
    return FileResponse(folder / file, filename=f"{file_name(name, number)}-{file}")
