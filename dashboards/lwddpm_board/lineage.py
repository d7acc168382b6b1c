"""Lineage backwards: what was made from a dataset, and what holds a subject, a file or a picture."""

import base64
import binascii
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from lwddpm.data import lookup
from lwddpm.data.manifest import SPLITS
from lwddpm.data.pseudonyms import existing_pseudonyms
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, DataError
from lwddpm.marks import files
from lwddpm.marks.mark import drawn_by
from lwddpm.tracking.lineage import Find, made_from, trace
from lwddpm_board.dataset import Version, columns, known, open_known
from lwddpm_board.pages import fragment, render
from lwddpm_board.runs import Store
from lwddpm_board.stores import Missing, Stores

_LONGEST_UPLOAD = 30_000_000  # characters of base64
_SHOWN = 60  # slices of a dataset

router = APIRouter()


class Sought(BaseModel):
    """What to look for: one of the three. It is sent in a body: names of people are in no address and no access log."""

    subject: Annotated[str, Field(max_length=200)] = ""
    file: Annotated[str, Field(max_length=500)] = ""
    picture: Annotated[str, Field(max_length=_LONGEST_UPLOAD)] = ""


@router.get("/lineage")
def lineage_page(request: Request, stores: Store) -> Response:
    _ = stores.client  # connects
    return render(request, "lineage.html", key=existing_pseudonyms().key is not None)


@router.post("/api/lineage")
def look_up(request: Request, stores: Store, wanted: Sought) -> JSONResponse:
    """Which datasets hold it, in which split, and what follows from these; as a piece of a page."""
    given = [name for name in ("subject", "file", "picture") if getattr(wanted, name).strip()]
    if len(given) != 1:
        raise ConfigError(f"lineage: give one of a subject, a file and a picture, got {' and '.join(given) or 'none'}")
    _ = stores.client
    mark = None
    if wanted.picture:
        found, mark = _of_picture(stores, wanted.picture)
    else:
        found = trace(_by_name(wanted), _folders(stores))
    for holding in found["datasets"]:
        holding["pictures"] = _pictures(stores, holding)
    key = existing_pseudonyms().key is not None
    return JSONResponse(
        {"html": fragment("lineage_found.html", found=found, mark=mark, key=key, splits=SPLITS, shown=_SHOWN)}
    )


@router.get("/datasets/{version}/lineage")
def dataset_lineage(request: Request, stores: Store, version: Version) -> Response:
    """What was made from a dataset; also of one that is not at hand any more."""
    _ = stores.client
    found = made_from(version)
    if not found["runs"] and version not in {dataset.version for dataset in known(stores)}:
        raise Missing(f"no run has used a dataset of version {version}")
    return render(request, "dataset_lineage.html", version=version, found=found, path=_path(stores, version))


def _path(stores: Stores, version: str) -> str:
    return next((dataset.path for dataset in known(stores) if dataset.version == version), "")


def _folders(stores: Stores) -> list[str]:
    """Datasets that the board was started with; runs name the others."""
    return [dataset.path for dataset in known(stores) if dataset.path in stores.datasets]


def _by_name(wanted: Sought) -> Find:
    pseudonyms = existing_pseudonyms()

    def find(dataset: Dataset) -> Any:
        if wanted.subject.strip():
            return lookup.find_subject(dataset, wanted.subject.strip(), pseudonyms)
        return lookup.find_file(dataset, wanted.file.strip(), pseudonyms)

    return find


def _of_picture(stores: Stores, picture: str) -> tuple[dict[str, Any], str | None]:
    """What holds a picture, and which model its mark says it is drawn by; the file is gone afterwards."""
    file = stores.workspace / f"upload-{secrets.token_hex(8)}"
    try:
        file.write_bytes(base64.b64decode(picture, validate=True))
        found = trace(lambda dataset: lookup.find_image(dataset, file), _folders(stores))
        try:
            mark = files.read(file)[1]
        except DataError:  # a format of ours that it is not
            mark = None
        return found, None if mark is None else drawn_by(mark)
    except binascii.Error:
        raise DataError("picture: must be base64, got something else; choose a file") from None
    except (ConfigError, DataError) as error:  # what the file is called here says nothing to a visitor
        told = str(error).replace(f"--image {file}", "picture").replace(str(file), "this file")
        raise DataError(told.replace("--file or --subject", "a file or a subject")) from None
    finally:
        file.unlink(missing_ok=True)


def _pictures(stores: Stores, holding: dict[str, Any]) -> list[str | None]:
    """Addresses of the first slices of a dataset that were found."""
    try:
        dataset = open_known(stores, holding["version"])
    except (DataError, Missing):
        return [None] * len(holding["slices"][:_SHOWN])
    rows = {split: {source: row for row, source in enumerate(columns(dataset, split).sources)} for split in SPLITS}
    return [
        f"/datasets/{dataset.version}/{held['split']}/{rows[held['split']][held['source']]}.png"
        for held in holding["slices"][:_SHOWN]
    ]
