"""The audit of a version: verdict, controls, curves, what its slices are good for, and the flagged pairs, which people
confirm or reject."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from lwddpm.audit.page import HTML
from lwddpm.audit.result import AuditResult, FlaggedPair, MixedControl
from lwddpm.errors import LwddpmError
from lwddpm.marks.edited import pixels_sha256
from lwddpm.marks.mark import NOTICE
from lwddpm.release import confirmations
from lwddpm.release.confirmations import Decided, Decision
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.training.stored_presets import words_of
from lwddpm_board.audit_utility import not_measured, of_learners
from lwddpm_board.audits import FOLDER, Audited, Audits
from lwddpm_board.dataset import columns, open_known
from lwddpm_board.pages import number, render
from lwddpm_board.pictures import png
from lwddpm_board.registry import ModelName, Number, find
from lwddpm_board.runs import Store
from lwddpm_board.stores import Stores

_KEPT_S = 3600
_HELD_OUT = ("validation", "test")

router = APIRouter()
Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]


class Judgement(BaseModel):
    """What somebody says of a flagged pair; `audit` is the SHA-256 of the audit that they look at."""

    name: Annotated[str, Field(max_length=250)]
    version: Annotated[int, Field(ge=1)]
    audit: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    index: Annotated[int, Field(ge=0)]
    decision: Decision
    by: Annotated[str, Field(min_length=1, max_length=100)]


@router.get("/registry/{name}/{number}/audit")
def audit_page(request: Request, stores: Store, name: ModelName, number: Number) -> Response:
    version = find(stores, f"{name}/{number}")
    audited = _audits(request).of(stores, version)
    result, made = audited.result, confirmations.decisions(version, audited.result)
    return render(
        request, "audit.html", version=version, audited=audited, result=result, html=f"{FOLDER}/{HTML}",
        drawn_with=words_of(result.sampling), mixtures=_mixtures(result),
        planted=sorted({control.planted for control in result.controls}),
        growth=_growth(result), learners=of_learners(result.utility) if result.utility else [],
        not_measured=not_measured(audited),
        pairs=_pairs(stores, version, audited, made), held_out=_held_out(stores, result),
    )  # fmt: skip


@router.get("/registry/{name}/{number}/audits/{sha256}/{index}.png")
def flagged_picture(
    request: Request, stores: Store, name: ModelName, number: Number, sha256: Sha256, index: Annotated[int, Path(ge=0)]
) -> Response:
    """A slice that the audit flagged, with its mark."""
    audited = _audits(request).get(stores, find(stores, f"{name}/{number}"), sha256)
    image, mark = audited.picture(index)
    return png(image, keep_s=_KEPT_S, mark=mark, note=f"{NOTICE}; drawn by models:/{name}/{number}")


@router.post("/api/registry/judge")
def judge(request: Request, stores: Store, wanted: Judgement) -> JSONResponse:
    """Keep what somebody says of a flagged pair, as an entry of the model's log."""
    version = find(stores, f"{wanted.name}/{wanted.version}")
    audited = _audits(request).get(stores, version, wanted.audit)
    pixels = pixels_sha256(audited.picture(wanted.index)[0])
    entry = confirmations.decide(
        version, audited.result, wanted.audit, wanted.index, wanted.decision, wanted.by.strip(), pixels
    )
    return JSONResponse({"decision": wanted.decision, "by": entry["by"], "at": entry["at"], "entry": entry["number"]})


def _mixtures(result: AuditResult) -> list[tuple[str, list[MixedControl]]]:
    """(kind of planted copy, controls by the share that is planted)."""
    kinds = dict.fromkeys(control.kind for control in result.controls)
    return [
        (kind, sorted((one for one in result.controls if one.kind == kind), key=lambda one: one.planted))
        for kind in kinds
    ]


def _growth(result: AuditResult) -> list[dict[str, Any]]:
    """Curves by the number of slices drawn: flagged, training slices reproduced, false alarms that are expected."""
    alarms = result.record("false_alarm_share")
    curves = [
        {"name": "slices flagged", "look": "a", "points": [(drawn, flagged) for drawn, flagged, _ in result.growth]},
        {
            "name": "training slices reproduced",
            "look": "b",
            "points": [(drawn, num) for drawn, _, num in result.growth],
        },
    ]
    if alarms is not None:
        expected = [(drawn, drawn * alarms.value) for drawn, _, _ in result.growth]
        curves.append({"name": "false alarms expected", "look": "pale", "points": expected})
    return curves


def _pairs(
    stores: Stores, version: RegisteredVersion, audited: Audited, made: dict[int, Decided]
) -> list[dict[str, Any]]:
    """What the page shows of each flagged pair."""
    real = _addresses(stores, audited.result, ("train",))
    base = f"/registry/{version.name}/{version.version}/audits/{audited.sha256}"
    return [
        _about(pair)
        | {
            "drawn": f"{base}/{pair.index}.png" if audited.pictures is not None else None,
            "training": real.get(pair.source),
            "decision": made[pair.index].decision if pair.index in made else "open",
            "by": made[pair.index].by if pair.index in made else "",
            "at": made[pair.index].at if pair.index in made else "",
        }
        for pair in audited.result.flagged
    ]


def _held_out(stores: Stores, result: AuditResult) -> list[dict[str, Any]]:
    """Real held-out slices that the rule flags, each beside its training slice."""
    real = _addresses(stores, result, ("train", *_HELD_OUT))
    return [
        _about(pair) | {"name": pair.name, "drawn": real.get(pair.name or ""), "training": real.get(pair.source)}
        for pair in result.held_out_alarms
    ]


def _about(pair: FlaggedPair) -> dict[str, Any]:
    return {
        "index": pair.index, "source": pair.source, "subject": pair.subject, "moved": pair.moved,
        "correlation": number(pair.correlation), "features": number(pair.features), "by_what": " and ".join(pair.by),
    }  # fmt: skip


def _addresses(stores: Stores, result: AuditResult, splits: tuple[str, ...]) -> dict[str, str]:
    """Source of a real slice -> address of its picture; empty where the dataset is not at hand."""
    try:
        dataset = open_known(stores, result.dataset)
    except LwddpmError:
        return {}
    return {
        source: f"/datasets/{dataset.version}/{split}/{row}.png"
        for split in splits
        for row, source in enumerate(columns(dataset, split).sources)
    }


def _audits(request: Request) -> Audits:
    audits: Audits = request.app.state.audits
    return audits
