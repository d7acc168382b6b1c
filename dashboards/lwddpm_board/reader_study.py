"""Reader studies: can people tell a model's slices from real ones? Every answer is kept in MLflow, and nowhere else.

A study is a run in the experiment `reader-studies`: half of its slices are real (held out from training), half are
synthetic, in one shuffled array beside the key. Each reader is a run beneath it. The order in which a reader sees the
slices is a function of the study and the reader, and an answer is a metric whose step is the position in that order:
so a study goes on where its reader left it, on any machine, and a corrected answer is a later point of the same step.
"""

import hashlib
import io
import json
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from mlflow.entities import Metric, Param, Run, RunTag
from scipy.stats import beta, t

from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.tracking.attachments import READER_EXPERIMENT
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.tracking.store import open_experiment
from lwddpm_board.stores import Missing, Stores

KIND = "reader-study"
ANSWER, SECONDS = "reader/synthetic", "reader/seconds"
FEWEST, MOST = 4, 200
_IMAGES, _KEY = "study/images.npy", "study/key.json"


@dataclass(frozen=True)
class Share:
    """A share of right answers with its 95 % interval.

    For one reader the exact one (Clopper & Pearson 1934). Answers of several readers to one slice are alike, since some
    slices are hard for everybody: they count for as many independent ones as leave the variance between slices
    (Korn & Graubard 1998, Confidence intervals for proportions with small expected number of positive counts).

    Attributes:
        independent: answers that would say as much if all were to slices of their own; default: all.
    """

    right: int
    of: int
    independent: float | None = None

    @classmethod
    def of_slices(cls, right: np.ndarray) -> "Share":
        """`right`: bool [readers, slices], who was right about which."""
        slices = right.shape[1]
        answers, share = right.size, float(right.mean())
        spread = float(right.mean(axis=0).var()) / slices  # variance of the share if other slices had been drawn
        independent = share * (1 - share) / spread if spread > 0 else slices
        if slices > 1:  # the variance is itself estimated, from so many slices
            independent *= (t.ppf(0.975, answers - 1) / t.ppf(0.975, slices - 1)) ** 2
        return cls(int(right.sum()), answers, float(np.clip(independent, slices, answers)))

    @property
    def interval(self) -> tuple[float, float]:
        num = self.of if self.independent is None else self.independent
        right = self.value * num
        low = float(beta.ppf(0.025, right, num - right + 1)) if self.right else 0.0
        high = float(beta.ppf(0.975, right + 1, num - right)) if self.right < self.of else 1.0
        return low, high

    @property
    def value(self) -> float:
        return self.right / self.of

    @property
    def text(self) -> str:
        low, high = self.interval
        return f"{self.value:.0%} ({low:.0%} to {high:.0%}), {self.right} of {self.of}"


@dataclass(frozen=True)
class Reader:
    """One reader's answers so far: for each position in that reader's order, whether it was called synthetic."""

    run_id: str
    name: str
    status: str
    answers: dict[int, bool]

    @property
    def finished(self) -> bool:
        return self.status == "FINISHED"


@dataclass(frozen=True)
class Study:
    """A study as MLflow holds it; its run has FINISHED once everything that makes it up is there."""

    run_id: str
    name: str
    model: str
    version: int
    num: int
    about: dict[str, str]
    created: int

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


def create(
    stores: Stores,
    version: RegisteredVersion,
    synthetic: np.ndarray,
    how: str,
    dataset: Dataset,
    num: int,
    seed: int,
) -> str:
    """Set a study up.

    Args:
        version: the version to be judged.
        synthetic: its slices, uint8 [N, S, S].
        how: how they were drawn, in words.
        dataset: what it was trained on; the real slices are from its test split, or from validation if that is larger.
        num: slices of the study; half of them real.
        seed: decides which slices are taken.

    Returns:
        The study's run id.

    Raises:
        ConfigError: too few slices of either kind; says how many there are.
    """
    half = num // 2
    split = max(("test", "validation"), key=dataset.num)
    there = {"real": dataset.num(split), "synthetic": len(synthetic)}
    for kind, count in there.items():
        if count < half:
            raise ConfigError(f"slices: half of {num} must be {kind}, there are {count}; ask for {2 * count} at most")
    if synthetic.shape[1] != dataset.manifest.image_size:
        raise ConfigError(
            f"slices: must be of one size, the model draws {synthetic.shape[1]} px and the dataset has "
            f"{dataset.manifest.image_size} px"
        )
    random = np.random.default_rng(seed)
    real_rows = random.choice(there["real"], half, replace=False)
    synthetic_rows = random.choice(there["synthetic"], half, replace=False)
    images = np.concatenate([dataset.images(split)[np.sort(real_rows)], synthetic[np.sort(synthetic_rows)]])
    sources = dataset.sources(split)
    key = [{"synthetic": False, "source": sources[row]} for row in np.sort(real_rows)]
    key += [{"synthetic": True, "source": f"sample {row}"} for row in np.sort(synthetic_rows)]
    shuffled = random.permutation(2 * half)

    client = stores.client
    name = f"{version.name} version {version.version}, {2 * half} slices"
    run = client.create_run(
        open_experiment(client, stores.tracking, READER_EXPERIMENT), run_name=name, tags=_tags(version)
    )
    settings = {"num": 2 * half, "seed": seed, "split": split, "dataset_version": dataset.version, "drawn": how}
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


def _tags(version: RegisteredVersion) -> dict[str, str]:
    return {
        "lwddpm.kind": KIND,
        "lwddpm.model": version.name,
        "lwddpm.model_version": str(version.version),
        "mlflow.note.content": (
            f"Readers tell slices of models:/{version.name}/{version.version} from real ones. "
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
    return [_reader(stores, run) for run in runs]


def _reader(stores: Stores, run: Run) -> Reader:
    history = stores.client.get_metric_history(run.info.run_id, ANSWER) if ANSWER in run.data.metrics else []
    answers = {m.step: bool(m.value) for m in sorted(history, key=lambda m: m.timestamp)}  # the last one counts
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
    return _reader(stores, run)


def answer(stores: Stores, study: Study, reader: Reader, position: int, synthetic: bool, seconds: float) -> Reader:
    """Keep an answer; the last one that is missing ends the reader's run and logs what came out.

    Raises:
        ConfigError: the reader has finished, or has not come to this position yet.
    """
    if reader.finished:
        raise ConfigError("this reader has finished: the answers stand")
    if not 0 <= position <= len(reader.answers) or position >= study.num:
        raise ConfigError(f"position: the next one is {len(reader.answers)}, got {position}")
    now = int(time.time() * 1000)
    kept = [Metric(ANSWER, float(synthetic), now, position), Metric(SECONDS, seconds, now, position)]
    stores.client.log_batch(reader.run_id, metrics=kept)
    answers = reader.answers | {position: synthetic}
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


def _metrics(result: Outcome, step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    low, high = result.accuracy.interval
    values = {
        "reader/accuracy": result.accuracy.value,
        "reader/accuracy_low": low,
        "reader/accuracy_high": high,
        "reader/n": float(result.accuracy.of),
        "reader/found_synthetic": result.found_synthetic.value,
        "reader/found_real": result.found_real.value,
    }
    return [Metric(key, value, now, step) for key, value in values.items()]


def outcome(stores: Stores, study: Study, finished: list[Reader]) -> Outcome:
    """Right answers of finished readers together; each has judged every slice."""
    reviews = [sorted(review(stores, study, reader), key=lambda row: row["item"]) for reader in finished]
    right = np.array([[row["right"] for row in rows] for rows in reviews])
    synthetic = np.array([row["synthetic"] for row in reviews[0]])
    return Outcome(Share.of_slices(right), Share.of_slices(right[:, synthetic]), Share.of_slices(right[:, ~synthetic]))


def review(stores: Stores, study: Study, reader: Reader) -> list[dict[str, Any]]:
    """A reader's answers beside the truth, in the order in which they were given."""
    key, order = _key(stores, study.run_id), study.order(reader.name)
    return [
        {
            "position": position,
            "item": int(order[position]),
            **key[order[position]],
            "said_synthetic": said,
            "right": said == key[order[position]]["synthetic"],
        }
        for position, said in sorted(reader.answers.items())
    ]


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
