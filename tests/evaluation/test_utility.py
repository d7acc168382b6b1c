"""What a classifier learns from drawings: of slices whose class is known, told rightly and wrongly."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lwddpm.config import EvaluationConfig
from lwddpm.data.store import Dataset
from lwddpm.evaluation.protocol import evaluate
from lwddpm.evaluation.result import MetricRecord

NUM = 12
CONFIG = EvaluationConfig(metrics=("ssim_pairs",), num_samples=NUM)
Measured = Callable[[int], MetricRecord | None]


@pytest.fixture(autouse=True)
def keeps_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of these tests must not lie where other tests look for real ones."""
    for module in ("inputs", "obedience"):
        monkeypatch.setattr(f"lwddpm.evaluation.{module}.cached", lambda path, make, **how: make())


@pytest.fixture
def measured(tiny_dataset: Dataset) -> Measured:
    """Training slices as drawings, which are said to be of a class so many further on than their own."""
    known = {
        image.tobytes(): label
        for split in ("train", "validation", "test")
        for image, label in zip(tiny_dataset.images(split), tiny_dataset.labels(split), strict=True)
    }

    def features(name: str, images: np.ndarray) -> torch.Tensor:
        rng = np.random.default_rng(0)
        rows = [np.eye(8)[known[image.tobytes()]] + 0.05 * rng.standard_normal(8) for image in images]
        return torch.tensor(np.array(rows), dtype=torch.float32)

    labels, images, names = tiny_dataset.labels("train"), tiny_dataset.images("train"), tiny_dataset.label_names
    rows = np.concatenate([np.flatnonzero(labels == code)[:3] for code in range(4)])

    def measure(further: int) -> MetricRecord | None:
        asked = [names[(labels[row] + further) % 4] for row in rows]
        result = evaluate(images[rows], tiny_dataset, CONFIG, extract=features, asked=asked)
        return {record.name: record for record in result.records}.get("utility_lite0")

    return measure


def test_drawings_of_the_right_class_teach_what_real_slices_do(measured: Measured) -> None:
    record = measured(0)
    assert record is not None
    assert (record.value, record.floor, record.n) == (1, 1, NUM)
    assert set(record.parts.values()) == {1}


def test_drawings_of_wrong_classes_teach_nothing(measured: Measured, tiny_dataset: Dataset) -> None:
    record = measured(1)
    assert record is not None
    assert (record.value, record.floor) == (0, 1)  # the floor is of real slices and of their own classes
    assert set(record.parts) == {tiny_dataset.label_names[code] for code in set(tiny_dataset.labels("validation"))}


def test_drawings_of_one_class_teach_no_difference(tiny_dataset: Dataset) -> None:
    images = np.array(tiny_dataset.images("train")[:NUM])
    result = evaluate(
        images,
        tiny_dataset,
        CONFIG,
        extract=lambda name, slices: torch.zeros(len(slices), 4),
        asked=[tiny_dataset.label_names[0]] * NUM,
    )
    assert "utility_lite0" not in {record.name for record in result.records}
