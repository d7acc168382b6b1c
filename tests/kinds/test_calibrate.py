"""A model without a prior gets one; what draws without is refused a start from it. No Ray: the dataset is prepared."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lwddpm.cli.app import app
from lwddpm.cluster.generate import generate_images
from lwddpm.cluster.session import Session
from lwddpm.config import RegistryConfig, SamplingConfig, TrainJob, WorkersConfig
from lwddpm.data.store import Dataset
from lwddpm.diffusion.sampling import generate
from lwddpm.errors import ConfigError, DataError
from lwddpm.kinds.saved_model import fitting
from lwddpm.kinds.train import check_dataset
from lwddpm.tracking import model_files, registration, registry
from lwddpm.tracking.runs import tracked_run
from lwddpm.training.stored_model import load_model, read_saved_model
from lwddpm.training.stored_prior import PRIOR_FILE, read_prior

Build = Callable[..., TrainJob]


@pytest.fixture
def calibrate(tiny_data: str, store: str) -> Callable[..., tuple[int, dict[str, object], str]]:
    """Runs the command; returns its exit code, its JSON and what it said."""

    def run(model: str, *options: str) -> tuple[int, dict[str, object], str]:
        data = {"source": "phantom", "path": tiny_data, "phantom_count": 60, "image_size": 16}
        overrides = [part for key, value in data.items() for part in ("--set", f"data.{key}={value}")]
        arguments = ["models", "calibrate", model, *overrides, "--tracking-uri", store, "--json", *options]
        result = CliRunner().invoke(app, arguments)
        return result.exit_code, json.loads(result.stdout) if result.exit_code == 0 else {}, result.output

    return run


def test_a_folder_gets_the_file_and_is_drawn_from_it(calibrate, model_dir: Path) -> None:
    sampling = SamplingConfig(num_inference_steps=3)
    network, saved = load_model(model_dir)
    before = generate(network, saved.diffusion, sampling, range(2), 16, "cpu")
    code, summary, _ = calibrate(str(model_dir))
    assert (code, summary["state"], summary["directions"]) == (0, "calibrated", 1)
    prior = read_prior(model_dir, 16)
    assert prior is not None
    after = generate(network, saved.diffusion, sampling, range(2), 16, "cpu", prior=prior)
    assert not torch.equal(before, after)
    kept = (model_dir / PRIOR_FILE).read_bytes()
    code, summary, _ = calibrate(str(model_dir))
    assert code == 0
    assert "has a prior already" in str(summary["state"])
    code, summary, _ = calibrate(str(model_dir), "--fresh")
    assert (code, summary["state"]) == (0, "calibrated")
    assert (model_dir / PRIOR_FILE).read_bytes() == kept  # it is the same each time


def test_a_process_that_has_drawn_from_the_folder_sees_its_prior(calibrate, model_dir: Path) -> None:
    """As the board's does: it keeps a model loaded, and calibrating leaves its weights and config as they are."""
    with Session(WorkersConfig()) as session:
        before = generate_images(model_dir, SamplingConfig(num_inference_steps=3), 2, session)
        assert calibrate(str(model_dir))[0] == 0
        after = generate_images(model_dir, SamplingConfig(num_inference_steps=3), 2, session)
    assert (before != after).any()


def test_a_version_never_changes_and_its_alias_moves(
    calibrate, tiny_job: Build, store: str, model_dir: Path, tiny_dataset: Dataset
) -> None:
    with tracked_run(tiny_job(), store, None, "digest") as run:
        tags = {"lwddpm.dataset_version": tiny_dataset.version}
        registration.register(run, model_dir, RegistryConfig(name="old"), tags, {"eval/fd_lite0": 2.0}, 8, "card")
    code, summary, _ = calibrate("models:/old@candidate")
    assert code == 0
    assert summary["model"] == {"name": "old", "version": 2, "aliases": ["candidate"]}
    assert not (model_files.fetch_model("models:/old/1") / PRIOR_FILE).exists()
    assert read_prior(model_files.fetch_model("models:/old@candidate"), 16) is not None
    second = registry.find_version("models:/old/2")
    assert second.metrics == {}  # measured on slices that were drawn otherwise
    assert second.tags["lwddpm.calibrated_from"] == "1"
    assert second.tags["lwddpm.dataset_version"] == tiny_dataset.version
    assert second.card.startswith("card\n")
    code, summary, _ = calibrate("models:/old/1")
    assert summary["model"] == {"name": "old", "version": 3, "aliases": []}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.seed=3", "must be the dataset that the model was trained on"),
        ("data.colour=3", "data.colour"),
        ("nonsense", "must be dotted.key=value"),
    ],
)
def test_wrong_input_is_said(calibrate, model_dir: Path, tmp_path: Path, override: str, message: str) -> None:
    code, _, output = calibrate(
        str(model_dir), "--set", f"data.path={tmp_path / 'other'}", "--set", "data.phantom_count=48", "--set", override
    )
    assert code == 2
    assert message in output
    assert not (model_dir / PRIOR_FILE).exists()


@pytest.mark.parametrize("setting", [{"start": "gaussian"}, {"calibrate": True}])
def test_a_start_from_a_prior_takes_a_model_with_one(model_dir: Path, setting: dict[str, object]) -> None:
    sampling = SamplingConfig(**setting)
    with pytest.raises(ConfigError, match=f"sampling.{next(iter(setting))}: .*lwddpm models calibrate"):
        fitting(sampling, read_saved_model(model_dir), model_dir, "sampling")


def test_too_few_slices_for_the_start_asked_for_are_said_before_training(
    tiny_job: Build, tiny_dataset: Dataset
) -> None:
    few = tiny_dataset.manifest.model_copy(
        update={
            "splits": tiny_dataset.manifest.splits
            | {"train": tiny_dataset.manifest.splits["train"].model_copy(update={"num": 31})}
        }
    )
    dataset = Dataset(tiny_dataset.path, few)
    check_dataset(tiny_job(), dataset)
    with pytest.raises(DataError, match="32 or more training slices, got 31"):
        check_dataset(tiny_job("evaluation.start=gaussian"), dataset)
