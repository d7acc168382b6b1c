"""Searches: every trial with its state and budget, what matters, and the best compromises."""

import math
from collections import Counter
from dataclasses import asdict
from functools import lru_cache
from typing import Annotated, Any

import optuna
from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from optuna.distributions import CategoricalDistribution

from lwddpm.addresses import public
from lwddpm.errors import ConfigError
from lwddpm.search.definition import DEFINITION
from lwddpm.search.ranking import importance, pareto_front, ranking
from lwddpm.search.space import decoded
from lwddpm.search.storage import check_storage, find_study, study_names
from lwddpm.search.trials import METRICS, TrialRecord, curve, records
from lwddpm_board.pages import render
from lwddpm_board.runs import RunId, Store, samples
from lwddpm_board.stores import Missing, NothingYet, Stores, Unreachable

router = APIRouter()
StudyName = Annotated[str, Path(max_length=200)]


@router.get("/searches")
def searches_page(request: Request, stores: Store) -> Response:
    studies = [summary(_study(stores, name)) for name in _names(stores)]
    if not studies:
        raise NothingYet(f"{public(stores.storage)} holds no studies yet")
    studies.sort(key=lambda study: study["started"] or 0, reverse=True)
    return render(request, "searches.html", studies=studies, storage=public(stores.storage))


@router.get("/searches/{name:path}")
def study_page(request: Request, stores: Store, name: StudyName) -> Response:
    study = _study(stores, name)
    return render(request, "study.html", study=summary(study), live=picture(study))


@router.get("/api/searches/{name:path}/importance")
def study_importance(stores: Store, name: StudyName) -> JSONResponse:
    """fANOVA takes a second and more: the page asks for it when the rest is there."""
    num_ranked = len(ranking(_study(stores, name)))
    return JSONResponse({"num_ranked": num_ranked, "shares": _importance(stores.storage, name, num_ranked)})


@router.get("/api/searches/{name:path}")
def study_now(stores: Store, name: StudyName) -> JSONResponse:
    return JSONResponse(picture(_study(stores, name)))


@router.get("/api/trials/{run_id}/samples")
def trial_samples(stores: Store, run_id: RunId) -> JSONResponse:
    """Sample grids of a trial's run."""
    return JSONResponse({"run_id": run_id, "samples": samples(stores, run_id)})


def _names(stores: Stores) -> list[str]:
    try:
        check_storage(stores.storage)
        return study_names(stores.storage)
    except ConfigError as error:
        raise Unreachable(str(error).removeprefix("search.storage: ")) from None


def _study(stores: Stores, name: str) -> optuna.Study:
    if name not in (known := _names(stores)):
        raise Missing(f"there is no study {name} in {public(stores.storage)}; it has {', '.join(known) or 'none'}")
    return find_study(stores.storage, name)


@lru_cache(maxsize=32)
def _importance(storage: str, name: str, num_ranked: int) -> dict[str, dict[str, float]]:
    return importance(find_study(storage, name))


def summary(study: optuna.Study) -> dict[str, Any]:
    """A study as a row of the list; `started` in milliseconds since 1970."""
    trials = records(study)
    starts = [trial.datetime_start for trial in study.get_trials(deepcopy=False) if trial.datetime_start]
    return {
        "name": study.study_name,
        "objectives": objectives(study),
        "counts": dict(Counter(trial.state for trial in trials).most_common()),
        "num_trials": len(trials),
        "seconds": sum(trial.seconds for trial in trials),
        "steps": sum(trial.step for trial in trials if trial.repeats is None),
        "best": next(iter(ranking(study)), None),
        "front": pareto_front(study),
        "definition": study.user_attrs.get(DEFINITION, {}),
        "started": min(starts).timestamp() * 1000 if starts else None,
    }


def objectives(study: optuna.Study) -> list[str]:
    return list(study.metric_names or [f"objective {index}" for index in range(len(study.directions))])


def picture(study: optuna.Study) -> dict[str, Any]:
    """What the page draws: trials, the axes of their parameters, and which trials are best."""
    trials = study.get_trials(deepcopy=False)
    return {
        "name": study.study_name,
        "objectives": [
            {"name": name, "more_is_better": direction == optuna.study.StudyDirection.MAXIMIZE}
            for name, direction in zip(objectives(study), study.directions, strict=True)
        ],
        "max_steps": study.user_attrs.get(DEFINITION, {}).get("max_steps"),
        "ranking": [trial.number for trial in ranking(study)],
        "front": [trial.number for trial in pareto_front(study)],
        "axes": _axes(trials),
        "trials": [_trial(*pair) for pair in zip(records(study), trials, strict=True)],
    }


def _trial(row: TrialRecord, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    measured = trial.user_attrs.get(METRICS, {})
    points = [[step, value if math.isfinite(value) else None] for step, value in sorted(curve(trial).items())]
    return _finite(asdict(row)) | {"measured": _finite(measured), "curve": points}


def _axes(trials: list[optuna.trial.FrozenTrial]) -> list[dict[str, Any]]:
    """One axis a parameter, with the range or the choices that the search may take."""
    distributions: dict[str, Any] = {}
    for trial in trials:
        distributions |= trial.distributions
    return [
        {"key": key, "choices": [decoded({key: choice})[key] for choice in axis.choices]}
        if isinstance(axis, CategoricalDistribution)
        else {"key": key, "low": axis.low, "high": axis.high, "log": axis.log}
        for key, axis in sorted(distributions.items())
    ]


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
