"""The audit of a version: verdict, controls, curves, and the flagged pairs, which people confirm or reject."""

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, ValidationError

from lwddpm.audit.page import HTML, PICTURES
from lwddpm.audit.result import FILE, AuditResult, FlaggedPair, MixedControl
from lwddpm.errors import LwddpmError
from lwddpm.kinds.saved_model import asked_of, mark_of
from lwddpm.marks.edited import pixels_sha256
from lwddpm.marks.mark import NOTICE, Mark
from lwddpm.release import confirmations
from lwddpm.release.confirmations import Decided, Decision
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.training.checkpoint import read_saved_model
from lwddpm.training.stored_presets import words_of
from lwddpm_board.dataset import columns, open_known
from lwddpm_board.pages import number, render
from lwddpm_board.pictures import png
from lwddpm_board.registry import ModelName, Number, find, model_folder
from lwddpm_board.runs import Store, experiments
from lwddpm_board.stores import Missing, Stores

_FOLDER = "audit"  # of a run's artifacts
_KEPT, _KEPT_S = 8, 3600
_RUNS = 200
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


@dataclass(frozen=True)
class Audited:
    """An audit that is stored with a version.

    Attributes:
        sha256: of its file.
        run_id: of the run that made it; empty: that is gone.
        pictures: of the flagged slices, in the order of `result.flagged`, uint8 [N, S, S]; None: not kept.
        marks: one for each flagged pair; None: the model's files are gone.
    """

    result: AuditResult
    sha256: str
    run_id: str
    pictures: np.ndarray | None
    marks: tuple[Mark, ...] | None

    def picture(self, index: int) -> tuple[np.ndarray, Mark | None]:
        """A flagged slice and its mark.

        Raises:
            Missing: it is not flagged, or no pictures were kept.
        """
        at = next((at for at, pair in enumerate(self.result.flagged) if pair.index == index), None)
        if at is None or self.pictures is None:
            raise Missing(f"no picture of a flagged slice {index} was kept")
        return self.pictures[at], self.marks[at] if self.marks is not None else None


class Audits:
    """The audits that visitors look at, the newest ones: their files are read once."""

    def __init__(self) -> None:
        self._all: OrderedDict[tuple[str, int, str], Audited] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, stores: Stores, version: RegisteredVersion) -> Audited:
        """The audit that is stored with a version now.

        Raises:
            Missing: there is none.
        """
        audit = confirmations.audit_of(version)
        if audit is None:
            raise Missing(f"no audit is stored with {version.name} version {version.version}, or one of another format")
        result, text = audit
        sha256 = hashlib.sha256(text).hexdigest()
        key = (version.name, version.version, sha256)
        found = self._all.get(key)
        if found is None or not found.run_id:
            run_id = _run_of(stores, result)
            found = Audited(result, sha256, run_id, _pictures(stores, run_id, result), _marks(stores, version, result))
        with self._lock:
            self._all[key] = found
            self._all.move_to_end(key)
            while len(self._all) > _KEPT:
                self._all.popitem(last=False)
        return found

    def get(self, stores: Stores, version: RegisteredVersion, sha256: str) -> Audited:
        """The same, if it is still the one with this hash.

        Raises:
            Missing: it was replaced.
        """
        found = self._all.get((version.name, version.version, sha256)) or self.of(stores, version)
        if found.sha256 != sha256:
            raise Missing("this audit has been replaced by another: reload the page")
        return found


@router.get("/registry/{name}/{number}/audit")
def audit_page(request: Request, stores: Store, name: ModelName, number: Number) -> Response:
    version = find(stores, f"{name}/{number}")
    audited = _audits(request).of(stores, version)
    result, made = audited.result, confirmations.decisions(version, audited.result)
    return render(
        request, "audit.html", version=version, audited=audited, result=result, html=f"{_FOLDER}/{HTML}",
        drawn_with=words_of(result.sampling), mixtures=_mixtures(result),
        planted=sorted({control.planted for control in result.controls}),
        growth=_growth(result), pairs=_pairs(stores, version, audited, made), held_out=_held_out(stores, result),
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


def _run_of(stores: Stores, result: AuditResult) -> str:
    """The newest run that has this very audit among its artifacts; empty where there is none."""
    ids = experiments(stores.client)
    runs = stores.client.search_runs(
        ids, "tags.`lwddpm.kind` = 'audit'", max_results=_RUNS, order_by=["attributes.start_time DESC"]
    )
    for run in runs:
        text = stores.text(run.info.run_id, f"{_FOLDER}/{FILE}")
        try:
            if text and AuditResult.model_validate_json(text) == result:
                return str(run.info.run_id)
        except ValidationError:  # of another version of the platform
            continue
    return ""


def _pictures(stores: Stores, run_id: str, result: AuditResult) -> np.ndarray | None:
    try:
        content = stores.file(run_id, f"{_FOLDER}/{PICTURES}") if run_id else b""
        pictures = np.load(io.BytesIO(content), allow_pickle=False)
    except (Missing, ValueError, EOFError):  # of an earlier version of the platform, or damaged
        return None
    fits = pictures.dtype == np.uint8 and pictures.ndim == 3 and len(pictures) == len(result.flagged)
    return pictures if fits else None


def _marks(stores: Stores, version: RegisteredVersion, result: AuditResult) -> tuple[Mark, ...] | None:
    """By which `lwddpm verify` draws each flagged slice again."""
    drawn = result.record("copied_share")
    try:
        folder = model_folder(stores, version)
    except LwddpmError:  # its files are gone
        return None
    saved, numbers = read_saved_model(folder), [pair.index for pair in result.flagged]
    uri, count = f"models:/{version.name}/{version.version}", max([drawn.n if drawn is not None else 1, *numbers])
    first = mark_of(uri, folder, saved, result.sampling, count)
    first = first.model_copy(update={"drawn_at": datetime.fromisoformat(result.date)})
    asked = asked_of(result.sampling, saved, numbers)
    return tuple(
        first.model_copy(update={"index": index, "conditions": values})
        for index, values in zip(numbers, asked, strict=True)
    )


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
