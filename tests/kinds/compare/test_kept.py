"""Every measurement is made once, and read in another process."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lwddpm.cluster.session import Session
from lwddpm.config import EvaluationConfig, SamplingConfig, WorkersConfig
from lwddpm.data.store import Dataset
from lwddpm.diffusion.gaussian import fit_gaussian
from lwddpm.diffusion.prior import fit_prior
from lwddpm.kinds.compare import kept as module
from lwddpm.kinds.compare.kept import MeasurementCache
from lwddpm.kinds.compare.plan import without_network
from lwddpm.kinds.evaluate import Evaluation
from lwddpm.training.stored_prior import write_prior

CONFIG = EvaluationConfig(metrics=("fd_lite0", "ssim_pairs"), num_samples=4, num_reference=8, num_inference_steps=2)


@pytest.fixture
def open_cache(
    tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[MeasurementCache, list[str]]]:
    """Opens the same cache, as another process would, and tells what it computes."""

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

    def make() -> tuple[MeasurementCache, list[str]]:
        computed.clear()
        return MeasurementCache(tmp_path / "kept", tiny_dataset, Session(WorkersConfig()), None), computed

    return make


def test_fewer_samples_are_the_first_of_many(
    open_cache: Callable[..., tuple[MeasurementCache, list[str]]], model_dir: Path
) -> None:
    cache, computed = open_cache()
    sampling = SamplingConfig(num_inference_steps=2)
    many = cache.samples(model_dir, sampling, 5)
    assert np.array_equal(cache.samples(model_dir, sampling, 3), many[:3])
    other = cache.samples(model_dir, sampling.model_copy(update={"seed": 1}), 3)
    assert not np.array_equal(other, many[:3])
    assert computed == ["samples 5", "samples 3"]
    again, computed = open_cache()
    assert np.array_equal(again.samples(model_dir, sampling, 5), many)
    assert computed == []


def test_samples_from_another_start_are_other_samples(
    open_cache: Callable[..., tuple[MeasurementCache, list[str]]], model_dir: Path, tmp_path: Path
) -> None:
    cache, computed = open_cache()
    sampling = SamplingConfig(num_inference_steps=2)
    before = cache.samples(model_dir, sampling, 3)
    calibrated = tmp_path / "calibrated"
    shutil.copytree(model_dir, calibrated)
    write_prior(calibrated, fit_prior(torch.tensor(cache.dataset.images("train")), directions=1))
    own = cache.samples(calibrated, sampling, 3)
    assert not np.array_equal(own, before), "a model that got a prior later is sampled again"
    noise = sampling.model_copy(update={"start": "noise", "calibrate": False})
    assert np.array_equal(cache.samples(calibrated, noise, 3), before)
    assert computed == ["samples 3"] * 3


def test_slices_in_another_number_format_are_other_slices(
    open_cache: Callable[..., tuple[MeasurementCache, list[str]]], model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those that an earlier version, or another machine, has drawn in float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    cache, _ = open_cache()
    assert cache.evaluation(model_dir, CONFIG).records[0].precision == "fp32"
    assert cache.evaluation(None, without_network(CONFIG)).records[0].precision is None
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    cache, computed = open_cache()
    assert cache.has(None, without_network(CONFIG))
    assert not cache.has(model_dir, CONFIG)
    assert cache.evaluation(model_dir, CONFIG).records[0].precision == "bf16"
    assert computed[0] == "samples 4"


def test_a_conditional_model_is_asked_whether_it_obeys(
    open_cache: Callable[..., tuple[MeasurementCache, list[str]]], model_dir: Path, conditional_dir: Path
) -> None:
    cache, _ = open_cache()
    told = {record.name: record for record in cache.evaluation(conditional_dir, CONFIG).records}
    assert told["obedience_lite0"].n == CONFIG.num_samples
    assert cache.evaluation(conditional_dir, CONFIG).confusion is not None
    other = CONFIG.model_copy(update={"seed": 1})  # the two are of one training digest, and so of one name in the cache
    assert "obedience_lite0" not in {record.name for record in cache.evaluation(model_dir, other).records}


def test_the_gaussian_draws_without_a_model(
    open_cache: Callable[..., tuple[MeasurementCache, list[str]]],
) -> None:
    cache, computed = open_cache()
    config = without_network(CONFIG)
    train = torch.tensor(cache.dataset.images("train"))
    assert np.array_equal(cache.samples(None, config, 4), fit_gaussian(train).draw(range(4), config.seed).numpy())
    result = cache.evaluation(None, config)
    assert {record.name: record.n for record in result.records} == {"fd_lite0": 4, "ssim_pairs": 4}
    assert computed == ["features 4", "features 8", "features 4"]
    again, computed = open_cache()
    assert again.has(None, config)
    assert again.evaluation(None, config) == result
    assert computed == []


def test_a_measurement_is_made_once(
    open_cache: Callable[..., tuple[MeasurementCache, list[str]]], model_dir: Path
) -> None:
    cache, computed = open_cache()
    result = cache.evaluation(model_dir, CONFIG)
    assert computed == ["samples 4", "features 4", "features 8", "features 4"], "generated, training, held-out slices"
    again, computed = open_cache()
    assert again.has(model_dir, CONFIG)
    assert again.evaluation(model_dir, CONFIG) == result
    assert computed == []
    assert not again.has(model_dir, CONFIG.model_copy(update={"num_inference_steps": 3}))


def test_what_an_evaluation_made_is_taken_over(
    open_cache: Callable[..., tuple[MeasurementCache, list[str]]], model_dir: Path
) -> None:
    cache, _ = open_cache()
    result, images = cache.evaluation(model_dir, CONFIG), cache.samples(model_dir, CONFIG, 4)
    other = CONFIG.model_copy(update={"seed": 9})
    again, computed = open_cache()
    again.add(model_dir, other, Evaluation(result, images))
    assert again.evaluation(model_dir, other) == result
    assert np.array_equal(again.samples(model_dir, other, 4), images)
    assert computed == []


def test_a_file_that_cannot_be_read_is_made_again(
    open_cache: Callable[..., tuple[MeasurementCache, list[str]]], model_dir: Path, tmp_path: Path
) -> None:
    cache, computed = open_cache()
    result = cache.evaluation(model_dir, CONFIG)
    made = list(computed)
    for path in (tmp_path / "kept").glob("*/*"):
        path.write_bytes(b"{")
    again, computed = open_cache()
    assert not again.has(model_dir, CONFIG)
    assert again.evaluation(model_dir, CONFIG) == result
    assert set(computed) <= set(made)
    assert computed[:2] == made[:2]
