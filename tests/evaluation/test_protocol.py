import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from lwddpm.config import DataConfig, EvaluationConfig
from lwddpm.data.prepare import prepare_dataset
from lwddpm.errors import DataError
from lwddpm.evaluation.features import WEIGHTS_SHA256, WeightsUnavailable
from lwddpm.evaluation.protocol import evaluate, num_evaluated
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.evaluation.similarity import ssim, ssim_nearest

SIZE = 24


def blobs(n, seed):
    noise = np.random.default_rng(seed).standard_normal((n, SIZE, SIZE))
    blurred = gaussian_filter(noise, (0, 2, 2), mode="wrap")
    return (128 + 60 * blurred / blurred.std((1, 2), keepdims=True)).clip(0, 255).astype(np.uint8)


def serial(function, items, *, description):
    return map(function, items)


def prepared(folder, splits, num=120):
    source = folder / "source"
    for index, image in enumerate(blobs(num, 0)):
        path = source / f"class{index % 2}" / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    data = DataConfig(source=str(source), path=str(folder / "dataset"), image_size=SIZE, splits=splits)
    return prepare_dataset(data, serial)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("data"), (0.6, 0.2, 0.2))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LWDDPM_CACHE", str(tmp_path))
    return tmp_path


class Pixels:
    """A feature extractor that can be checked by hand: the slice in 16 averages. Keeps count."""

    def __init__(self):
        self.calls = []

    def __call__(self, name, images):
        self.calls.append((name, len(images)))
        return torch.tensor(images).float().unfold(1, 6, 6).unfold(2, 6, 6).mean((3, 4)).flatten(1)


def add_noise(images, timestep):
    noise = np.random.default_rng(0).normal(0, timestep, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)


def fit(images):
    features = Pixels()("", images).double().numpy()
    return features.mean(0), np.cov(features, rowvar=False)


def scipy_frechet(first, second):
    (m1, s1), (m2, s2) = fit(first), fit(second)
    return ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)


def test_every_figure_is_what_its_protocol_says(dataset):
    config = EvaluationConfig(num_samples=1000, reconstruction_timestep=20, num_inference_steps=7, sampler="ddpm")
    n = num_evaluated(dataset, config)
    held_out = np.concatenate([dataset.images("validation"), dataset.images("test")])
    assert n == len(held_out)
    generated = blobs(n, 1)

    result = evaluate(generated, dataset, config, extract=Pixels(), reconstruct=add_noise)

    records = {record.name: record for record in result.records}
    few = {"fid_infinity", "fd_lite0_infinity"}  # n is too small for an extrapolation
    assert set(records) == set(config.metrics) - few
    assert {missing.name for missing in result.unavailable} == few
    train = dataset.images("train")
    for name in ("fid", "fd_lite0"):
        assert records[name].value == pytest.approx(scipy_frechet(train, generated), rel=1e-6)
        assert records[name].floor == pytest.approx(scipy_frechet(train, held_out), rel=1e-6)
        assert records[name].num_reference == len(train)
        assert records[name].weights_sha256 == WEIGHTS_SHA256[name]
    nearest = records["ssim_nearest"]
    test, validation = dataset.images("test"), dataset.images("validation")
    assert nearest.value == pytest.approx(ssim_nearest(generated, test)[0].mean().item())
    assert nearest.floor == pytest.approx(ssim_nearest(validation, test)[0].mean().item())
    assert nearest.num_reference == len(test)
    restored = records["ssim_reconstruction"]
    assert restored.value == pytest.approx(ssim(held_out, add_noise(held_out, 20)).mean().item())
    assert (restored.floor, restored.sampler, restored.num_inference_steps) == (None, "ddim", 21)
    for record in result.records:
        assert (record.n, record.image_size) == (n, SIZE)
    assert (nearest.sampler, nearest.num_inference_steps) == ("ddpm", 7)


def test_slices_of_all_classes_are_reconstructed(tmp_path):
    """Rows are ordered by class: the first 64 of them would all be of one."""
    dataset = prepared(tmp_path, (0.2, 0.4, 0.4), num=400)
    class_of = {
        image.tobytes(): label
        for split in ("validation", "test")
        for image, label in zip(dataset.images(split), dataset.labels(split), strict=True)
    }
    seen = []

    def reconstruct(images, timestep):
        seen.extend(class_of[image.tobytes()] for image in images)
        return images

    config = EvaluationConfig(metrics=("ssim_reconstruction",), num_samples=1000)
    (record,) = evaluate(blobs(200, 1), dataset, config, reconstruct=reconstruct).records
    assert record.n == len(seen) == 64
    assert np.bincount(seen).min() > 20


def test_real_slices_in_place_of_generated_ones_score_the_floor(dataset):
    held_out = np.concatenate([dataset.images("validation"), dataset.images("test")])
    config = EvaluationConfig(metrics=("fid", "ssim_pairs"))
    for record in evaluate(held_out, dataset, config, extract=Pixels()).records:
        assert record.value == pytest.approx(record.floor)


def test_value_and_floor_have_the_same_n_when_fewer_are_asked_for(dataset):
    config, extract = EvaluationConfig(metrics=("fid",), num_samples=20, num_reference=30), Pixels()
    (record,) = evaluate(blobs(40, 1), dataset, config, extract=extract).records
    assert (record.n, record.num_reference) == (20, 30)
    assert sorted(extract.calls) == [("fid", 20), ("fid", 20), ("fid", 30)]


def test_real_statistics_are_computed_once_per_dataset_and_extractor(dataset):
    config, extract = EvaluationConfig(metrics=("fid", "fd_lite0")), Pixels()
    n = num_evaluated(dataset, config)
    first = evaluate(blobs(n, 1), dataset, config, extract=extract)
    assert len(extract.calls) == 6
    again = evaluate(blobs(n, 1), dataset, config.model_copy(update={"seed": 5}), extract=extract)
    assert extract.calls[6:] == [("fid", n), ("fd_lite0", n)]
    assert again.metrics() == first.metrics()


def test_missing_weights_are_reported_and_nothing_takes_their_place(dataset):
    def extract(name, images):
        if name == "fid":
            raise WeightsUnavailable("fid: no connection; fetch the file")
        return Pixels()(name, images)

    config = EvaluationConfig(metrics=("fid", "fd_lite0", "ssim_reconstruction"))
    result = evaluate(blobs(20, 1), dataset, config, extract=extract)
    assert [record.name for record in result.records] == ["fd_lite0"]
    reasons = {missing.name: missing.reason for missing in result.unavailable}
    assert reasons["fid"] == "no connection; fetch the file"  # its name stands beside it
    assert "fid: unavailable: no connection" in result.table()
    older = result.model_dump() | {"unavailable": [{"name": "fid", "reason": "fid: no weights"}]}
    assert EvaluationResult.model_validate(older).unavailable[0].reason == "no weights"
    assert "model" in reasons["ssim_reconstruction"]
    copied = {"eval/copied_share", "eval/copied_share_floor"}
    assert set(result.metrics()) == {"eval/fd_lite0", "eval/fd_lite0_floor"} | copied
    assert "| fid | unavailable |" in result.table()
    assert "no connection" in result.table()


def test_local_extraction_reports_progress_up_to_the_total(dataset):
    seen = {}

    def on_progress(description, completed, total):
        assert completed <= total
        seen[description] = (completed, total)

    config = EvaluationConfig(metrics=("fd_lite0", "ssim_nearest"), num_samples=4, num_reference=4)
    result = evaluate(blobs(4, 1), dataset, config, on_progress=on_progress)
    assert result.metrics()["eval/fd_lite0"] > 0
    assert len(seen) == 2
    assert all(completed == total for completed, total in seen.values())


def test_result_survives_json_and_its_table_names_what_a_reader_needs(dataset):
    config = EvaluationConfig(metrics=("fd_lite0", "ssim_pairs"))
    result = evaluate(torch.from_numpy(blobs(30, 1)), dataset, config, extract=Pixels())
    assert EvaluationResult.model_validate(json.loads(result.model_dump_json())) == result
    row = next(line for line in result.table().splitlines() if line.startswith("| fd_lite0"))
    for wanted in (
        "30",
        f"{dataset.num('train')} train",
        f"{SIZE} px",
        "EfficientNet-Lite0 (57934424)",
        "ddim, 50 steps",
    ):
        assert wanted in row
    assert dataset.version[:12] in result.table()


def test_figures_by_class_and_by_side_are_tables_of_their_own(dataset):
    result = evaluate(blobs(30, 1), dataset, EvaluationConfig(metrics=("fd_lite0", "out_of_band")), extract=Pixels())
    record, band = result.records
    recall, coverage = (
        record.model_copy(update={"name": name, "parts": {"a|b*": low, "c_d": 0.5}})
        for name, low in (("recall_lite0", 0.25), ("coverage_lite0", 0.75))
    )
    result = result.model_copy(update={"records": (recall, band, coverage)})
    of_class, of_side = result.by_part()
    assert of_class == ("class", ("recall_lite0", "coverage_lite0"), {"a|b*": (0.25, 0.75), "c_d": (0.5, 0.5)})
    assert (of_side.what, of_side.metrics) == ("side", ("out_of_band",))
    assert {side: values[0] for side, values in of_side.rows.items()} == band.parts
    lines = result.table().splitlines()
    start = lines.index("| class | recall_lite0 | coverage_lite0 |")
    assert lines[start + 1 : start + 5] == [
        "|---|---:|---:|", "| a\\|b\\* | 0.250 | 0.750 |", "| c\\_d | 0.500 | 0.500 |", "",
    ]  # fmt: skip
    assert "| side | out_of_band |" in lines


def test_one_held_out_split_gives_no_floor_for_the_nearest_match(tmp_path):
    dataset = prepared(tmp_path, (0.7, 0.3, 0.0))
    (record,) = evaluate(blobs(20, 1), dataset, EvaluationConfig(metrics=("ssim_nearest",))).records
    assert record.floor is None
    assert record.num_reference == dataset.num("validation")


def test_without_held_out_slices_there_is_nothing_to_compare_with(tmp_path):
    dataset = prepared(tmp_path, (1.0, 0.0, 0.0))
    with pytest.raises(DataError, match=r"data\.splits"):
        evaluate(blobs(20, 1), dataset, EvaluationConfig())


@pytest.mark.parametrize("images", [np.zeros((5, 32, 32), np.uint8), np.zeros((5, SIZE, SIZE)), blobs(1, 0)])
def test_images_that_are_not_the_datasets_kind_are_refused(dataset, images):
    with pytest.raises(ValueError, match=f"uint8 .*{SIZE}"):
        evaluate(images, dataset, EvaluationConfig())
