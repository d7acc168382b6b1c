"""Whole jobs on a GPU through the front door: in this process, on a Ray worker, as trials that share it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lwddpm.cluster.session import Session
from lwddpm.config import SamplingConfig, SearchJob, TrainJob
from lwddpm.head.doctor import examine
from lwddpm.jobfile import load_job
from lwddpm.kinds.compare.cost import measure_cost
from lwddpm.kinds.jobs import run_job
from lwddpm.search.storage import find_study
from lwddpm.tracking.store import connect

Build = Callable[..., TrainJob]
pytestmark = pytest.mark.cluster
ON_GPU = "workers.use_gpu=true"
OF_PROCESS_MIB = 500  # torch with CUDA holds more in a process than such a network on a GPU


def _history(job: TrainJob, run_id: object, metric: str) -> list[float]:
    found = connect(str(job.tracking.uri)).get_metric_history(str(run_id), metric)
    return [value.value for value in sorted(found, key=lambda value: value.step)]


@pytest.mark.usefixtures("ray_cluster")
def test_in_this_process_and_on_a_ray_worker_a_job_is_the_same(tiny_job: Build) -> None:
    here, there = tiny_job(ON_GPU, "name=here"), tiny_job(ON_GPU, "name=there")
    results = run_job(here), run_job(there, address="auto")
    losses = [_history(job, result["run_id"], "train/loss") for job, result in zip((here, there), results, strict=True)]
    assert len(losses[0]) == 8
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-2)
    for job, result in zip((here, there), results, strict=True):
        assert 0 < max(_history(job, result["run_id"], "train/peak_memory_mib")) < OF_PROCESS_MIB
        assert np.isfinite(list(result["metrics"].values())).all()
        assert result["model"]["alias"] == "candidate"
    assert results[0]["metrics"] == pytest.approx(results[1]["metrics"], abs=0.1)


@pytest.mark.usefixtures("ray_cluster")
def test_trials_share_a_gpu(search_overrides: Callable[[str], list[str]]) -> None:
    space = "training.lr:\n  float: {low: 1.0e-4, high: 1.0e-2, log: true}\n"
    search = ["search.num_trials=6", "search.max_steps=8", "search.grace_steps=2", "search.proxy.num_samples=6"]
    objectives = ["search.objectives=[val/loss,peak_memory_mib]", "search.prune_on=val/loss"]
    share = [ON_GPU, "workers.gpus_per_worker=0.25"]
    job = load_job("search_demo", [*search_overrides(space), *search, *objectives, *share])
    assert isinstance(job, SearchJob)
    result = run_job(job)
    assert set(result["search"]["counts"]) <= {"complete", "pruned"}
    trials = find_study(str(job.search.storage), job.name).get_trials()
    complete = [trial for trial in trials if trial.values]
    assert all(0 < trial.values[1] < OF_PROCESS_MIB for trial in complete)
    begins = sorted(trial.datetime_start for trial in trials if trial.datetime_start)
    first_end = min(trial.datetime_complete for trial in trials if trial.datetime_complete)
    assert sum(begin < first_end for begin in begins) == 4  # a quarter each
    assert result["model"] is not None


def test_costs_are_those_of_the_gpu(tiny_job: Build, model_dir: Path) -> None:
    job = tiny_job(ON_GPU)
    run_job(job)  # prepares the dataset
    sampling = SamplingConfig(sampler="ddim", num_inference_steps=5)
    with Session(job.workers) as session:
        found = measure_cost(job, job.data.path, model_dir, sampling, 8, session)
    assert found["images_per_s"] > 0
    assert 0 < found["peak_memory_mib"] < OF_PROCESS_MIB
    assert found["seconds_per_64"] > 0


def test_doctor_names_the_gpu(tmp_path: Path) -> None:
    checks = {check["name"]: check for check in examine(None, f"sqlite:///{tmp_path}/mlflow.db")["checks"]}
    assert checks["GPU"]["status"] == "ok"
    assert torch.cuda.get_device_name(0) in checks["GPU"]["found"]
