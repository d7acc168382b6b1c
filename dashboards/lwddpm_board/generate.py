"""Generate: draw slices from a registered version, beside the training slices that they resemble most."""

from pathlib import Path as FilePath
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from lwddpm.conditions import Category, Vocabulary
from lwddpm.conditions import Number as NumberCondition
from lwddpm.config import DiffusionSampler
from lwddpm.data.manifest import SPLITS
from lwddpm.kinds.presets import presets_of
from lwddpm.training.stored_guide import has_guide
from lwddpm.training.stored_model import SavedModel, read_saved_model
from lwddpm.training.stored_presets import Preset
from lwddpm_board.dataset import known
from lwddpm_board.drawing import Drawings
from lwddpm_board.drawing_request import AWAY_FROM, MOST, DrawingRequest
from lwddpm_board.pages import number as written
from lwddpm_board.pages import render
from lwddpm_board.pictures import png
from lwddpm_board.registry import ModelName, Number, all_versions, find, model_folder
from lwddpm_board.runs import Store
from lwddpm_board.stores import Missing

_KEPT_S = 3600
_SAMPLERS = get_args(DiffusionSampler)

router = APIRouter()
DrawingId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]


@router.get("/generate")
def generate_page(request: Request, stores: Store, model: Annotated[str, Query(max_length=300)] = "") -> Response:
    versions = all_versions(stores)
    _drawings(request).prepare()
    return render(
        request, "generate.html", versions=versions, chosen=model, samplers=_SAMPLERS, most=MOST,
        datasets=known(stores), splits=SPLITS,
    )  # fmt: skip


@router.get("/api/models/{name}/{number}")
def asks(stores: Store, name: ModelName, number: Number) -> JSONResponse:
    """What a version can be asked for: conditions with their values, what guidance may lead away from, presets."""
    version = find(stores, f"{name}/{number}")
    folder = model_folder(stores, version)
    saved = read_saved_model(folder)
    presets = presets_of(f"models:/{name}/{number}", folder).presets
    return JSONResponse(
        {
            "gan": saved.diffusion is None,
            "conditions": [_condition(saved.conditions, one) for one in saved.conditions.conditions]
            if saved.conditions is not None
            else [],
            "away_from": {way: AWAY_FROM[way] for way in _ways(saved, folder)},
            "presets": {preset: _told(found) for preset, found in presets.items()},
        }
    )


def _condition(vocabulary: Vocabulary, condition: Category | NumberCondition) -> dict[str, Any]:
    if isinstance(condition, Category):
        counts = vocabulary.counts(condition.name)
        values = [{"name": value, "count": counts[value]} for value in condition.values]
        return {"name": condition.name, "values": values, "classes": condition == vocabulary.classes}
    return {"name": condition.name, "mean": condition.mean, "spread": condition.spread}


def _ways(saved: SavedModel, folder: FilePath) -> list[str]:
    """What guidance of a model may lead away from; empty: it takes none."""
    told_nothing = saved.draws_without_conditions
    guide = saved.diffusion is not None and has_guide(folder)
    ways = {"guide": guide, "unconditional": told_nothing, "unconditional_guide": guide and told_nothing}
    return [way for way, there in ways.items() if there and saved.diffusion is not None]


def _told(preset: Preset) -> str:
    """A preset in words, with what it was measured at."""
    calls = f"{preset.network_calls} network call{'' if preset.network_calls == 1 else 's'} a slice"
    figures = [
        f"{name} {written(figure.value)}" + (f" (floor {written(figure.floor)})" if figure.floor is not None else "")
        for name, figure in preset.figures.items()
    ]
    return "; ".join([f"{preset.words}, {calls}", *([", ".join(figures)] if figures else [])])


@router.post("/api/drawings")
def start(request: Request, stores: Store, wanted: DrawingRequest) -> JSONResponse:
    version = find(stores, wanted.model)
    return JSONResponse(_drawings(request).start(version, model_folder(stores, version), wanted).as_dict())


@router.get("/api/drawings/{name}")
def progress(request: Request, name: DrawingId) -> JSONResponse:
    return JSONResponse(_drawings(request).get(name).as_dict())


@router.post("/api/drawings/{name}/cancel")
def cancel(request: Request, name: DrawingId) -> JSONResponse:
    return JSONResponse(_drawings(request).cancel(name).as_dict())


@router.get("/drawings/{name}/{index}.png")
def picture(request: Request, name: DrawingId, index: Annotated[int, Path(ge=0)]) -> Response:
    drawing = _drawings(request).get(name)
    images = drawing.images()
    if index >= len(images):
        raise Missing(f"this drawing has {len(images)} slices")
    return png(images[index], keep_s=_KEPT_S, mark=drawing.mark_of(index))


def _drawings(request: Request) -> Drawings:
    drawings: Drawings = request.app.state.drawings
    return drawings
