"""Whole searches on the smallest dataset: honest states, one MLflow run a trial, killed and continued."""

import contextlib
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.session import Session
from lwddpm.config import SearchJob
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, JobError
from lwddpm.jobfile import load_job
from lwddpm.kinds.jobs import run_job
from lwddpm.kinds.search.books import Books
from lwddpm.kinds.search.context import SearchRun
from lwddpm.progress import TrialTable
from lwddpm.search.ownership import lock_study
from lwddpm.search.storage import find_study
from lwddpm.search.trials import RUN_ID, records
from lwddpm.tracking.rundir import search_folder
from lwddpm.tracking.runs import tracked_run
from lwddpm.tracking.store import connect, tracking_uri

from ...processes import LWDDPM, clean_environment, flags, wait_until

pytestmark = pytest.mark.cluster
SPACE = "training.lr:\n  float: {low: 1.0e-4, high: 1.0e-2, log: true}\nmodel.se_reduction:\n  int: {low: 2, high: 8}\n"
Build = Callable[..., SearchJob]


@pytest.fixture
def overrides(search_overrides: Callable[[str], list[str]]) -> list[str]:
    settings = ["search.num_trials=4", "search.objectives=[val/loss]", "search.max_steps=6", "search.grace_steps=2"]
    return [*search_overrides(SPACE), *settings]


@pytest.fixture
def build(overrides: list[str]) -> Build:
    def build_job(*further: str) -> SearchJob:
        job = load_job("search_demo", [*overrides, *further])
        assert isinstance(job, SearchJob)
        return job

    return build_job


def _study(job: SearchJob) -> Any:
    return find_study(str(job.search.storage), job.name)


def _children(job: SearchJob, parent: str) -> dict[str, str]:
    """Name -> status of every run beneath the search's."""
    client = connect(str(job.tracking.uri))
    experiment = client.get_run(parent).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert len({run.info.run_name for run in runs}) == len(runs), "a trial has two runs"
    return {run.info.run_name: run.info.status for run in runs}


@pytest.mark.usefixtures("ray_cluster")
def test_a_search_ends_with_a_study_its_runs_and_a_registered_winner(build: Build) -> None:
    job = build()
    result = run_job(job)
    trials = records(_study(job))
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert {trial.state for trial in trials} <= {"complete", "pruned"}
    assert all((trial.step == 6) == (trial.state == "complete") for trial in trials)
    best = min((trial for trial in trials if trial.values), key=lambda trial: trial.values or ())
    assert result["search"]["best"]["number"] == best.number
    assert _children(job, result["run_id"]) == dict.fromkeys((f"search-demo-{i:04d}" for i in range(4)), "FINISHED")
    client = connect(str(job.tracking.uri))
    parent = client.get_run(result["run_id"])
    assert parent.info.status == "FINISHED"
    files = {f.path for f in client.list_artifacts(result["run_id"])}
    assert {"trials.md", "study.json", "figures", "job.yaml"} <= files
    version = client.get_model_version_by_alias("lw-ddpm-search-demo", "candidate")
    assert (version.run_id, version.tags["lwddpm.trial"]) == (best.run_id, str(best.number))
    assert "search.num_trials" not in parent.data.params
    history = client.get_metric_history(best.run_id, "train/loss")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5, 6, 7, 8], "the winner goes on to the full schedule"
    states = {group["state"] for group in ray.util.placement_group_table().values()}
    assert states <= {"REMOVED"}, "a placement group outlived its trial"
    assert run_job(job)["model"] == result["model"]
    assert run_job(build("workers.max_failures=1", "tracking.experiment=elsewhere")) == run_job(job)
    registered = run_job(build("registry.alias=second"))["model"]
    assert (registered["version"], registered["alias"]) == (1, "second")
    changed = run_job(build("evaluation.seed=5"))
    assert (changed["run_id"], changed["model"]["version"]) == (result["run_id"], 2)
    source = client.get_run(client.get_model_version("lw-ddpm-search-demo", "2").run_id)
    assert source.data.tags["mlflow.parentRunId"] == best.run_id
    assert source.data.params["evaluation.seed"] == "5"
    more = run_job(build("search.num_trials=5"))
    assert more["search"]["counts"].keys() <= {"complete", "pruned"}
    assert len(records(_study(job))) == 5
    with pytest.raises(ConfigError, match=r"search\.sampler was tpe, is random"):
        run_job(build("search.num_trials=6", "search.sampler=random"))


@pytest.mark.usefixtures("ray_cluster")
def test_a_diverged_trial_fails_with_its_reason(build: Build, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("training.lr:\n  float: {low: 0.9, high: 1.0}\n")
    job = build("training.max_grad_norm=null", "search.num_trials=2", "training.log_every_steps=1")
    with pytest.raises(JobError, match="no trial reached the full budget"):
        run_job(job)
    trials = records(_study(job))
    assert [trial.state for trial in trials] == ["failed", "failed"]
    assert all("diverged" in trial.reason for trial in trials)


@pytest.mark.usefixtures("ray_cluster")
def test_several_objectives_two_workers_and_infeasible_models(build: Build, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("model.dim_mults:\n  categorical: [[1, 2], [1, 1, 1, 1, 1, 1]]\n")
    job = build(
        "workers.count=2",
        "search.objectives=[val/loss, parameters]",
        "search.sampler=random",
        "search.num_trials=2",
        "search.max_steps=4",
        "search.finish=none",
        "seed=1",
    )
    with pytest.raises(ConfigError, match="divisible"):  # alone it fits no image of 16 pixels: exit 2 beforehand
        run_job(job)
    (tmp_path / "space.yaml").write_text("model.dim:\n  int: {low: 8, high: 16, step: 8}\n")
    run_job(job)
    trials = records(_study(job))
    complete = [trial for trial in trials if trial.state == "complete"]
    assert complete
    assert all(trial.values is not None and len(trial.values) == 2 for trial in complete)
    states = {group["state"] for group in ray.util.placement_group_table().values()}
    assert states <= {"REMOVED"}


@pytest.mark.usefixtures("ray_cluster")
def test_fresh_leaves_the_study_of_another_folder(build: Build, tmp_path: Path) -> None:
    """Two users with one storage and one name: --fresh of the second would delete the trials of the first."""
    theirs = build(f"output={tmp_path / 'theirs'}", "search.num_trials=1", "search.finish=none")
    run_job(theirs)
    with pytest.raises(ConfigError, match="--fresh: deletes only what this job has made"):
        run_job(build(), fresh=True)
    assert [trial.state for trial in records(_study(theirs))] == ["complete"]
    with lock_study(str(theirs.search.storage), theirs.name), pytest.raises(JobError, match="another process runs it"):
        run_job(build())
    run_job(theirs, fresh=True)
    assert [trial.number for trial in records(_study(theirs))] == [0]


def test_the_whole_front_is_trained_to_the_end_and_the_best_by_the_first_objective_last(
    build: Build, tiny_dataset: Dataset
) -> None:
    job = build("search.objectives=[val/loss,parameters]", "search.num_trials=3", "search.finish=front")
    folder, outcomes = search_folder(job), ((2.0, 10.0), (1.0, 20.0), (3.0, 30.0))  # the last is worse in both
    folder.mkdir(parents=True)
    with (
        tracked_run(job, tracking_uri(job.tracking), None, job.digest(), folder) as run,
        TrialTable(3, 6, "val/loss") as table,
    ):
        exported = ExportedSeries(job.name, "")
        search = SearchRun.open(job, folder, tiny_dataset, run, exported, Session(job.workers))
        with Books(search, table, {}) as books:
            for values in outcomes:
                trial = search.study.ask(search.space.distributions)
                trial.set_user_attr(RUN_ID, books.begin(trial.number, trial.params))
                search.study.tell(trial, values)
                books.end(trial.number, "complete", "")
    result = run_job(job)
    assert set(result["finalists"]) == {0, 1}
    assert result["model"] == result["finalists"][1]["model"]
    assert result["metrics"] == result["finalists"][1]["metrics"]
    client = connect(str(job.tracking.uri))
    versions = client.search_model_versions("name='lw-ddpm-search-demo'")
    assert {version.tags["lwddpm.trial"]: version.version for version in versions} == {"0": 1, "1": 2}
    assert client.get_model_version_by_alias("lw-ddpm-search-demo", "candidate").tags["lwddpm.trial"] == "1"
    trained = [
        {metric.step for metric in client.get_metric_history(trial.run_id, "train/loss")}
        for trial in records(_study(job))
    ]
    assert trained == [set(range(1, 9)), set(range(1, 9)), set()]


def _start(overrides: list[str], folder: Path) -> subprocess.Popen[str]:
    command = [LWDDPM, "run", "search_demo", *flags(overrides)]
    return subprocess.Popen(command, cwd=folder, env=clean_environment(), stderr=subprocess.PIPE, text=True)


def _wait_for(process: subprocess.Popen[str], text: str) -> list[str]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"ended without saying {text!r}:\n{''.join(lines)}")


def _trial_processes(driver: int) -> list[psutil.Process]:
    """Those in which trials run, one after the other."""
    trials = []
    for process in psutil.Process(driver).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # Ray's processes come and go
            if any("Trial" in part for part in process.cmdline()):
                trials.append(process)
    return trials


def test_killed_twice_it_ends_as_if_undisturbed(overrides: list[str], build: Build, tmp_path: Path) -> None:
    one_at_a_time = ["search.max_concurrent=1", "search.finish=none", "search.num_trials=5"]
    undisturbed = build(*one_at_a_time, "name=undisturbed")
    run_job(undisturbed)
    settings = [*overrides, *one_at_a_time, "name=killed"]
    first = _start(settings, tmp_path)
    _wait_for(first, "trial 1: lr")
    first.kill()  # the driver
    assert first.wait() == -signal.SIGKILL
    job = build(*one_at_a_time, "name=killed")
    assert [trial.state for trial in records(_study(job))][1:] == ["running"], "trial 1 has ended before the kill"
    second = _start(settings, tmp_path)
    _wait_for(second, "trial 2: lr")
    wait_until(lambda: _trial_processes(second.pid), 60, second)
    (killed,) = _trial_processes(second.pid)
    killed.kill()
    assert "complete" not in [trial.state for trial in records(_study(job))][2:], "trial 2 has ended before the kill"
    wait_until(lambda: {process.pid for process in _trial_processes(second.pid)} - {killed.pid}, 100, second)
    _, rest = second.communicate(timeout=200)
    assert second.returncode == 0, rest
    for a, b in zip(records(_study(undisturbed)), records(_study(job)), strict=True):
        assert (a.number, a.state, a.step, a.params) == (b.number, b.state, b.step, b.params)
        assert b.last == pytest.approx(a.last, rel=1e-4)
    client = connect(str(job.tracking.uri))
    experiment = client.get_experiment_by_name("lw-ddpm")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len([run for run in runs if run.info.run_name.startswith("killed-")]) == 5
