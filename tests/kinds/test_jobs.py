"""Whole jobs through the front door, on the smallest dataset: in this process, and on Ray workers."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.config import TrainJob
from lwddpm.data.store import open_dataset
from lwddpm.errors import ConfigError, DataError, JobError
from lwddpm.jobfile import load_job
from lwddpm.kinds.jobs import run_job
from lwddpm.models.precision import settled_precision
from lwddpm.tracking.earlier_runs import run_digest
from lwddpm.tracking.model_files import fetch_model
from lwddpm.tracking.outbox import Outbox
from lwddpm.tracking.rundir import lock_folder, run_folder, write_job, write_run_id
from lwddpm.tracking.runs import tracked_run
from lwddpm.tracking.store import connect
from lwddpm.training.checkpoint import latest_checkpoint
from lwddpm.training.loop import train
from lwddpm.training.stored_model import load_model

Build = Callable[..., TrainJob]
pytestmark = pytest.mark.cluster


def _run(tracking_uri: str, run_id: str) -> mlflow.entities.Run:
    return connect(tracking_uri).get_run(run_id)


def _losses(job: TrainJob, run_id: str) -> dict[int, float]:
    assert job.tracking.uri is not None
    history = connect(job.tracking.uri).get_metric_history(run_id, "train/loss")
    assert len({m.step for m in history}) == len(history), "a step was logged twice"
    return {m.step: m.value for m in history}


@pytest.fixture(scope="module")
def finished(
    tiny_data: str,
    tiny_overrides: tuple[str, ...],
    short_grids: None,
    empty_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[TrainJob, dict[str, object]]:
    """A job that has ended, and its result; the tests that share it change neither its run nor its model."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copy(empty_store, folder / "mlflow.db")
    places = (f"data.path={tiny_data}", f"output={folder / 'runs'}", f"tracking.uri=sqlite:///{folder}/mlflow.db")
    job = load_job("demo", [*tiny_overrides, *places])
    assert isinstance(job, TrainJob)
    return job, run_job(job)


def test_a_job_ends_with_a_registered_evaluated_model(finished: tuple[TrainJob, dict[str, object]]) -> None:
    job, result = finished
    assert job.tracking.uri is not None
    copied = {"eval/copied_share", "eval/copied_share_floor"}
    asked_for = {"eval/ssim_pairs", "eval/ssim_pairs_floor", "eval/ssim_reconstruction"}
    assert set(result["metrics"]) == asked_for | copied  # type: ignore[call-overload]
    run = _run(job.tracking.uri, str(result["run_id"]))
    assert run.info.status == "FINISHED"
    assert result["metrics"].items() <= run.data.metrics.items()  # type: ignore[attr-defined]
    client = connect(job.tracking.uri)
    files = {f.path for folder in ("figures", "evaluation") for f in client.list_artifacts(run.info.run_id, folder)}
    assert files == {
        "figures/intensities.png",
        "figures/loss.png",
        "figures/real_beside_synthetic.png",
        "figures/denoising.png",
        "evaluation/metrics.md",
        "evaluation/metrics.json",
    }
    version = client.get_model_version_by_alias("lw-ddpm-demo", "candidate")
    assert version.run_id == run.info.run_id
    assert version.tags["lwddpm.dataset_version"] == result["dataset"]["version"]  # type: ignore[index]
    _, saved = load_model(fetch_model("models:/lw-ddpm-demo@candidate"))
    assert saved.step == 8


def test_run_again_it_does_nothing_fresh_starts_over_and_another_evaluation_reuses_the_training(
    tiny_job: Build,
) -> None:
    job = tiny_job()
    result = run_job(job)
    again = run_job(job)
    assert again == json.loads(json.dumps(result))
    started_over = run_job(job, fresh=True)
    assert started_over["run_id"] != result["run_id"]
    assert started_over["metrics"] == result["metrics"]  # the same seeds give the same model
    assert started_over["model"]["version"] == 2
    changed = job.model_copy(update={"evaluation": job.evaluation.model_copy(update={"seed": 5})})  # type: ignore[union-attr]
    weights = run_folder(job) / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    _assert_numbers_stand_beside_their_settings(job, started_over, seed=0)
    second = run_job(changed)
    assert weights.stat().st_mtime_ns == before
    assert second["metrics"] != started_over["metrics"]
    _assert_numbers_stand_beside_their_settings(job, second, seed=5)
    own = _run(str(job.tracking.uri), second["run_id"])
    assert own.data.tags["mlflow.parentRunId"] == second["training_run_id"] == started_over["run_id"]
    assert (own.info.status, own.data.tags["lwddpm.kind"]) == ("FINISHED", "evaluate")
    assert not any(name.startswith("train/") for name in own.data.metrics)

    # either evaluation is made again in its own run, and its version gets the alias again
    for again, known in ((job, started_over), (changed, second)):
        result = run_job(again)
        assert (result["run_id"], result["metrics"]) == (known["run_id"], known["metrics"])
        assert result["model"] == known["model"]
        _assert_numbers_stand_beside_their_settings(job, result, seed=0 if again is job else 5)
    assert len(connect(str(job.tracking.uri)).search_model_versions("name='lw-ddpm-demo'")) == 3


def _assert_numbers_stand_beside_their_settings(job: TrainJob, result: dict[str, Any], seed: int) -> None:
    """In the run of a result, which is the source of its registered version."""
    client = connect(str(job.tracking.uri))
    run = client.get_run(result["run_id"])
    assert run.data.params["evaluation.seed"] == str(seed)
    assert {name: run.data.metrics[name] for name in result["metrics"]} == result["metrics"]
    settings = yaml.safe_load(Path(client.download_artifacts(run.info.run_id, "job.yaml")).read_text())
    assert settings["evaluation"]["seed"] == seed
    version = client.get_model_version_by_alias(result["model"]["name"], result["model"]["alias"])
    assert (version.run_id, int(version.version)) == (run.info.run_id, result["model"]["version"])
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "evaluation/metrics.json")).read_text())
    assert {record["value"] for record in table["records"]} <= set(result["metrics"].values())


def test_settings_changed_before_the_training_ends_stand_beside_what_they_make(
    tiny_job: Build, capfd: pytest.CaptureFixture[str]
) -> None:
    job = tiny_job("registry=null")
    uri = str(job.tracking.uri)
    assert job.evaluation is not None
    changed = tiny_job("registry=null", "evaluation.seed=5", "training.log_every_steps=1")
    folder = run_folder(job)
    with tracked_run(job, uri, None, run_digest(job), folder) as run:
        stops = iter([False] * 4)
        outbox, dataset = Outbox(folder / "outbox"), open_dataset(job.data.dataset_path)
        train(job, dataset, folder, outbox, torch.device("cpu"), should_stop=lambda: next(stops, True))
    connect(uri).set_terminated(run.run_id, "KILLED")
    write_run_id(folder, run.run_id, uri)
    write_job(folder, job)
    result = run_job(changed)
    told = "training.log_every_steps was 3, is 1"
    assert f"from step 5 on, {told}" in capfd.readouterr().err
    assert result["training_run_id"] == run.run_id != result["run_id"]
    training, evaluation = (_run(uri, result[key]) for key in ("training_run_id", "run_id"))
    assert (training.info.status, evaluation.info.status) == ("FINISHED", "FINISHED")
    assert training.data.tags["lwddpm.changed_at_step.5"] == told
    assert (training.data.params["evaluation.seed"], evaluation.data.params["evaluation.seed"]) == ("0", "5")
    assert not any(name.startswith("eval/") for name in training.data.metrics)
    assert sorted(_losses(changed, run.run_id)) == list(range(1, 9))


def test_what_makes_no_number_is_no_parameter_and_is_that_of_the_last_attempt(tiny_job: Build) -> None:
    first, second = tiny_job(), tiny_job("registry.alias=another", "workers.max_failures=1")
    done = run_job(first)
    again = run_job(second)
    assert (again["run_id"], again["model"]["version"], again["model"]["alias"]) == (done["run_id"], 1, "another")
    client = connect(str(first.tracking.uri))
    parameters = client.get_run(done["run_id"]).data.params
    incidental = ("workers.", "tracking.", "output", "offline", "registry", "training.log_every", "training.keep_")
    assert not [key for key in parameters if key.startswith(incidental)]
    settings = yaml.safe_load(Path(client.download_artifacts(done["run_id"], "job.yaml")).read_text())
    assert (settings["registry"]["alias"], settings["workers"]["max_failures"]) == ("another", 1)


@pytest.mark.parametrize("older", [False, True])
def test_a_finished_job_is_done_whatever_does_not_change_its_result(
    finished: tuple[TrainJob, dict[str, object]], older: bool
) -> None:
    job, result = finished
    file = run_folder(job) / "result.json"
    if older:  # as versions up to 0.1.0 wrote it
        file.write_text(json.dumps(result | {"digest": job.digest()}))
        changed = job
    else:
        tracking = job.tracking.model_copy(update={"experiment": "elsewhere"})
        workers = job.workers.model_copy(update={"max_failures": 1})
        changed = job.model_copy(update={"workers": workers, "tracking": tracking, "offline": True})
        changed = changed.model_copy(update={"output": f"{job.output}/../runs"})
    assert run_job(changed)["run_id"] == result["run_id"]
    assert len(connect(str(job.tracking.uri)).search_model_versions("name='lw-ddpm-demo'")) == 1


def test_a_longer_job_continues_the_finished_one_and_leaves_it_as_it_is(
    tiny_job: Build, capfd: pytest.CaptureFixture[str]
) -> None:
    constant = ("training.lr_schedule=constant", "evaluation=null", "registry=null")
    short, long = tiny_job(*constant), tiny_job(*constant, "training.max_steps=11", "training.keep_checkpoints=5")
    first, second = run_job(short), run_job(long)
    assert f"continues from step 8 of {run_folder(short)}: training.max_steps was 8, is 11" in capfd.readouterr().err
    assert _losses(long, str(second["run_id"])).items() >= _losses(short, str(first["run_id"])).items()
    assert sorted(_losses(long, str(second["run_id"]))) == list(range(1, 12))
    tags = _run(str(long.tracking.uri), str(second["run_id"])).data.tags
    assert tags["lwddpm.continues"] == first["run_id"] != second["run_id"]
    assert run_job(short)["step"] == 8
    anew = run_job(tiny_job(*constant, "training.max_steps=11", "training.lr=1e-5"))
    assert "begins at step 0, beside step 11 of" in capfd.readouterr().err
    assert anew["step"] == 11


def test_samples_are_the_same_however_they_are_drawn(
    finished: tuple[TrainJob, dict[str, object]], tmp_path: Path
) -> None:
    from PIL import Image

    job, _ = finished
    uris = {"model_uri": "models:/lw-ddpm-demo@candidate", "tracking.uri": str(job.tracking.uri)}
    common = [f"{key}={value}" for key, value in uris.items()] + ["sampling.num_inference_steps=3", "count=5"]
    for name, size in (("a", 5), ("b", 2)):
        sample = load_job("sample", [*common, f"out={tmp_path / name}", f"sampling.batch_size={size}"])
        assert run_job(sample)["count"] == 5
    for index in range(5):
        a, b = (np.asarray(Image.open(tmp_path / name / f"{index}.png")).astype(int) for name in "ab")
        assert a.shape == (16, 16)
        assert abs(a - b).max() <= 1
    about = json.loads((tmp_path / "a" / "samples.json").read_text())
    assert about["synthetic"] is True
    drawn_in = settled_precision("auto", torch.device("cpu"))
    assert (about["precision"], about["sampling"]["precision"]) == (drawn_in, drawn_in)
    assert (tmp_path / "a" / "grid.png").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="new or empty folder"):
        run_job(load_job("sample", [*common, f"out={tmp_path / 'mine'}"]))


def test_an_evaluate_job_measures_a_registered_model(
    finished: tuple[TrainJob, dict[str, object]], tiny_data: str
) -> None:
    job, result = finished
    overrides = [f"data.path={tiny_data}", "data.phantom_count=60", "data.image_size=16"]
    overrides += [f"tracking.uri={job.tracking.uri}", "evaluation.num_samples=6", "evaluation.sampler=ddim"]
    overrides += ["evaluation.num_inference_steps=3", "evaluation.metrics=[ssim_pairs,ssim_reconstruction]"]
    overrides += ["evaluation.reconstruction_timestep=3"]
    found = run_job(load_job("evaluate", overrides))
    assert found["metrics"] == pytest.approx(result["metrics"])
    assert found["run_id"] != result["run_id"]
    with pytest.raises(ConfigError, match=r"data\.image_size: must be the model's 16, got 32"):
        run_job(load_job("evaluate", [o for o in overrides if "image_size" not in o] + ["data.path=null"]))


@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_follow_the_loss_curve_of_one(tiny_job: Build) -> None:
    one, two = tiny_job("name=one"), tiny_job("name=two", "workers.count=2")
    first, second = run_job(one), run_job(two)
    losses = _losses(one, str(first["run_id"]))
    assert sorted(losses) == list(range(1, 9))
    assert _losses(two, str(second["run_id"])) == pytest.approx(losses, rel=2e-4)
    assert second["metrics"] == pytest.approx(first["metrics"], abs=0.02)


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_worker_costs_nothing_but_time(tiny_job: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL one of two workers after a checkpoint: the run ends with the weights of the undisturbed one."""
    from lwddpm.cluster.train import TrainingProgress

    calm = tiny_job("name=calm", "workers.count=2", "training.max_steps=30", "evaluation=null")
    run_job(calm)
    disturbed = tiny_job("name=disturbed", "workers.count=2", "training.max_steps=30", "evaluation=null")
    shot: list[int] = []

    def shoot(listener: TrainingProgress, rows: dict[int, dict[str, float]]) -> None:
        mine = psutil.Process().children(recursive=True)  # another Ray of this machine has workers too
        named = {process: process.as_dict(["cmdline"])["cmdline"] for process in mine if process.is_running()}
        workers = [process for process, command in named.items() if "RayTrainWorker" in " ".join(command or [])]
        if not shot and latest_checkpoint(run_folder(disturbed)) and len(workers) == 2:
            shot.append(max(rows))
            os.kill(workers[1].pid, signal.SIGKILL)

    monkeypatch.setattr(TrainingProgress, "metrics", shoot)
    exported: list[float] = []
    export = ExportedSeries.set

    def note(self: ExportedSeries, name: str, value: float, **labels: str) -> None:
        if name == "worker_restarts":
            exported.append(value)
        export(self, name, value, **labels)

    monkeypatch.setattr(ExportedSeries, "set", note)
    result = run_job(disturbed)
    assert shot, "no worker was killed"
    assert exported == [0, 1]
    assert sorted(_losses(disturbed, str(result["run_id"]))) == list(range(1, 31))
    a, b = (load_file(run_folder(job) / "model" / "model.safetensors") for job in (calm, disturbed))
    for key in a:
        np.testing.assert_allclose(a[key], b[key], rtol=0, atol=1e-5)


def test_a_diverging_run_fails_with_its_reason_and_status(tiny_job: Build) -> None:
    job = tiny_job("training.lr=1", "training.max_grad_norm=null", "training.max_steps=200")
    with pytest.raises(JobError, match=r"diverged at step \d+"):
        run_job(job)
    run_id = json.loads((run_folder(job) / "run.json").read_text())["run_id"]
    assert _run(str(job.tracking.uri), run_id).info.status == "FAILED"


def test_a_job_runs_once_at_a_time(tiny_job: Build) -> None:
    job = tiny_job()
    with lock_folder(run_folder(job)), pytest.raises(JobError, match="running already"):
        run_job(job)


def test_what_can_be_known_before_is_refused_before(tiny_job: Build, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.source"):
        run_job(tiny_job(f"data.source={tmp_path / 'missing'}", "data.path=null"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        run_job(tiny_job(f"data.source={tmp_path / 'empty'}", "data.path=null"))
    with pytest.raises(ConfigError, match=r"workers\.use_gpu"):
        run_job(tiny_job("workers.use_gpu=true", "workers.count=1000", "training.batch_size=1000"))
    with pytest.raises(ConfigError, match=r"tracking\.uri"):
        run_job(tiny_job("tracking.uri=http://127.0.0.1:1"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="output"):
        run_job(tiny_job(f"output={tmp_path / 'file' / 'runs'}"))
    with pytest.raises(ConfigError, match="inception_weights"):
        run_job(tiny_job("evaluation.inception_weights=/no/such/file"))
    assert not (tmp_path / "runs").exists()
