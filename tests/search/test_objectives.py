from pathlib import Path

import numpy as np
import pytest
import torch

from lwddpm.config import DiffusionConfig, EvaluationConfig, ModelConfig, SearchJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.sampling import generate
from lwddpm.errors import DataError, JobError
from lwddpm.jobfile import load_job
from lwddpm.models.build import build_model, count_parameters
from lwddpm.search.objectives import check_objectives, measure, num_slices
from lwddpm.training.stored_model import SavedModel, load_model, save_model

MODEL = ModelConfig(dim=8, dim_mults=(1, 2))
PROXY = EvaluationConfig(num_samples=6, sampler="ddim", num_inference_steps=2)
CPU = torch.device("cpu")


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    saved = SavedModel(
        model=MODEL,
        diffusion=DiffusionConfig(),
        image_size=16,
        dataset_version="v",
        dataset_simulated=True,
        training_digest="d",
        step=3,
        epoch=0.5,
        parameters=count_parameters(MODEL),
    )
    return save_model(tmp_path / "model", build_model(MODEL), saved)


def test_named_objectives_are_measured_on_the_samples_that_are_shown(model_dir: Path, tiny_dataset: Dataset) -> None:
    shown: list[tuple[float, np.ndarray]] = []
    names = ("eval/ssim_nearest", "parameters", "sampling_seconds", "val/loss")
    found = measure(names, model_dir, tiny_dataset, PROXY, CPU, show=lambda *sent: shown.append(sent))
    assert set(found) == {"eval/ssim_nearest", "parameters", "sampling_seconds"}
    assert found["parameters"] == count_parameters(MODEL)
    assert found["sampling_seconds"] > 0
    ((epoch, images),) = shown
    model, saved = load_model(model_dir, CPU)
    expected = generate(model, saved.diffusion, PROXY, range(6), 16, CPU)
    assert epoch == 0.5
    np.testing.assert_array_equal(images, expected.numpy())


def test_precision_and_recall_are_measured_with_the_extractor_of_their_names(
    model_dir: Path, tiny_dataset: Dataset
) -> None:
    names = ("eval/precision_lite0", "eval/recall_lite0")
    found = measure(names, model_dir, tiny_dataset, PROXY, CPU, show=lambda *sent: None)
    assert found.keys() == set(names)
    assert all(0 <= value <= 1 for value in found.values())


def test_precision_takes_more_slices_than_neighbours(tiny_dataset: Dataset) -> None:
    overrides = ["search.objectives=[eval/recall_lite0,eval/precision_lite0]", "search.prune_on=eval/fd_lite0"]
    for num, fits in ((5, False), (6, True)):
        job = load_job("search_demo", [*overrides, f"search.proxy.num_samples={num}"])
        assert isinstance(job, SearchJob)
        if fits:
            check_objectives(job, tiny_dataset)
        else:
            with pytest.raises(DataError, match=r"eval/recall_lite0 takes more than 5 slices.*got 5"):
                check_objectives(job, tiny_dataset)


def test_a_trial_that_returns_training_slices_fails_although_its_distance_is_least(
    model_dir: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = torch.from_numpy(np.array(tiny_dataset.images("train")))
    held_out = np.concatenate([tiny_dataset.images("validation"), tiny_dataset.images("test")])
    proxy = PROXY.model_copy(update={"num_samples": len(held_out)})
    monkeypatch.setattr("lwddpm.search.objectives.generate", lambda *given, **more: copies[: len(held_out)])
    with pytest.raises(JobError, match="returns training slices"):
        measure(("eval/ssim_pairs",), model_dir, tiny_dataset, proxy, CPU, show=lambda *sent: None)
    honest = torch.from_numpy(held_out)
    monkeypatch.setattr("lwddpm.search.objectives.generate", lambda *given, **more: honest)
    assert "eval/ssim_pairs" in measure(("eval/ssim_pairs",), model_dir, tiny_dataset, proxy, CPU, show=lambda *s: None)


def test_the_copied_share_is_an_objective_and_a_constraint(
    model_dir: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = np.concatenate([tiny_dataset.images("validation"), tiny_dataset.images("test")])
    num = len(held_out)
    proxy = PROXY.model_copy(update={"num_samples": num})
    names = ("eval/ssim_pairs", "audit/copied_share")

    def measured(copied: int, most_copied: float | None) -> dict[str, float]:
        slices = np.concatenate([tiny_dataset.images("train")[:copied], held_out[copied:]])
        drawn = torch.from_numpy(slices)
        monkeypatch.setattr("lwddpm.search.objectives.generate", lambda *given, **more: drawn)
        return measure(names, model_dir, tiny_dataset, proxy, CPU, show=lambda *s: None, most_copied=most_copied)

    assert measured(0, None)["audit/copied_share"] < 0.1
    assert measured(num, 0.5)["audit/copied_share"] == 1
    for limit in (None, 1.0):  # no constraint, and one that would let it through
        with pytest.raises(JobError, match="returns training slices"):
            measured(num, limit)
    alone = measure(names[1:], model_dir, tiny_dataset, proxy, CPU, show=lambda *s: None, most_copied=0.5)
    assert alone == {"audit/copied_share": 1.0}


def test_a_model_that_is_told_the_class_is_judged_by_what_comes_of_it(
    model_dir: Path, conditional_dir: Path, tiny_dataset: Dataset
) -> None:
    names = ("eval/utility_lite0", "eval/obedience_lite0", "eval/ssim_pairs")
    measured = measure(names, conditional_dir, tiny_dataset, PROXY, CPU, show=lambda *s: None)
    assert set(measured) == set(names)  # fd_lite0_in_class comes beside obedience, and nobody asked for it
    assert 0 <= measured["eval/utility_lite0"] <= 1
    with pytest.raises(JobError, match="eval/utility_lite0 cannot be measured"):
        measure(names[:1], model_dir, tiny_dataset, PROXY, CPU, show=lambda *s: None)  # is told nothing


def test_each_objective_has_the_number_of_slices_that_it_is_measured_on(tiny_dataset: Dataset) -> None:
    names = "val/loss,eval/ssim_nearest,eval/ssim_reconstruction,sampling_seconds,parameters"
    job = load_job(
        "search_demo", [f"search.objectives=[{names}]", "search.prune_on=val/loss", "training.validation_samples=4"]
    )
    assert isinstance(job, SearchJob)
    held_out = tiny_dataset.num("validation") + tiny_dataset.num("test")
    assert num_slices(job, tiny_dataset) == {
        "val/loss": 4, "eval/ssim_nearest": held_out, "eval/ssim_reconstruction": held_out, "sampling_seconds": 16
    }  # fmt: skip


def test_without_an_image_metric_nothing_is_drawn(model_dir: Path, tiny_dataset: Dataset) -> None:
    def refuse(*sent: object) -> None:
        raise AssertionError("drawn for nothing")

    assert measure(("parameters",), model_dir, tiny_dataset, PROXY, CPU, show=refuse).keys() == {"parameters"}


@pytest.mark.parametrize(
    ("objective", "expected"), [("val/loss", "val/loss needs validation slices, got 0"), ("eval/fd_lite0", "2 or more")]
)
def test_a_dataset_without_the_slices_for_an_objective_is_refused(
    tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, objective: str, expected: str
) -> None:
    job = load_job("search_demo", [f"search.objectives=[{objective}]", f"search.prune_on={objective}"])
    assert isinstance(job, SearchJob)
    check_objectives(job, tiny_dataset)
    num = tiny_dataset.num
    monkeypatch.setattr(Dataset, "num", lambda self, split: num(split) if split == "train" else 0)
    with pytest.raises(DataError, match=expected):
        check_objectives(job, tiny_dataset)


def test_what_cannot_be_measured_is_an_error_with_its_reason(
    model_dir: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"not weights")
    proxy = PROXY.model_copy(update={"inception_weights": str(weights)})
    with pytest.raises(JobError, match="eval/fid cannot be measured: "):
        measure(("eval/fid",), model_dir, tiny_dataset, proxy, CPU, show=lambda *sent: None)
