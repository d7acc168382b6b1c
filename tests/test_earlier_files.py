"""What earlier versions wrote is still read: see tests/fixtures/README.md."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from lwddpm.config import SamplingConfig, SearchJob, TrainJob
from lwddpm.data.store import Dataset, open_dataset
from lwddpm.diffusion.sampling import generate
from lwddpm.errors import DataError
from lwddpm.report import data as report
from lwddpm.search.definition import DEFINITION, Definition, open_study
from lwddpm.search.ranking import ranking, table
from lwddpm.search.storage import find_study
from lwddpm.search.trials import records
from lwddpm.tracking.outbox import Outbox
from lwddpm.tracking.rundir import claim_run_folder, run_folder
from lwddpm.training.checkpoint import latest_checkpoint, read_state
from lwddpm.training.loop import train
from lwddpm.training.reporter import RecordingReporter
from lwddpm.training.stored_files import FORMAT
from lwddpm.training.stored_model import load_model
from lwddpm.version import code_version

FIXTURES = sorted(path for path in (Path(__file__).parent / "fixtures").iterdir() if path.is_dir())
CPU = torch.device("cpu")


@pytest.fixture(params=FIXTURES, ids=lambda path: path.name)
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what one version wrote."""
    return Path(shutil.copytree(request.param, tmp_path / "earlier"))


@pytest.fixture
def dataset(earlier: Path) -> Dataset:
    return open_dataset(str(earlier / "dataset"))


def test_a_dataset_is_read_and_its_shards_are_those_of_its_manifest(dataset: Dataset) -> None:
    assert [dataset.num(split) for split in ("train", "validation", "test")] == [20, 2, 2]
    for split in ("train", "validation", "test"):
        assert dataset.images(split).shape == (dataset.num(split), 16, 16)  # checks the hash on the way
        assert {name.partition("/")[0] for name in dataset.sources(split)} <= set(dataset.manifest.label_names)
    assert [file.reason for file in dataset.manifest.rejected] == ["not an image of a known format"]
    assert dataset.manifest.duplicates.exact_copies == 1


def test_a_dataset_of_another_schema_is_refused_with_a_remedy(earlier: Path) -> None:
    file = earlier / "dataset" / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 99}))
    with pytest.raises(DataError, match=r"schema.version must be .*got 99.*--fresh"):
        open_dataset(str(earlier / "dataset"))


def test_a_training_goes_on_from_its_checkpoint(earlier: Path, dataset: Dataset) -> None:
    job = TrainJob.model_validate_json((earlier / "gan" / "job.json").read_text())
    checkpoint = latest_checkpoint(earlier / "gan")
    assert checkpoint is not None
    state = read_state(checkpoint)
    assert state.step == 2
    assert (state.code_version is None) == (state.format == 1)  # which did not name the code that wrote it
    recorder = RecordingReporter()
    assert train(job, dataset, earlier / "gan", recorder, CPU).finished
    expected = json.loads((earlier / "gan" / "next.json").read_text())
    assert recorder.series("train/loss").keys() == {3, 4}
    for step, values in expected.items():
        for name, value in values.items():
            assert recorder.values[int(step)][name] == pytest.approx(value, rel=1e-3), (step, name)
    after = read_state(earlier / "gan" / "checkpoints" / "step_00000004")
    assert (after.format, after.code_version) == (FORMAT, code_version())


def test_a_run_folder_is_continued_under_its_present_name(earlier: Path, dataset: Dataset, tmp_path: Path) -> None:
    job = TrainJob.model_validate_json((earlier / "gan" / "job.json").read_text())
    job = job.model_copy(update={"output": str(tmp_path / "runs")})
    state = read_state(latest_checkpoint(earlier / "gan") or earlier)
    before = tmp_path / "runs" / f"{job.name}-{state.training_digest}"
    shutil.copytree(earlier / "gan", before)
    folder = claim_run_folder(job)
    assert (folder, before.exists()) == (run_folder(job), False)
    raised = job.training.model_copy(update={"grad_accumulation_steps": 2, "keep_checkpoints": 9})
    for changed in (job, job.model_copy(update={"training": raised})):  # the second after a checkpoint of this version
        assert claim_run_folder(changed) == folder
        recorder = RecordingReporter()
        train(changed, dataset, folder, recorder, CPU, should_stop=lambda: True)
        assert list(recorder.series("train/loss")) == [3 if changed is job else 4]


def test_reports_that_are_not_sent_yet_are_read(earlier: Path) -> None:
    outbox = Outbox(earlier / "gan" / "outbox")
    reports = [outbox.read(path) for path in outbox.waiting()]
    assert {step for sent in reports for step, values in sent.metrics.items() if "train/loss" in values} == {1, 2}
    assert any("lwddpm.checkpoint" in sent.tags for sent in reports)


def test_a_model_draws_what_it_drew(earlier: Path) -> None:
    network, saved = load_model(earlier / "model")
    sampling = SamplingConfig(sampler="ddim", num_inference_steps=4, seed=0)
    images = generate(network, saved.diffusion, sampling, range(4), saved.image_size, CPU).numpy()
    difference = np.abs(images.astype(int) - np.load(earlier / "model" / "samples.npy"))
    assert difference.max() <= 1  # of 255: float32 sums differ between machines


def test_a_study_is_read_and_goes_on(earlier: Path) -> None:
    url = f"sqlite:///{earlier}/optuna.db"
    with closing(sqlite3.connect(earlier / "optuna.db")) as database:
        database.executescript((earlier / "study.sql").read_text())
    study = find_study(url, "earlier")
    states = [(trial.state, trial.step, trial.last) for trial in records(study)]
    assert states == [
        ("complete", 270, 20.0),
        ("pruned", 30, 60.0),
        ("complete", 270, 10.0),
        ("failed", 0, None),
        ("infeasible", 0, None),
        ("running", 30, 45.0),
    ]
    assert [trial.number for trial in ranking(study)] == [2, 0]
    assert "training diverged" in table(study)
    stored = study.user_attrs[DEFINITION]
    definition = Definition(**stored | {"objectives": tuple(stored["objectives"])})
    open_study(url, "earlier", definition)


def test_the_same_search_compares_what_it_compared(earlier: Path, dataset: Dataset) -> None:
    """The digests in a study's definition are those by which this version knows the same job."""
    job = SearchJob.model_validate_json((earlier / "search.json").read_text())
    definition = (earlier / "study.sql").read_text()
    assert f'"job": "{job.earlier_training_digest()}-{dataset.version[:12]}"' in definition
    assert f'"proxy": "{job.search.proxy.digest()}"' in definition


def test_a_comparison_is_read(earlier: Path) -> None:
    data = report.load(earlier / "comparison")
    assert [system.name for system in data.report.systems] == ["ddpm", "lw_ddpm"]
    assert [measured.values["fd_lite0"] for measured in data.report.group("system")] == [30, 31, 32, 29.5, 30.5, 31.5]
    assert data.curves["lw_ddpm", "train/loss"].tolist() == [[1, 0.25, 0.9], [2, 0.5, 0.8]]
    assert data.images["samples/ddpm"].shape == (4, 16, 16)


def test_a_comparison_of_another_format_is_refused_with_a_remedy(earlier: Path) -> None:
    file = earlier / "comparison" / "report.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(DataError, match=r"format.*got 99; .*run the comparison"):
        report.load(earlier / "comparison")
