"""Which model of a training is registered."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.generate import generate_images
from lwddpm.cluster.session import Session
from lwddpm.config import TrainJob, WorkersConfig
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, DataError
from lwddpm.evaluation.choice import Choice
from lwddpm.evaluation.copying import copying
from lwddpm.evaluation.distances import ReferenceStatistics
from lwddpm.evaluation.features import load_extractor
from lwddpm.kinds import choice as choosing
from lwddpm.kinds.choice import check_choice, chosen_model
from lwddpm.kinds.jobs import run_job
from lwddpm.models.build import build_model
from lwddpm.tracking.store import connect
from lwddpm.training.stored_model import SavedModel, save_model

Build = Callable[..., TrainJob]
BEST = ("registry.choose=best", "training.snapshot_epochs=[1]")
NUM = 6


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_NUM_SAMPLES", NUM)


@pytest.fixture
def here() -> Session:
    return Session.inside_ray(WorkersConfig(use_gpu=False))


@pytest.fixture
def run_dir(tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path) -> Path:
    """A run folder with two snapshots and a final model, all different."""
    job = tiny_job(*BEST)
    for step, place in ((6, "snapshots/epoch_1"), (7, "snapshots/epoch_1.2"), (8, "model")):
        torch.manual_seed(step)
        network = build_model(job.model).requires_grad_(False)
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        saved = SavedModel(
            model=job.model,
            diffusion=job.diffusion,
            image_size=16,
            dataset_version=tiny_dataset.version,
            dataset_simulated=True,
            training_digest=job.training_digest(),
            step=step,
            epoch=step / 6,
            parameters=1,
        )
        save_model(tmp_path / "run" / place, network, saved)
    return tmp_path / "run"


def test_by_default_it_is_the_last(tiny_job: Build, tiny_dataset: Dataset, run_dir: Path, here: Session) -> None:
    with ExportedSeries("choice", "") as exported:
        assert chosen_model(tiny_job(), tiny_dataset, run_dir, here, exported) == (run_dir / "model", None)


def test_the_best_is_that_of_least_distance_and_is_measured_once(
    tiny_job: Build, tiny_dataset: Dataset, run_dir: Path, here: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(*BEST)
    assert job.evaluation is not None
    with ExportedSeries("choice", "") as exported:
        folder, choice = chosen_model(job, tiny_dataset, run_dir, here, exported)
        assert choice is not None
        assert choice.sampling.seed != job.evaluation.seed
        assert choice.sampling.sampler == job.evaluation.sampler
        extract = load_extractor("fd_lite0")
        reference = ReferenceStatistics.of(extract(np.array(tiny_dataset.images("validation"))))
        found = {}
        for path in (run_dir / "snapshots" / "epoch_1", run_dir / "snapshots" / "epoch_1.2", run_dir / "model"):
            found[path] = reference.distance(extract(generate_images(path, choice.sampling, NUM, here)))
        assert [c.fd_lite0 for c in choice.candidates] == pytest.approx(list(found.values()))
        assert len(set(found.values())) == 3
        assert folder == min(found, key=lambda path: found[path])

        def refuse(*arguments: object) -> None:
            raise AssertionError("drawn again")

        monkeypatch.setattr(choosing, "generate_images", refuse)
        assert chosen_model(job, tiny_dataset, run_dir, here, exported) == (folder, choice)
        with pytest.raises(AssertionError, match="drawn again"):
            chosen_model(tiny_job(*BEST, "evaluation.seed=5"), tiny_dataset, run_dir, here, exported)


def test_a_snapshot_that_returns_training_slices_is_not_chosen_although_its_distance_is_least(
    tiny_job: Build, tiny_dataset: Dataset, run_dir: Path, here: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_NUM_SAMPLES", 40)
    copier = run_dir / "snapshots" / "epoch_1.2"

    def drawn(folder: Path, *arguments: object) -> np.ndarray:
        """What the copier would draw; the others draw noise."""
        if folder == copier:
            return np.array(tiny_dataset.images("train")[:40])
        return np.random.default_rng(len(folder.name)).integers(256, size=(40, 16, 16), dtype=np.uint8)

    monkeypatch.setattr(choosing, "generate_images", drawn)
    with ExportedSeries("choice", "") as exported:
        folder, choice = chosen_model(tiny_job(*BEST), tiny_dataset, run_dir, here, exported)
    assert choice is not None
    least = min(choice.candidates, key=lambda candidate: candidate.fd_lite0)
    assert [candidate.copies for candidate in choice.candidates] == [False, True, False]
    assert least.copies
    floor = choice.copied_floor
    held_out = np.concatenate([tiny_dataset.images("validation"), tiny_dataset.images("test")])
    assert floor == copying(held_out, held_out, np.array(tiny_dataset.images("train"))).share
    assert [candidate.copied_share for candidate in choice.candidates] == [0.0, 1.0, 0.0]
    assert choice.metrics()[7] == {
        "choice/fd_lite0": least.fd_lite0,
        "choice/copied_share": 1.0,
        "choice/copied_share_floor": floor,
    }
    assert [point.copied for point in choice.points] == [0.0, 1.0, 0.0]
    assert choice.points[1].interval is not None
    assert choice.points[1].interval[0] > 0.9
    assert folder != copier
    assert "| 1.000 | returns training slices |" in choice.table()
    every = choice.model_copy(
        update={"candidates": tuple(one.model_copy(update={"copies": True}) for one in choice.candidates)}
    )
    assert every.best.step == least.step  # there is nothing better, and the table says what they are


def test_many_calls_are_cut_for_choosing(tiny_job: Build) -> None:
    job = tiny_job(*BEST, "diffusion.num_train_timesteps=1000", "evaluation.num_inference_steps=1000")
    sampling = choosing._sampling(job)
    assert (sampling.sampler, sampling.num_inference_steps) == ("dpmsolver++", 20)


def test_without_snapshots_or_validation_slices_there_is_nothing_to_choose(
    tiny_job: Build, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"registry\.choose.*training\.snapshot_epochs"):
        tiny_job("registry.choose=best", "training.snapshot_epochs=[]")
    monkeypatch.setattr(Dataset, "num", lambda self, split: 1)
    check_choice(tiny_job(), tiny_dataset)
    with pytest.raises(DataError, match="2 or more validation slices, got 1; give validation a share"):
        check_choice(tiny_job(*BEST), tiny_dataset)


def test_a_job_that_leaves_it_open_has_the_digests_that_it_had(tiny_job: Build) -> None:
    plain, best = tiny_job(BEST[1]), tiny_job(*BEST)
    assert "choose" not in plain.model_dump(mode="json")["registry"]
    assert (plain.training_digest(), plain.digest()) == (
        best.training_digest(),
        tiny_job("registry.choose=last", BEST[1]).digest(),
    )
    assert plain.result_digest() != best.result_digest()


@pytest.mark.cluster
def test_a_job_registers_and_tells_its_choice(tiny_job: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_is_best(
        job: TrainJob, dataset: Dataset, run_dir: Path, session: Session, exported: ExportedSeries
    ) -> tuple[Path, Choice]:
        _, choice = chosen_model(job, dataset, run_dir, session, exported)
        assert choice is not None
        worst_first = tuple(
            c.model_copy(update={"fd_lite0": float(number)}) for number, c in enumerate(choice.candidates, 1)
        )
        return run_dir / "snapshots" / "epoch_1", choice.model_copy(update={"candidates": worst_first})

    monkeypatch.setattr("lwddpm.kinds.train.chosen_model", first_is_best)
    job = tiny_job(*BEST)
    result = run_job(job)
    assert (result["choice"]["chosen"]["epoch"], result["step"]) == (1, result["choice"]["candidates"][0]["step"])
    client = connect(str(job.tracking.uri))
    version = client.get_model_version_by_alias("lw-ddpm-demo", "candidate")
    assert version.tags["lwddpm.epoch"] == "1"
    assert "that of epoch 1." in version.description
    assert "| chosen |" in version.description
    history = client.get_metric_history(result["run_id"], "choice/fd_lite0")
    assert [(value.step, value.value) for value in history] == [(result["step"], 1.0), (8, 2.0)]
    copied = client.get_metric_history(result["run_id"], "choice/copied_share")
    shares = [candidate["copied_share"] for candidate in result["choice"]["candidates"]]
    assert [(value.step, value.value) for value in copied] == list(zip([result["step"], 8], shares, strict=True))
    logged = [file.path for file in client.list_artifacts(result["run_id"], "figures")]
    assert "figures/quality_and_copying.png" in logged
    assert (Path(result["run_dir"]) / "report" / "quality_and_copying.png").read_bytes().startswith(b"\x89PNG")
