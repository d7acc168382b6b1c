"""Runs: a list to search, one run as it trains, two runs side by side."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from pydantic import ValidationError

from lwddpm.evaluation.result import EvaluationResult
from lwddpm.tracking.attachments import READER_EXPERIMENT
from lwddpm.tracking.registry_log import EXPERIMENT as LOG_EXPERIMENT
from lwddpm_board.curves import curve_names, read_curves
from lwddpm_board.pages import render
from lwddpm_board.stores import Missing, Stores

PAGE = 50
STATUSES = ("RUNNING", "FINISHED", "FAILED", "KILLED")
KINDS = ("train", "search", "compare", "evaluate", "tradeoff", "audit")
_TYPES = {
    "png": "image/png", "webp": "image/webp", "jpg": "image/jpeg", "json": "application/json",
    "md": "text/plain; charset=utf-8", "txt": "text/plain; charset=utf-8", "yaml": "text/plain; charset=utf-8",
    "csv": "text/csv; charset=utf-8", "html": "text/html; charset=utf-8",
}  # fmt: skip
# folders of artifacts with a page each: of a comparison, an audit, a measured trade of realism against diversity
_REPORTS = {"report": "report.html", "audit": "audit.html", "tradeoff": "tradeoff.html"}
_NO_JOBS = (READER_EXPERIMENT, LOG_EXPERIMENT)
# a report is somebody's HTML: shown with its own styles and pictures, without scripts, in an origin of its own
REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_UNQUOTED = re.compile(r"[^\w .:@/+-]")  # an underscore stands for any character
_EPOCH = re.compile(r"samples/epoch_([0-9.]+)\.png")

router = APIRouter()
RunId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


def stores_of(request: Request) -> Stores:
    stores: Stores = request.app.state.stores
    return stores


Store = Annotated[Stores, Depends(stores_of)]


@dataclass(frozen=True)
class Summary:
    """A run as a row of a list or the head of a page; times in milliseconds since 1970."""

    run_id: str
    name: str
    status: str
    kind: str
    study: str
    trial: str
    parent: str
    started: int | None
    seconds: float | None
    metrics: dict[str, float] = field(repr=False)
    params: dict[str, str] = field(repr=False)
    tags: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, run: Run) -> "Summary":
        info, tags = run.info, run.data.tags
        ended = None if info.end_time is None or info.start_time is None else (info.end_time - info.start_time) / 1000
        return cls(
            run_id=info.run_id,
            name=info.run_name or info.run_id[:8],
            status=info.status,
            kind=tags.get("lwddpm.kind", "–"),
            study=tags.get("lwddpm.search") or tags.get("lwddpm.study", ""),
            trial=tags.get("lwddpm.trial", ""),
            parent=tags.get("mlflow.parentRunId", ""),
            started=info.start_time,
            seconds=ended,
            metrics=dict(run.data.metrics),
            params=dict(run.data.params),
            tags={key: value for key, value in tags.items() if not key.startswith("mlflow.log-model")},
        )


def experiments(client: MlflowClient) -> list[str]:
    """Ids of the experiments that hold runs of jobs."""
    experiments = client.search_experiments()
    return [experiment.experiment_id for experiment in experiments if experiment.name not in _NO_JOBS]


def run_query(name: str, status: str, kind: str, parent: str, nested: bool) -> str:
    """MLflow's filter for the list. What visitors type stands within quotes and so holds none."""
    parts = []
    if name:
        parts.append(f"attributes.run_name ILIKE '%{_UNQUOTED.sub('_', name)}%'")
    if status:
        parts.append(f"attributes.status = '{status}'")
    if kind:
        parts.append(f"tags.`lwddpm.kind` = '{kind}'")
    if parent:
        parts.append(f"tags.`mlflow.parentRunId` = '{parent}'")
    elif not nested:
        parts.append("tags.`mlflow.parentRunId` IS NULL")
    return " and ".join(parts)


@router.get("/runs")
def runs_page(
    request: Request,
    stores: Store,
    name: Annotated[str, Query(max_length=100)] = "",
    status: Annotated[str, Query(pattern=f"^({'|'.join(STATUSES)})?$")] = "",
    kind: Annotated[str, Query(pattern=f"^({'|'.join(KINDS)})?$")] = "",
    parent: Annotated[str, Query(pattern="^([0-9a-f]{32})?$")] = "",
    nested: bool = False,
    after: Annotated[str, Query(max_length=300)] = "",
) -> Response:
    query = run_query(name, status, kind, parent, nested)
    ids = experiments(stores.client)
    runs = stores.client.search_runs(ids, query, max_results=PAGE, page_token=after or None) if ids else []
    chosen = {"name": name, "status": status, "kind": kind, "parent": parent, "nested": nested}
    if not runs and not after and not any(chosen.values()):
        return render(request, "empty.html", view="runs", why="MLflow holds no runs yet")
    rows = [Summary.of(run) for run in runs]
    above = Summary.of(stores.client.get_run(parent)) if parent else None
    return render(
        request, "runs.html", rows=rows, chosen=chosen, next=getattr(runs, "token", None), first=not after,
        statuses=STATUSES, kinds=KINDS, parent=above,
    )  # fmt: skip


@router.get("/runs/{run_id}")
def run_page(request: Request, stores: Store, run_id: RunId) -> Response:
    run = stores.client.get_run(run_id)
    listed = [file for folder in ("", *_REPORTS) for file in stores.listing(run_id, folder)]
    files = sorted(file.path for file in listed if not file.is_dir)
    reports = [path for path in files if path.endswith(tuple(_REPORTS.values()))]
    figures = [file.path for file in stores.listing(run_id, "figures") if file.path.endswith(".png")]
    table = stores.text(run_id, "evaluation/metrics.md")
    result = evaluation(stores, run_id)
    beneath = stores.client.search_runs([run.info.experiment_id], run_query("", "", "", run_id, True), max_results=1)
    return render(
        request, "run.html", run=Summary.of(run), files=files, reports=reports, figures=figures, table=table,
        result=result, choice=stores.text(run_id, "evaluation/choice.md"),
        beneath=bool(beneath),
        live=_live(stores, run), description=run.data.tags.get("mlflow.note.content", ""),
    )  # fmt: skip


def evaluation(stores: Stores, run_id: str) -> EvaluationResult | None:
    """What a run measured, with n, interval, extractor and floor; None where it evaluated nothing."""
    text = stores.text(run_id, "evaluation/metrics.json") if run_id else None
    try:
        return EvaluationResult.model_validate_json(text) if text else None
    except ValidationError:  # of another version of the platform
        return None


@router.get("/api/runs/{run_id}")
def run_now(stores: Store, run_id: RunId) -> JSONResponse:
    """What changes while a run goes on: status, latest numbers, curves, sample grids."""
    return JSONResponse(_live(stores, stores.client.get_run(run_id)))


def _live(stores: Stores, run: Run) -> dict[str, Any]:
    summary = Summary.of(run)
    curves = read_curves(stores.client, run, curve_names(run))
    step = max((points[-1][0] for points in curves.values() if points), default=None)
    return {
        "run_id": summary.run_id,
        "name": summary.name,
        "status": summary.status,
        "step": step,
        "progress": _progress(summary, step),
        "latest": {name: value if math.isfinite(value) else None for name, value in summary.metrics.items()},
        "curves": curves,
        "samples": samples(stores, summary.run_id),
    }


def _progress(run: Summary, step: int | None) -> float | None:
    """Share of the training that is done, in [0, 1]; None where nothing is logged, or nothing is trained."""
    for done, length in ((step, "max_steps"), (run.metrics.get("train/epoch"), "epochs")):
        total = run.params.get(f"training.{length}", "")
        if done is not None and total.isdigit():
            return min(1.0, done / int(total))
    return None


def samples(stores: Stores, run_id: str) -> list[dict[str, Any]]:
    """Sample grids of a run in order of epochs."""
    listed = [(_EPOCH.fullmatch(file.path), file.path) for file in stores.listing(run_id, "samples")]
    grids = [{"epoch": float(match[1]), "url": f"/runs/{run_id}/files/{path}"} for match, path in listed if match]
    return sorted(grids, key=lambda grid: grid["epoch"])


@router.get("/compare")
def compare_page(request: Request, stores: Store, run: Annotated[list[str], Query(max_length=50)]) -> Response:
    ids = list(dict.fromkeys(run))
    if len(ids) != 2 or not all(re.fullmatch("[0-9a-f]{32}", run_id) for run_id in ids):
        raise Missing("two different runs can be compared: choose two in the list of runs")
    both = [stores.client.get_run(run_id) for run_id in ids]
    first, second = (Summary.of(run) for run in both)
    return render(
        request, "compare.html", first=first, second=second, live=[_live(stores, run) for run in both],
        settings=differences(first.params, second.params),
        metrics=differences(_evaluated(first), _evaluated(second)),
    )  # fmt: skip


def _evaluated(run: Summary) -> dict[str, float]:
    return {name: value for name, value in run.metrics.items() if not name.startswith(("system/", "train/epoch"))}


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, Any, Any, bool]]:
    """(key, value in the first, value in the second, whether they differ) of all keys of either."""
    keys: Iterable[str] = sorted(first.keys() | second.keys())
    return [(key, first.get(key), second.get(key), first.get(key) != second.get(key)) for key in keys]


@router.get("/runs/{run_id}/files/{path:path}")
def run_file(stores: Store, run_id: RunId, path: str) -> Response:
    """A file of a run, in a type that cannot run as a page of ours."""
    stores.client.get_run(run_id)
    content = stores.file(run_id, path)
    ending = path.rpartition(".")[2].lower()
    headers = {"cache-control": "private, max-age=60"}
    if ending == "html":
        headers["content-security-policy"] = REPORT_POLICY
    elif ending not in _TYPES:
        headers["content-disposition"] = "attachment"
    return Response(content, headers=headers, media_type=_TYPES.get(ending, "application/octet-stream"))
