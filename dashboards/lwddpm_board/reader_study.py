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
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from mlflow.entities import Metric, Param, Run, RunTag

from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.tracking.attachments import READER_EXPERIMENT
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.tracking.store import open_experiment
from lwddpm_board.class_reading import ClassOutcome
from lwddpm_board.shares import Share
from lwddpm_board.stores import Missing, Stores

KIND = "reader-study"
Question = Literal["synthetic", "class"]
# question -> the metric that an answer is: 1 for synthetic, or the number of a class
ANSWERS: dict[Question, str] = {"synthetic": "reader/synthetic", "class": "reader/class"}
SECONDS = "reader/seconds"
MOST_CLASSES = 9  # each has a key
FEWEST, MOST = 4, 200
_IMAGES, _KEY = "study/images.npy", "study/key.json"


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
class Outcome:
    """How well slices were told apart, by one reader or by all who have finished.

    Attributes:
        accuracy: right answers among all.
        found_synthetic: synthetic slices that were called synthetic (sensitivity).
        found_real: real slices that were called real (specificity).
    """

    accuracy: Share
    found_synthetic: Share
    found_real: Share

    def metrics(self) -> dict[str, float]:
        """What is kept in MLflow, by name."""
        low, high = self.accuracy.interval
        return {
            "reader/accuracy": self.accuracy.value,
            "reader/accuracy_low": low,
            "reader/accuracy_high": high,
            "reader/n": float(self.accuracy.of),
            "reader/found_synthetic": self.found_synthetic.value,
            "reader/found_real": self.found_real.value,
        }


def create(
    stores: Stores,
    version: RegisteredVersion,
    synthetic: np.ndarray,
    how: str,
    dataset: Dataset,
    num: int,
    seed: int,
    *,
    question: Question = "synthetic",
    asked: Sequence[str | None] | None = None,
) -> str:
    """Set a study up.

    Args:
        version: the version to be judged.
        synthetic: its slices, uint8 [N, S, S].
        how: how they were drawn, in words.
        dataset: what it was trained on; the real slices are from its test split, or from validation if that is larger.
        num: slices of the study; half of them real.
        seed: decides which slices are taken.
        question: what readers are asked; `class`: every class has as many slices as any other, or one more.
        asked: the class that each synthetic slice was asked for; for the question `class`.

    Returns:
        The study's run id.

    Raises:
        ConfigError: too few slices of either kind; says how many there are.
    """
    half = num // 2
    split = max(("test", "validation"), key=dataset.num)
    if synthetic.shape[1] != dataset.manifest.image_size:
        raise ConfigError(
            f"slices: must be of one size, the model draws {synthetic.shape[1]} px and the dataset has "
            f"{dataset.manifest.image_size} px"
        )
    random = np.random.default_rng(seed)
    of_real = [dataset.label_names[code] for code in dataset.labels(split)]
    if question == "class":
        classes = _classes(asked, of_real)
        rows = [
            _balanced(labels, classes, half, num, kind, random)
            for kind, labels in (("real", of_real), ("synthetic", asked or ()))
        ]
    else:
        classes = ()
        rows = [
            _any(count, half, num, kind, random)
            for kind, count in (("real", len(of_real)), ("synthetic", len(synthetic)))
        ]
    images = np.concatenate([dataset.images(split)[rows[0]], synthetic[rows[1]]])
    sources = dataset.sources(split)
    key = [{"synthetic": False, "source": sources[row]} for row in rows[0]]
    key += [{"synthetic": True, "source": f"sample {row}"} for row in rows[1]]
    if question == "class":
        shown = [of_real[row] for row in rows[0]] + [str((asked or ())[row]) for row in rows[1]]
        key = [entry | {"class": name} for entry, name in zip(key, shown, strict=True)]
    shuffled = random.permutation(2 * half)

    client = stores.client
    name = f"{version.name} version {version.version}, {2 * half} slices"
    run = client.create_run(
        open_experiment(client, stores.tracking, READER_EXPERIMENT),
        run_name=name + (", which class?" if question == "class" else ""),
        tags=_tags(version, question),
    )
    settings = {"num": 2 * half, "seed": seed, "split": split, "dataset_version": dataset.version, "drawn": how}
    if question == "class":
        settings |= {"question": question, "classes": json.dumps(classes)}
    status = "FAILED"
    try:
        client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in settings.items()])
        client.log_dict(run.info.run_id, {"key": [key[index] for index in shuffled]}, _KEY)
        with stores.folder() as folder:
            np.save(folder / "images.npy", images[shuffled])
            client.log_artifact(run.info.run_id, str(folder / "images.npy"), "study")
        status = "FINISHED"
    finally:
        client.set_terminated(run.info.run_id, status)
    return str(run.info.run_id)


def _any(there: int, half: int, num: int, kind: str, random: np.random.Generator) -> np.ndarray:
    """Rows of half of a study, drawn at random, in their order."""
    if there < half:
        raise ConfigError(f"slices: half of {num} must be {kind}, there are {there}; ask for {2 * there} at most")
    return np.sort(random.choice(there, half, replace=False))


def _classes(asked: Sequence[str | None] | None, of_real: Sequence[str]) -> tuple[str, ...]:
    """The classes that both kinds of slices show.

    Raises:
        ConfigError: fewer than two, or more than there are keys.
    """
    classes = tuple(sorted({label for label in asked or () if label is not None} & set(of_real)))
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise ConfigError(
            f"question: class takes 2 to {MOST_CLASSES} classes that synthetic slices were asked for and held-out ones "
            f"show, got {len(classes)}; take a model with model.conditions: [label], or ask whether slices are real"
        )
    return classes


def _balanced(
    labels: Sequence[str | None],
    classes: Sequence[str],
    half: int,
    num: int,
    kind: str,
    random: np.random.Generator,
) -> np.ndarray:
    """Rows of half of a study, of each class as many as of any other, or one more; in their order."""
    wanted = [half // len(classes) + (number < half % len(classes)) for number in range(len(classes))]
    chosen = []
    for name, count in zip(classes, wanted, strict=True):
        rows = np.array([row for row, label in enumerate(labels) if label == name], int)
        if len(rows) < count:
            raise ConfigError(
                f"slices: {count} of {num} must be {kind} ones of {name}, there are {len(rows)}; ask for "
                f"{2 * len(rows) * len(classes)} at most"
            )
        chosen.append(random.choice(rows, count, replace=False))
    return np.sort(np.concatenate(chosen))


def _tags(version: RegisteredVersion, question: Question) -> dict[str, str]:
    what = "tell slices of {} from real ones" if question == "synthetic" else "name the class of real slices and of {}"
    return {
        "lwddpm.kind": KIND,
        "lwddpm.question": question,
        "lwddpm.model": version.name,
        "lwddpm.model_version": str(version.version),
        "mlflow.note.content": (
            f"Readers {what.format(f'models:/{version.name}/{version.version}')}. "
            "Each reader is a run beneath this one."
        ),
    }


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


def _reader(stores: Stores, study: Study, run: Run) -> Reader:
    name = ANSWERS[study.question]
    history = stores.client.get_metric_history(run.info.run_id, name) if name in run.data.metrics else []
    answers = {m.step: int(m.value) for m in sorted(history, key=lambda m: m.timestamp)}  # the last one counts
    return Reader(run.info.run_id, run.data.tags["lwddpm.reader"], run.info.status, answers)


def join(stores: Stores, study: Study, name: str) -> Reader:
    """The reader of this name, who begins now or goes on."""
    for known in readers(stores, study):
        if known.name.casefold() == name.casefold():
            return known
    experiment = stores.client.get_run(study.run_id).info.experiment_id
    tags = {
        "mlflow.parentRunId": study.run_id,
        "lwddpm.kind": KIND,
        "lwddpm.question": study.question,
        "lwddpm.reader": name,
        "lwddpm.model": study.model,
        "lwddpm.model_version": str(study.version),
    }
    run = stores.client.create_run(experiment, run_name=f"reader {name}", tags=tags)
    return Reader(run.info.run_id, name, "RUNNING", {})


def find_reader(stores: Stores, study: Study, run_id: str) -> Reader:
    run = stores.client.get_run(run_id)
    if run.data.tags.get("mlflow.parentRunId") != study.run_id:
        raise Missing("this reader does not belong to the study")
    return _reader(stores, study, run)


def answer(stores: Stores, study: Study, reader: Reader, position: int, said: int, seconds: float) -> Reader:
    """Keep an answer; the last one that is missing ends the reader's run and logs what came out.

    Args:
        said: 1 for synthetic and 0 for real, or the number of a class.

    Raises:
        ConfigError: the reader has finished, or has not come to this position yet; no such answer.
    """
    if not 0 <= said < study.num_answers:
        raise ConfigError(f"said: must be from 0 to {study.num_answers - 1}, got {said}")
    if reader.finished:
        raise ConfigError("this reader has finished: the answers stand")
    if not 0 <= position <= len(reader.answers) or position >= study.num:
        raise ConfigError(f"position: the next one is {len(reader.answers)}, got {position}")
    now = int(time.time() * 1000)
    kept = [Metric(ANSWERS[study.question], float(said), now, position), Metric(SECONDS, seconds, now, position)]
    stores.client.log_batch(reader.run_id, metrics=kept)
    answers = reader.answers | {position: int(said)}
    reader = Reader(reader.run_id, reader.name, reader.status, answers)
    if len(answers) == study.num:
        _finish(stores, study, reader)
        return Reader(reader.run_id, reader.name, "FINISHED", answers)
    return reader


def _finish(stores: Stores, study: Study, reader: Reader) -> None:
    client = stores.client
    right = outcome(stores, study, [reader])
    client.log_batch(reader.run_id, metrics=_metrics(right, 0))
    client.log_dict(reader.run_id, {"answers": review(stores, study, reader)}, "answers.json")
    client.set_terminated(reader.run_id)
    done = [other for other in readers(stores, study) if other.finished]
    tags = [RunTag("lwddpm.readers", str(len(done)))]
    client.log_batch(study.run_id, metrics=_metrics(outcome(stores, study, done), len(done)), tags=tags)


def _metrics(result: Outcome | ClassOutcome, step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(key, value, now, step) for key, value in result.metrics().items()]


def outcome(stores: Stores, study: Study, finished: list[Reader]) -> Outcome | ClassOutcome:
    """Right answers of finished readers together; each has judged every slice."""
    reviews = [sorted(review(stores, study, reader), key=lambda row: row["item"]) for reader in finished]
    synthetic = np.array([row["synthetic"] for row in reviews[0]])
    if study.question == "class":
        said = np.array([[study.classes.index(row["said"]) for row in rows] for rows in reviews])
        truth = np.array([study.classes.index(row["class"]) for row in reviews[0]])
        return ClassOutcome.of(said, truth, synthetic, study.classes)
    right = np.array([[row["right"] for row in rows] for rows in reviews])
    return Outcome(Share.of_slices(right), Share.of_slices(right[:, synthetic]), Share.of_slices(right[:, ~synthetic]))


def review(stores: Stores, study: Study, reader: Reader) -> list[dict[str, Any]]:
    """A reader's answers beside the truth, in the order in which they were given; both as they are shown."""
    key, order = _key(stores, study.run_id), study.order(reader.name)
    names = study.classes or ("real", "synthetic")
    rows = []
    for position, said in sorted(reader.answers.items()):
        entry = key[order[position]]
        truth = entry["class"] if study.question == "class" else names[entry["synthetic"]]
        about = {"position": position, "item": int(order[position]), **entry}
        if study.question == "synthetic":
            about["said_synthetic"] = bool(said)
        rows.append(about | {"said": names[said], "truth": truth, "right": names[said] == truth})
    return rows


def images(stores: Stores, study: Study) -> np.ndarray:
    """All slices of a study, uint8 [num, S, S]."""
    return _images(stores, study.run_id)


@lru_cache(maxsize=8)
def _images(stores: Stores, run_id: str) -> np.ndarray:
    slices: np.ndarray = np.load(io.BytesIO(stores.file(run_id, _IMAGES)), allow_pickle=False)
    return slices


@lru_cache(maxsize=64)
def _key(stores: Stores, run_id: str) -> list[dict[str, Any]]:
    key: list[dict[str, Any]] = json.loads(stores.file(run_id, _KEY))["key"]
    return key


@dataclass(frozen=True)
class Judgement:
    """A study as a row of a list; `pooled` is of all finished readers together."""

    run_id: str
    name: str
    finished: int
    begun: int
    pooled: Share | None


def judgement(stores: Stores, study: Study) -> Judgement:
    """How many readers have begun and finished a study, and how often they were right."""
    everybody = readers(stores, study)
    done = [reader for reader in everybody if reader.finished]
    pooled = outcome(stores, study, done).accuracy if done else None
    return Judgement(study.run_id, study.name, len(done), len(everybody), pooled)


def judged(stores: Stores, model: str, version: int) -> list[Judgement]:
    """The studies of a version."""
    query = f"tags.`lwddpm.model_version` = '{int(version)}'"
    return [judgement(stores, study) for study in studies(stores, query) if study.model == model]
