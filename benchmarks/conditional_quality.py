"""What telling a model the class brings: trainings with conditions beside trainings without, of one dataset.

    python benchmarks/conditional_quality.py runs/kaggle-conditional-* --unconditional runs/best-small-*

Takes run folders of finished trainings; nothing is drawn anew. The drawings of unconditional models are sorted into
classes by the judges that measure obedience, so that both have a Frechet distance within each class.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from lwddpm.data.store import Dataset, open_dataset
from lwddpm.evaluation.features import load_extractor
from lwddpm.evaluation.inputs import MetricInputs
from lwddpm.evaluation.obedience import EXTRACTOR, judges_of, obedience
from lwddpm.evaluation.result import EvaluationResult, MetricRecord
from lwddpm.evaluation.subset import random_subset
from lwddpm.training.stored_files import read_json_file

COLUMNS = ("fd_lite0", "unguided", "precision", "recall", "recall unguided", "obedience", "of its floor", "in class")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of trainings with model.conditions")
    parser.add_argument("--unconditional", type=Path, nargs="+", default=[], help="run folders of those without")
    parser.add_argument("--dataset", required=True, help="the prepared dataset of all of them")
    given = parser.parse_args()
    dataset = open_dataset(given.dataset)
    print(f"| training | {' | '.join(COLUMNS)} |\n|---|{'---:|' * len(COLUMNS)}")
    for title, runs in (("told the class", given.runs), ("told nothing", given.unconditional)):
        rows = [list(figures(run, dataset)) for run in runs]
        for run, row in zip(runs, rows, strict=True):
            print(f"| {run.name} | {' | '.join(map(_shown, row))} |")
        if rows:
            print(f"| **{title}, mean of {len(rows)}** | {' | '.join(map(_shown, np.mean(rows, 0)))} |")


def figures(run: Path, dataset: Dataset) -> Iterator[float]:
    """The columns of a run folder; NaN: there is no such figure."""
    result = read_json_file(run / "evaluation.json", EvaluationResult)
    if result.dataset_version != dataset.version:
        raise SystemExit(f"{run}: was evaluated on dataset {result.dataset_version}, not on {dataset.version}")
    guided, plain = _by_name(result.records), _by_name(result.unguided)
    for name, of in (("fd_lite0", guided), ("fd_lite0", plain), ("precision_lite0", guided), ("recall_lite0", guided)):
        yield _value(of, name)
    yield _value(plain, "recall_lite0")
    told = guided.get("obedience_lite0")
    yield _value(guided, "obedience_lite0")
    yield told.value / told.floor if told is not None and told.floor else np.nan
    within = guided.get("fd_lite0_in_class") or _sorted_by_the_judges(run, dataset, result)
    yield within.value if within is not None else np.nan


def _sorted_by_the_judges(run: Path, dataset: Dataset, result: EvaluationResult) -> MetricRecord | None:
    """The Frechet distance within classes of drawings that were asked for none."""
    extractor = load_extractor(EXTRACTOR, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    drawn = np.load(run / "samples.npy")
    held_out = random_subset(np.concatenate([dataset.images("validation"), dataset.images("test")]), len(drawn))
    inputs = MetricInputs(
        drawn,
        held_out,
        dataset,
        result.config,
        lambda name, images: extractor(torch.from_numpy(np.array(images))),
    )
    verdicts = judges_of(inputs).judge(inputs.features(EXTRACTOR))
    most = [np.bincount(column, minlength=len(dataset.label_names)).argmax() for column in verdicts.T]
    records, _ = obedience(inputs, [dataset.label_names[code] for code in most])
    return _by_name(records).get("fd_lite0_in_class")


def _by_name(records: tuple[MetricRecord, ...] | list[MetricRecord]) -> dict[str, MetricRecord]:
    return {record.name: record for record in records}


def _value(records: dict[str, MetricRecord], name: str) -> float:
    return records[name].value if name in records else np.nan


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1f}" if value > 2 else f"{value:.2f}"


if __name__ == "__main__":
    main()
