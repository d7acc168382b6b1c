"""Generate: draw slices from a registered version, beside the training slices that they resemble most."""

from typing import Annotated, get_args

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from lwddpm.config import DiffusionSampler
from lwddpm.data.manifest import SPLITS
from lwddpm_board.dataset import known
from lwddpm_board.drawing import MOST, DrawingRequest, Drawings
from lwddpm_board.pages import render
from lwddpm_board.pictures import png
from lwddpm_board.registry import all_versions, find, model_folder
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
    return png(images[index], keep_s=_KEPT_S, mark=drawing.mark.model_copy(update={"index": index}))


def _drawings(request: Request) -> Drawings:
    drawings: Drawings = request.app.state.drawings
    return drawings
