"""What an evaluation leaves in a run folder; evaluate jobs themselves are run in test_jobs.py."""

from pathlib import Path

import numpy as np
import pytest

from lwddpm.config import EvaluationConfig
from lwddpm.evaluation.result import EvaluationResult, MetricRecord
from lwddpm.kinds.evaluate import Evaluation


@pytest.fixture
def evaluation() -> Evaluation:
    record = MetricRecord(
        name="ssim_pairs",
        value=0.25,
        floor=0.5,
        n=3,
        num_reference=None,
        reference="itself",
        image_size=16,
        extractor=None,
        weights_sha256=None,
        sampler="ddim",
        num_inference_steps=3,
        protocol="",
    )
    config = EvaluationConfig(metrics=("ssim_pairs",), num_samples=3)
    result = EvaluationResult(dataset_version="v", simulated=True, config=config, records=(record,), unavailable=())
    return Evaluation(result, np.arange(3 * 256, dtype=np.uint8).reshape(3, 16, 16))


def test_it_is_read_as_it_was_saved(evaluation: Evaluation, tmp_path: Path) -> None:
    assert Evaluation.load(tmp_path) is None
    evaluation.save(tmp_path)
    read = Evaluation.load(tmp_path)
    assert read is not None
    assert read.result == evaluation.result
    assert np.array_equal(read.samples, evaluation.samples)
    assert read.samples.dtype == np.uint8


@pytest.mark.parametrize("file", ["evaluation.json", "samples.npy"])
def test_half_of_one_is_none(evaluation: Evaluation, tmp_path: Path, file: str) -> None:
    evaluation.save(tmp_path)
    (tmp_path / file).write_bytes(b"{")
    assert Evaluation.load(tmp_path) is None
    (tmp_path / file).unlink()
    assert Evaluation.load(tmp_path) is None
