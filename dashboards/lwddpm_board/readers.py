"""Readers: set a blinded study up, take part with a key for each answer, see what came out."""

import io
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, StringConstraints

from lwddpm.config import SamplingConfig
from lwddpm.errors import ConfigError
from lwddpm.kinds.saved_model import labels_of
from lwddpm.training.stored_model import read_saved_model
from lwddpm_board import reader_answers, reader_outcome, reader_setup, reader_study
from lwddpm_board.dataset import open_known
from lwddpm_board.pages import render
from lwddpm_board.pictures import png
from lwddpm_board.reader_setup import FEWEST, MOST
from lwddpm_board.registry import all_versions, find, model_folder
from lwddpm_board.runs import RunId, Store, evaluation
from lwddpm_board.stores import Missing

router = APIRouter()
# of every slice of a study, real or not: it must not tell the reader which it is
_BLINDED = "from a blinded reader study, half of whose slices are SYNTHETIC; not for diagnosis"
ReaderId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60)]


class NewStudy(BaseModel):
    """`drawing` names a drawing of this board; without one the slices that the evaluation kept are judged."""

    model: Annotated[str, Field(max_length=300)]
    num: Annotated[int, Field(ge=FEWEST, le=MOST, multiple_of=2)] = 40
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
    drawing: Annotated[str, Field(pattern="^([0-9a-f]{16})?$")] = ""
    question: reader_study.Question = "synthetic"


class NewReader(BaseModel):
    name: Name


class Answer(BaseModel):
    position: Annotated[int, Field(ge=0)]
    said: Annotated[int, Field(ge=0, lt=reader_study.MOST_CLASSES)]  # 1: synthetic, 0: real; or the number of a class
    seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


@router.get("/readers")
def readers_page(request: Request, stores: Store, model: Annotated[str, Query(max_length=300)] = "") -> Response:
    versions = all_versions(stores)
    studies = [(study, reader_outcome.judgement(stores, study)) for study in reader_study.studies(stores)]
    drawings = [
        (drawing.id, f"{drawing.version.name}/{drawing.version.version}", f"{drawing.total} drawn here: {drawing.how}")
        for version in versions
        for drawing in request.app.state.drawings.of_version(version.name, version.version)
    ]
    return render(
        request, "readers.html", studies=studies, versions=versions, chosen=model, drawings=drawings,
        fewest=FEWEST, most=MOST,
    )  # fmt: skip


@router.post("/api/readers")
def create(request: Request, stores: Store, wanted: NewStudy) -> JSONResponse:
    version = find(stores, wanted.model)
    if wanted.drawing:
        drawing = request.app.state.drawings.get(wanted.drawing)
        if (drawing.version.name, drawing.version.version) != (version.name, version.version):
            raise ConfigError(f"drawing: must be of {wanted.model}")
        synthetic = np.array(drawing.images())
        sampling: SamplingConfig | None = drawing.sampling
        how = f"{drawing.how}, drawn on the board"
    else:
        try:
            synthetic = np.load(io.BytesIO(stores.file(version.run_id, "samples/images.npy")), allow_pickle=False)
        except Missing:
            raise ConfigError(
                f"{wanted.model} was not evaluated, so none of its slices are kept; draw some on the page Generate"
            ) from None
        result = evaluation(stores, version.run_id)
        sampling = config = result.config if result else None
        how = f"{config.sampler}, {config.num_inference_steps} steps, seed {config.seed}" if config else "evaluation"
        how += ", kept by the evaluation"
    asked = None
    if wanted.question == "class" and sampling is not None:
        asked = labels_of(sampling, read_saved_model(model_folder(stores, version)), len(synthetic))
    dataset = open_known(stores, version.tags.get("lwddpm.dataset_version", ""))
    run_id = reader_setup.create(
        stores, version, synthetic, how, dataset, wanted.num, wanted.seed, question=wanted.question, asked=asked
    )
    return JSONResponse({"url": f"/readers/{run_id}"})


@router.get("/readers/{study_id}")
def study_page(request: Request, stores: Store, study_id: RunId) -> Response:
    study = reader_study.find(stores, study_id)
    everybody = reader_study.readers(stores, study)
    done = [reader for reader in everybody if reader.finished]
    outcomes = [(reader, reader_outcome.outcome(stores, study, [reader])) for reader in done]
    pooled = reader_outcome.outcome(stores, study, done) if done else None
    going_on = [reader for reader in everybody if not reader.finished]
    return render(
        request, "reader_study.html", study=study, outcomes=outcomes, pooled=pooled, going_on=going_on
    )  # fmt: skip


@router.post("/api/readers/{study_id}/join")
def join(stores: Store, study_id: RunId, who: NewReader) -> JSONResponse:
    study = reader_study.find(stores, study_id)
    reader = reader_answers.join(stores, study, who.name)
    return JSONResponse({"url": f"/readers/{study_id}/{reader.run_id}"})


@router.get("/readers/{study_id}/{reader_id}")
def reading_page(request: Request, stores: Store, study_id: RunId, reader_id: ReaderId) -> Response:
    study = reader_study.find(stores, study_id)
    reader = reader_study.find_reader(stores, study, reader_id)
    if not reader.finished:
        return render(request, "reading.html", study=study, reader=reader)
    outcome = reader_outcome.outcome(stores, study, [reader])
    review = reader_outcome.review(stores, study, reader)
    return render(request, "reader.html", study=study, reader=reader, found=outcome, review=review)


@router.get("/readers/{study_id}/{reader_id}/{position}.png")
def slice_to_judge(
    stores: Store, study_id: RunId, reader_id: ReaderId, position: Annotated[int, Path(ge=0)]
) -> Response:
    """The slice at a position of a reader's order; neither its address nor its bytes say what it is."""
    study = reader_study.find(stores, study_id)
    reader = reader_study.find_reader(stores, study, reader_id)
    if position >= study.num:
        raise Missing(f"this study has {study.num} slices")
    return png(reader_study.images(stores, study)[study.order(reader.name)[position]], note=_BLINDED)


@router.post("/api/readers/{study_id}/{reader_id}")
def take_answer(stores: Store, study_id: RunId, reader_id: ReaderId, given: Answer) -> JSONResponse:
    study = reader_study.find(stores, study_id)
    reader = reader_study.find_reader(stores, study, reader_id)
    after = reader_answers.answer(stores, study, reader, given.position, given.said, given.seconds)
    return JSONResponse({"answered": len(after.answers), "finished": after.finished})
