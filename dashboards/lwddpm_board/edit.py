"""Editing a slice on the board: a row of a dataset or a picture of the visitor's, and a region painted on it."""

import base64
import binascii
import secrets
from collections import OrderedDict
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from lwddpm.config import EditConfig
from lwddpm.data.edit_source import Given, bring_to_size
from lwddpm.data.manifest import SPLITS
from lwddpm.errors import ConfigError, DataError
from lwddpm.kinds.edits import Planned, check_family, inpainting, varied
from lwddpm.training.stored_model import read_saved_model
from lwddpm_board.dataset import open_known
from lwddpm_board.drawing import Drawings
from lwddpm_board.drawing_request import DrawingRequest
from lwddpm_board.pictures import png
from lwddpm_board.registry import find, model_folder
from lwddpm_board.runs import Store
from lwddpm_board.stores import Missing, Stores

_LONGEST_UPLOAD = 30_000_000  # characters of base64
_KEPT = 32  # pictures that are being painted on

router = APIRouter()
SourceId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]


class SourceRequest(BaseModel):
    """What to paint on: a row of a dataset, or a picture in base64, brought to the size of the model."""

    model: Annotated[str, Field(max_length=300)]
    dataset: Annotated[str, Field(pattern="^([0-9a-f]{8,64})?$")] = ""
    split: Annotated[str, Field(pattern=f"^({'|'.join(SPLITS)})$")] = "test"
    row: Annotated[int, Field(ge=0)] = 0
    picture: Annotated[str, Field(max_length=_LONGEST_UPLOAD)] = ""
    crop_background: bool = False


class EditRequest(DrawingRequest):
    """An inpainting or, with a `strength`, variations.

    Attributes:
        mask: a character for each pixel, row by row: 1 where to draw anew.
        strength: from 0, the slice itself, to 1, an ordinary drawing; None: an inpainting.
    """

    source: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    mask: Annotated[str, Field(pattern="^[01]*$", max_length=1024 * 1024)] = ""
    strength: Annotated[float, Field(ge=0, le=1)] | None = None


class Sources:
    """The pictures that visitors paint on, the newest ones."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, np.ndarray] = OrderedDict()

    def add(self, picture: np.ndarray) -> str:
        name = secrets.token_hex(8)
        self._all[name] = picture
        while len(self._all) > _KEPT:
            self._all.popitem(last=False)
        return name

    def get(self, name: str) -> np.ndarray:
        if name not in self._all:
            raise Missing("this picture is gone: only the newest ones are kept; choose it again")
        return self._all[name]


@router.post("/api/edit-sources")
def add_source(request: Request, stores: Store, wanted: SourceRequest) -> JSONResponse:
    """Bring a picture to the size of a model; answers with its id and size, and what was done to it."""
    saved = read_saved_model(model_folder(stores, find(stores, wanted.model)))
    check_family("inpaint", saved)
    given = _uploaded(stores, wanted, saved.image_size) if wanted.picture else _row(stores, wanted, saved.image_size)
    return JSONResponse({"id": _sources(request).add(given.source), "size": saved.image_size, "brought": given.brought})


@router.get("/edit-sources/{name}.png")
def source_picture(request: Request, name: SourceId) -> Response:
    return png(_sources(request).get(name))


@router.post("/api/edits")
def start(request: Request, stores: Store, wanted: EditRequest) -> JSONResponse:
    """Begin to draw the painted region anew, or variations; progress and pictures are those of a drawing."""
    source = _sources(request).get(wanted.source)
    version = find(stores, wanted.model)
    folder = model_folder(stores, version)
    saved = read_saved_model(folder)
    check_family("inpaint" if wanted.strength is None else "variations", saved)
    planned = (
        _painted(source, wanted) if wanted.strength is None else varied(Given(source, None), wanted.strength, saved)
    )
    drawings: Drawings = request.app.state.drawings
    return JSONResponse(drawings.start(version, folder, wanted, planned).as_dict())


def _painted(source: np.ndarray, wanted: EditRequest) -> Planned:
    mask = np.frombuffer(wanted.mask.encode(), np.uint8) == ord("1")
    if mask.size != source.size or not mask.any() or mask.all():
        found = f"{mask.sum()} of {mask.size} pixels"
        raise ConfigError(
            f"mask: paint some of the {source.size} pixels and leave some, got {found}; paint on the slice"
        )
    return inpainting(Given(source, mask.reshape(source.shape)))


def _row(stores: Stores, wanted: SourceRequest, size: int) -> Given:
    dataset = open_known(stores, wanted.dataset)
    if wanted.row >= (num := dataset.num(wanted.split)):
        raise DataError(
            f"row: must be below the {num} slices of split {wanted.split}, got {wanted.row}; choose another"
        )
    return bring_to_size(EditConfig(variations=f"{dataset.path}/{wanted.split}/{wanted.row}"), size)


def _uploaded(stores: Stores, wanted: SourceRequest, size: int) -> Given:
    file = stores.workspace / f"upload-{secrets.token_hex(8)}"
    try:
        file.write_bytes(base64.b64decode(wanted.picture, validate=True))
        return bring_to_size(EditConfig(variations=str(file), crop_background=wanted.crop_background), size)
    except binascii.Error:
        raise DataError("picture: must be base64, got something else; choose a file") from None
    except DataError as error:  # what the file is called here says nothing to a visitor
        raise DataError(str(error).replace(str(file), "this file").replace("edit.variations", "picture")) from None
    finally:
        file.unlink(missing_ok=True)


def _sources(request: Request) -> Sources:
    sources: Sources = request.app.state.edit_sources
    return sources
