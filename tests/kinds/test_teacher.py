"""The teacher of a consistency tuning: which are taken, and that the run folder keeps it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.kinds.teacher import check_teacher, keep_teacher
from lwddpm.training.consistency import TEACHER_FOLDER
from lwddpm.training.stored_guide import has_guide, write_guide
from lwddpm.training.stored_model import read_saved_model


def test_the_run_folder_keeps_a_copy(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, model_dir: Path, tmp_path: Path
) -> None:
    job = tiny_job(f"consistency.teacher={model_dir}")
    keep_teacher(job, tiny_dataset, tmp_path / "run")
    kept = tmp_path / "run" / TEACHER_FOLDER
    assert (kept / "model.safetensors").read_bytes() == (model_dir / "model.safetensors").read_bytes()
    (model_dir / "config.json").unlink()
    keep_teacher(job, tiny_dataset, tmp_path / "run")  # it is there already


def test_a_guided_teacher_is_kept_with_its_guide(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, model_dir: Path, tmp_path: Path
) -> None:
    job = tiny_job(f"consistency.teacher={model_dir}", "consistency.guidance=2")
    with pytest.raises(ConfigError, match=r"consistency.guidance: leads the teacher away from its guide.*has none"):
        keep_teacher(job, tiny_dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    write_guide(model_dir, model_dir)
    keep_teacher(job, tiny_dataset, tmp_path / "run")
    assert has_guide(tmp_path / "run" / TEACHER_FOLDER)


def test_a_followed_teacher_is_not_told_of_changes(tiny_job: Callable[..., TrainJob], model_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.augment: must be 0 with consistency.guidance.*0\.1"):
        tiny_job(f"consistency.teacher={model_dir}", "consistency.guidance=2", "training.augment=0.1")


def test_without_tuning_nothing_is_kept(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, tmp_path: Path
) -> None:
    keep_teacher(tiny_job(), tiny_dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.dim=16", "model.dim is 16 here and 8 there"),
        ("diffusion.beta_schedule=linear", "diffusion.beta_schedule is linear here"),
        ("diffusion.prediction_type=epsilon", "diffusion.prediction_type is epsilon here"),
    ],
)
def test_a_teacher_of_other_settings_is_refused(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, model_dir: Path, override: str, named: str
) -> None:
    saved = read_saved_model(model_dir)
    check_teacher(tiny_job(), tiny_dataset, saved)
    check_teacher(tiny_job("diffusion.loss=l1"), tiny_dataset, saved)  # tuning has a loss of its own
    with pytest.raises(ConfigError, match=named):
        check_teacher(tiny_job(override), tiny_dataset, saved)


def test_a_teacher_of_another_dataset_is_refused(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, model_dir: Path
) -> None:
    saved = read_saved_model(model_dir).model_copy(update={"dataset_version": "other"})
    with pytest.raises(ConfigError, match=r"the dataset's version is .* here and other there"):
        check_teacher(tiny_job(), tiny_dataset, saved)


@pytest.mark.parametrize(
    "override",
    [
        "training.timestep_sampling=log_normal",
        "training.loss_weighting=learned",
        "training.patches.share=0.5",
        "diffusion.min_snr_gamma=5",
    ],
)
def test_settings_of_other_losses_are_refused(
    tiny_job: Callable[..., TrainJob], model_dir: Path, override: str
) -> None:
    with pytest.raises(ConfigError, match=r"consistency"):
        tiny_job(f"consistency.teacher={model_dir}", override)


def test_a_gan_has_no_noise_levels_to_tune(tiny_gan: Callable[..., TrainJob]) -> None:
    with pytest.raises(ConfigError, match=r"consistency.*is for diffusion models, not for"):
        tiny_gan("model.family=lsgan", "consistency.teacher=model")


def test_what_is_learnt_depends_on_the_teacher(tiny_job: Callable[..., TrainJob]) -> None:
    digests = {
        tiny_job(*overrides).training_digest()
        for overrides in ((), ("consistency.teacher=a",), ("consistency.teacher=b",))
    }
    assert len(digests) == 3
