"""Reader studies: can people tell a model's slices from real ones, or name the class of each?

Every answer is kept in MLflow, and nowhere else.

A study is a run in the experiment `reader-studies`: half of its slices are real (held out from training), half are
synthetic, in one shuffled array beside the key. Each reader is a run beneath it. The order in which a reader sees the
slices is a function of the study and the reader, and an answer is a metric whose step is the position in that order:
so a study goes on where its reader left it, on any machine, and a corrected answer is a later point of the same step.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from mlflow.entities import Run

from lwddpm.tracking.attachments import READER_EXPERIMENT
from lwddpm_board.stores import Missing, Stores

KIND = "reader-study"
Question = Literal["synthetic", "class"]
# question -> the metric that an answer is: 1 for synthetic, or the number of a class
ANSWERS: dict[Question, str] = {"synthetic": "reader/synthetic", "class": "reader/class"}
MOST_CLASSES = 9  # each has a key
IMAGES, KEY = "study/images.npy", "study/key.json"


@dataclass(frozen=True)
class Study:
    """A study as MLflow holds it; its run has FINISHED once everything that makes it up is there.

    Attributes:
        question: what readers say of each slice: whether it is synthetic, or which class it shows.
        classes: those they choose from; empty where they are not asked.
    """

    run_id: str
    name: str
    model: str
    version: int
    num: int
    about: dict[str, str]
    created: int
    question: Question = "synthetic"
    classes: tuple[str, ...] = ()

    @property
    def num_answers(self) -> int:
        """How many answers there are to choose from."""
        return len(self.classes) or 2

    @classmethod
    def of(cls, run: Run) -> "Study":
        tags, params = run.data.tags, run.data.params
        if tags.get("lwddpm.kind") != KIND or "mlflow.parentRunId" in tags:
            raise Missing("this is not a reader study")
        if run.info.status != "FINISHED":
            raise Missing("this reader study was never set up to its end; set up another")
        return cls(
            run_id=run.info.run_id,
            name=run.info.run_name,
            model=tags["lwddpm.model"],
            version=int(tags["lwddpm.model_version"]),
            num=int(params["num"]),
            about=dict(params),
            created=run.info.start_time,
            question="class" if params.get("question") == "class" else "synthetic",
            classes=tuple(json.loads(params.get("classes", "[]"))),
        )

    def order(self, reader: str) -> np.ndarray:
        """Slices in the order in which a reader sees them, int64 [num]: item at each position."""
        seed = hashlib.sha256(f"{self.run_id}/{reader.casefold()}".encode()).digest()
        return np.random.default_rng(int.from_bytes(seed[:8], "big")).permutation(self.num)


@dataclass(frozen=True)
class Reader:
    """One reader's answers so far: for each position in that reader's order 1 or 0, synthetic or real, or the number of
    the class that was named."""

    run_id: str
    name: str
    status: str
    answers: dict[int, int]

    @property
    def finished(self) -> bool:
        return self.status == "FINISHED"


def studies(stores: Stores, query: str = "") -> list[Study]:
    """All studies that were set up to their end, newest first."""
    experiment = stores.client.get_experiment_by_name(READER_EXPERIMENT)
    if experiment is None:
        return []
    parts = ["attributes.status = 'FINISHED'", f"tags.`lwddpm.kind` = '{KIND}'", "tags.`mlflow.parentRunId` IS NULL"]
    parts += [query] if query else []
    return [Study.of(run) for run in stores.client.search_runs([experiment.experiment_id], " and ".join(parts))]


def find(stores: Stores, run_id: str) -> Study:
    return Study.of(stores.client.get_run(run_id))


def readers(stores: Stores, study: Study) -> list[Reader]:
    """Everybody who has begun, in the order of beginning."""
    experiment = stores.client.get_run(study.run_id).info.experiment_id
    query = f"tags.`mlflow.parentRunId` = '{study.run_id}'"
    runs = stores.client.search_runs([experiment], query, order_by=["attributes.start_time ASC"])
    return [_reader(stores, study, run) for run in runs]


def find_reader(stores: Stores, study: Study, run_id: str) -> Reader:
    run = stores.client.get_run(run_id)
    if run.data.tags.get("mlflow.parentRunId") != study.run_id:
        raise Missing("this reader does not belong to the study")
    return _reader(stores, study, run)


def _reader(stores: Stores, study: Study, run: Run) -> Reader:
    name = ANSWERS[study.question]
    history = stores.client.get_metric_history(run.info.run_id, name) if name in run.data.metrics else []
    answers = {m.step: int(m.value) for m in sorted(history, key=lambda m: m.timestamp)}  # the last one counts
    return Reader(run.info.run_id, run.data.tags["lwddpm.reader"], run.info.status, answers)


def images(stores: Stores, study: Study) -> np.ndarray:
    """All slices of a study, uint8 [num, S, S]."""
    return _images(stores, study.run_id)


@lru_cache(maxsize=8)
def _images(stores: Stores, run_id: str) -> np.ndarray:
    slices: np.ndarray = np.load(io.BytesIO(stores.file(run_id, IMAGES)), allow_pickle=False)
    return slices


@lru_cache(maxsize=64)
def key(stores: Stores, run_id: str) -> list[dict[str, Any]]:
    """What each slice of a study is."""
    found: list[dict[str, Any]] = json.loads(stores.file(run_id, KEY))["key"]
    return found
