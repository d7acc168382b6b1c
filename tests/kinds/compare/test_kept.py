"""The bench makes every measurement once, and finds it again in another process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lwddpm.cluster.session import Session
from lwddpm.config import EvaluationConfig, SamplingConfig, WorkersConfig
from lwddpm.data.store import Dataset
from lwddpm.kinds.compare import kept as module
from lwddpm.kinds.compare.kept import Bench

CONFIG = EvaluationConfig(metrics=("fd_lite0", "ssim_pairs"), num_samples=4, num_reference=8, num_inference_steps=2)


@pytest.fixture
def open_bench(
    tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[Bench, list[str]]]:
    """Opens the same bench, as another process would, and tells what it computes."""

    def extract(name: str, images: np.ndarray) -> torch.Tensor:
        computed.append(f"features {len(images)}")
        return torch.from_numpy(images.reshape(len(images), -1)[:, ::37].astype(np.float32))

    def draw(*arguments: object) -> np.ndarray:
        computed.append(f"samples {arguments[2]}")
        return generate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setenv("LWDDPM_CACHE", str(tmp_path / "cache"))  # statistics of these features are nobody else's
    computed: list[str] = []
    generate = module.generate_images
    monkeypatch.setattr(module, "generate_images", draw)
    monkeypatch.setattr(module, "feature_extraction", lambda *_: extract)

    def make() -> tuple[Bench, list[str]]:
        computed.clear()
        return Bench(tmp_path / "bench", tiny_dataset, Session(WorkersConfig()), None), computed

    return make


def test_fewer_samples_are_the_first_of_many(
    open_bench: Callable[..., tuple[Bench, list[str]]], model_dir: Path
) -> None:
    bench, computed = open_bench()
    sampling = SamplingConfig(num_inference_steps=2)
    many = bench.samples(model_dir, sampling, 5)
    assert np.array_equal(bench.samples(model_dir, sampling, 3), many[:3])
    other = bench.samples(model_dir, sampling.model_copy(update={"seed": 1}), 3)
    assert not np.array_equal(other, many[:3])
    assert computed == ["samples 5", "samples 3"]
    again, computed = open_bench()
    assert np.array_equal(again.samples(model_dir, sampling, 5), many)
    assert computed == []


def test_a_measurement_is_made_once(open_bench: Callable[..., tuple[Bench, list[str]]], model_dir: Path) -> None:
    bench, computed = open_bench()
    result = bench.measure(model_dir, CONFIG)
    assert computed == ["samples 4", "features 4", "features 8", "features 4"], "generated, training, held-out slices"
    again, computed = open_bench()
    assert again.knows(model_dir, CONFIG)
    assert again.measure(model_dir, CONFIG) == result
    assert computed == []
    assert not again.knows(model_dir, CONFIG.model_copy(update={"num_inference_steps": 3}))


def test_what_an_evaluation_made_is_taken_over(
    open_bench: Callable[..., tuple[Bench, list[str]]], model_dir: Path
) -> None:
    bench, _ = open_bench()
    result, images = bench.measure(model_dir, CONFIG), bench.samples(model_dir, CONFIG, 4)
    other = CONFIG.model_copy(update={"seed": 9})
    again, computed = open_bench()
    again.adopt(model_dir, other, images, result)
    assert again.measure(model_dir, other) == result
    assert np.array_equal(again.samples(model_dir, other, 4), images)
    assert computed == []
