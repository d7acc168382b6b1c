"""Two versions side by side: what they scored, class by class, and drawn from the same seeds."""

from collections.abc import Iterable
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from lwddpm.config import CLASS_MEASURES
from lwddpm.errors import LwddpmError
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.training.stored_model import read_saved_model
from lwddpm.wording import listed
from lwddpm_board.pages import grouped, quality, render
from lwddpm_board.registry import find, model_folder
from lwddpm_board.runs import Store, differences, evaluation
from lwddpm_board.stores import Missing, Stores

router = APIRouter()
_COMPARED = 16


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


@router.get("/api/versions/classes")
def common_classes(stores: Store, version: Annotated[list[str], Query(max_length=50)]) -> JSONResponse:
    """The classes that all of some versions can be asked for, in the order of the first; none, and why, otherwise."""
    found = [find(stores, reference) for reference in dict.fromkeys(version)]
    try:
        told = [_classes(stores, one) for one in found]
    except LwddpmError as error:
        return JSONResponse({"condition": None, "classes": [], "why": f"Their classes are not known: {error}."})
    condition, names = told[0] if told else (None, ())
    common = [name for name in names if all(name in others for _, others in told)]
    same = condition is not None and all(other == condition for other, _ in told)
    why = ""
    if any(names for _, names in told) and not (same and common):
        without = [
            f"{one.name} version {one.version}" for one, (_, names) in zip(found, told, strict=True) if not names
        ]
        why = f"{listed(without)} is told no class" if without else "The versions have no class in common"
        why += ": both are drawn as they come."
    return JSONResponse({"condition": condition if same else None, "classes": common if same else [], "why": why})


def _classes(stores: Stores, version: RegisteredVersion) -> tuple[str | None, tuple[str, ...]]:
    """The condition that is the class of a version's slices, and its values; None and nothing of one without."""
    saved = read_saved_model(model_folder(stores, version))
    classes = saved.conditions.classes if saved.conditions is not None else None
    return (None, ()) if classes is None else (classes.name, classes.values)


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
        told["obedience_lite0"] = (
            values,
            {name: confusion.real[row][row] for row, name in enumerate(confusion.classes) if name in values},
        )
    return told
