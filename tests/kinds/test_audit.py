"""Audits: a generator of copies is found out, one of new slices is not, and what cannot be audited is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lwddpm.cluster.session import Session
from lwddpm.config import AuditJob, SamplingConfig, TrainJob
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, DataError
from lwddpm.jobfile import load_job
from lwddpm.kinds.audit import run as audits
from lwddpm.kinds.audit import snapshots
from lwddpm.tracking.store import connect
from lwddpm.training.stored_model import SavedModel, load_model, save_model

NUM = 60  # slices drawn


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """160 phantoms of 32x32, half of them held out."""
    path = tmp_path_factory.mktemp("audited") / "phantoms"
    job = load_job("audit", ["data.phantom_count=160", "data.splits=[0.5,0.25,0.25]", f"data.path={path}"])
    assert isinstance(job, AuditJob)
    return prepare_dataset(job.data, lambda function, items, **options: map(function, items))


@pytest.fixture
def model(tiny_job: Callable[..., TrainJob], dataset: Dataset, tmp_path: Path) -> Path:
    import torch

    from lwddpm.models.build import build_model, count_parameters

    job = tiny_job()
    saved = SavedModel(
        model=job.model,
        diffusion=job.diffusion,
        image_size=32,
        dataset_version=dataset.version,
        dataset_simulated=True,
        training_digest=job.training_digest(),
        step=8,
        epoch=1.0,
        parameters=count_parameters(job.model),
    )
    torch.manual_seed(0)
    return save_model(tmp_path / "model", build_model(job.model), saved)


@pytest.fixture
def job(dataset: Dataset, model: Path, tmp_path: Path) -> Callable[..., AuditJob]:
    def build(*overrides: str) -> AuditJob:
        settings = {
            "model_uri": model,
            "data.path": dataset.path,
            "data.phantom_count": 160,
            "data.splits": "[0.5,0.25,0.25]",
            "audit.num_samples": NUM,
            "audit.num_canaries": 20,
            "audit.false_alarm_rate": 0.1,
            "audit.max_copied_share": 0.2,
            "audit.min_power": 0.5,
            "audit.batch_size": 25,
            "sampling.num_inference_steps": 2,
            "workers.cpus_per_worker": 1,
            "output": tmp_path / "runs",
            "tracking.uri": f"sqlite:///{tmp_path}/mlflow.db",
        }
        settings = {"sampling": "{}"} | settings
        built = load_job("audit", [*(f"{key}={value}" for key, value in settings.items()), *overrides])
        assert isinstance(built, AuditJob)
        return built

    return build


def _run(job: AuditJob, fresh: bool = False) -> dict[str, Any]:
    with Session(job.workers) as session:
        return audits.run_audit(job, session, fresh)


def _draws(monkeypatch: pytest.MonkeyPatch, images: np.ndarray) -> list[range]:
    """Have the model draw these slices, over and over; returns the numbers that it is asked for."""
    asked: list[range] = []

    def draw(model_dir: Path, sampling: SamplingConfig, numbers: range, *others: Any) -> np.ndarray:
        asked.append(numbers)
        return images[np.array(numbers) % len(images)]

    monkeypatch.setattr(audits, "draw_indices", draw)
    return asked


def _record(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(record for record in result["audit"]["records"] if record["name"] == name)


@pytest.mark.cluster
def test_a_generator_of_training_slices_is_found_out_and_one_of_held_out_slices_is_not(
    job: Callable[..., AuditJob], dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = np.array(dataset.images("train"))
    asked = _draws(monkeypatch, train[:15, :, ::-1])  # mirrored
    copies = _run(job())
    assert copies["audit"]["verdict"] == "copies"
    assert _record(copies, "copied_share")["value"] == 1
    assert _record(copies, "reproduced_share")["value"] == pytest.approx(15 / len(train))
    assert [(numbers.start, numbers.stop) for numbers in asked] == [(0, 25), (25, 50), (50, 60)]

    report = Path(copies["run_dir"]) / "report"
    stored = json.loads((report / "audit.json").read_text())
    assert stored["dataset"] == dataset.version
    assert {pair["moved"] for pair in stored["flagged"]} == {"mirrored left to right"}
    assert (report / "audit.html").read_text().count("data:image/png;base64,") >= 4
    client = connect(copies["tracking_uri"])
    assert "audit/audit.json" in {file.path for file in client.list_artifacts(copies["run_id"], "audit")}
    assert client.get_run(copies["run_id"]).data.metrics["audit/copied_share"] == 1

    held_out = np.array(dataset.images("validation"))
    _draws(monkeypatch, held_out)
    clean = _run(job("name=clean"))
    assert clean["audit"]["verdict"] != "copies"
    assert _record(clean, "copied_share")["value"] < 0.2


@pytest.mark.cluster
def test_copying_is_told_against_the_epochs_of_the_snapshots(
    job: Callable[..., AuditJob], dataset: Dataset, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that draws new slices in the beginning, and learns its own by heart."""
    with pytest.raises(ConfigError, match=r"audit\.snapshots: model_uri must be the folder .* none beside it"):
        _run(job("audit.snapshots=true"))
    network, saved = load_model(model)
    for epoch in (0.5, 0.25):
        before = saved.model_copy(update={"epoch": epoch, "step": round(8 * epoch)})
        for parameter in network.parameters():
            parameter.data += 0.01
        save_model(model.parent / "snapshots" / f"epoch_{epoch:g}", network, before)
    train, held_out = np.array(dataset.images("train")), np.array(dataset.images("validation"))
    _draws(monkeypatch, train)
    asked: list[tuple[str, range, str]] = []

    def draw(folder: Path, sampling: SamplingConfig, numbers: range, *others: Any) -> np.ndarray:
        asked.append((folder.name, numbers, sampling.start))
        rows = np.array(numbers)
        copies = {"epoch_0.25": rows < 0, "epoch_0.5": rows % 2 == 0, "model": rows >= 0}[folder.name]
        return np.where(copies[:, None, None], train[rows % len(train)], held_out[rows % len(held_out)])

    monkeypatch.setattr(snapshots, "draw_indices", draw)
    result = _run(job("audit.snapshots=true", "audit.membership=false"))
    found = result["audit"]["snapshots"]
    assert [(each["epoch"], each["step"], each["n"]) for each in found] == [
        (0.25, 2, NUM),
        (0.5, 4, NUM),
        (1.0, 8, NUM),
    ]
    assert found[0]["copied_share"] < 0.2
    assert 0.5 <= found[1]["copied_share"] < 0.7
    assert found[2]["copied_share"] == 1
    assert found[0]["fd_lite0"] > found[1]["fd_lite0"] > found[2]["fd_lite0"]  # which looks like getting better
    assert {start for _, _, start in asked} == {"noise"}
    client = connect(result["tracking_uri"])
    curve = client.get_metric_history(result["run_id"], "audit/snapshot_copied_share")
    assert [(point.step, point.value) for point in curve] == [(each["step"], each["copied_share"]) for each in found]
    assert (Path(result["run_dir"]) / "report" / "figures" / "snapshots.png").is_file()
    assert "snapshots" not in job().model_dump(mode="json")["audit"]


@pytest.mark.cluster
def test_a_killed_audit_draws_on_where_it_was_and_a_finished_one_not_at_all(
    job: Callable[..., AuditJob], dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.array(dataset.images("validation"))
    asked = _draws(monkeypatch, images)
    whole = audits.draw_indices

    def killed(model_dir: Path, sampling: SamplingConfig, numbers: range, *others: Any) -> np.ndarray:
        if numbers.start == 25:
            raise KeyboardInterrupt
        return whole(model_dir, sampling, numbers, *others)

    monkeypatch.setattr(audits, "draw_indices", killed)
    with pytest.raises(KeyboardInterrupt):
        _run(job())
    monkeypatch.setattr(audits, "draw_indices", whole)
    first = _run(job())
    assert [numbers.start for numbers in asked] == [0, 25, 50]
    again = _run(job())
    assert len(asked) == 3
    assert again == first


@pytest.mark.cluster
def test_the_model_itself_draws_and_its_losses_are_tried(job: Callable[..., AuditJob]) -> None:
    result = _run(job())
    assert _record(result, "copied_share")["n"] == NUM
    low, high = (_record(result, "mia_auc")[end] for end in ("low", "high"))
    assert low < 0.5 < high  # an untrained network knows nobody


def test_another_dataset_is_refused(job: Callable[..., AuditJob], tiny_data: str) -> None:
    other = job(f"data.path={tiny_data}", "data.phantom_count=60", "data.image_size=16", "data.splits=[0.8,0.1,0.1]")
    with pytest.raises(ConfigError, match=r"data.image_size: must be the model's 32"):
        _run(other)


def test_a_dataset_that_the_model_was_not_trained_on_is_refused(
    job: Callable[..., AuditJob], model: Path, dataset: Dataset
) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"dataset_version": "f" * 16}))
    with pytest.raises(DataError, match="must be the dataset that the model was trained on"):
        _run(job())


def test_too_few_held_out_groups_are_refused_with_the_number_that_is_needed(job: Callable[..., AuditJob]) -> None:
    with pytest.raises(DataError, match="takes 299 or more held-out groups"):
        _run(job("audit.false_alarm_rate=0.01"))


def test_only_held_out_slices_can_be_taken_out(job: Callable[..., AuditJob]) -> None:
    with pytest.raises(ConfigError, match=r"audit.not_held_out: must name slices of validation or test"):
        _run(job("audit.not_held_out=[nobody.png]"))


def test_a_dry_run_says_how_much_is_drawn_and_refuses_too_few_groups(
    job: Callable[..., AuditJob], dataset: Dataset
) -> None:
    from lwddpm.kinds.dry_run import plan

    groups = len({group for split in ("validation", "test") for group in dataset.groups(split).tolist()})
    assert plan(job())["audit"] == {
        "slices": NUM,
        "held_out_groups": groups,
        "needed": 29,
        "parts": ["memorisation"],
    }
    assert plan(job("audit.num_samples=null"))["audit"]["slices"] == 800
    with pytest.raises(DataError, match="299 or more held-out groups"):
        plan(job("audit.false_alarm_rate=0.01"))
