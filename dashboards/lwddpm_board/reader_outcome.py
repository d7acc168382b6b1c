"""What comes out of a reader study: answers beside the truth, and how often they are right."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lwddpm_board.class_reading import ClassOutcome
from lwddpm_board.reader_study import Reader, Study, key, readers, studies
from lwddpm_board.shares import Share
from lwddpm_board.stores import Stores


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
    truths, order = key(stores, study.run_id), study.order(reader.name)
    names = study.classes or ("real", "synthetic")
    rows = []
    for position, said in sorted(reader.answers.items()):
        entry = truths[order[position]]
        truth = entry["class"] if study.question == "class" else names[entry["synthetic"]]
        about = {"position": position, "item": int(order[position]), **entry}
        if study.question == "synthetic":
            about["said_synthetic"] = bool(said)
        rows.append(about | {"said": names[said], "truth": truth, "right": names[said] == truth})
    return rows


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
