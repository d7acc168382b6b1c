"""A search's trials on Ray Tune, without MLflow: what the listener hears, and what trials get of the cluster."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from lwddpm.cluster.trial import TrialSettings
from lwddpm.cluster.tuning import run_trials, trial_resources
from lwddpm.config import SearchJob
from lwddpm.errors import ConfigError
from lwddpm.jobfile import load_job
from lwddpm.models.build import build_model
from lwddpm.search.space import load_space
from lwddpm.search.trials import RUN_ID, records

NUM_TRIALS = 3
SPACE = "training.lr:\n  float: {low: 1.0e-4, high: 1.0e-2, log: true}\n"


def _job(*overrides: str) -> SearchJob:
    job = load_job("search_demo", overrides)
    assert isinstance(job, SearchJob)
    return job


class Recorder:
    """A `SearchListener` that is slow to begin and writes down what it hears, of which trial, in which thread."""

    def __init__(self, fails_at: str = "") -> None:
        self.heard: list[tuple[int, str, int]] = []
        self._fails_at = fails_at

    def begin(self, number: int, values: dict[str, Any]) -> str:
        time.sleep(1.0)
        self._note(number, "begin")
        return f"run-{number}"

    def metrics(self, number: int, rows: dict[int, dict[str, float]]) -> None:
        self._note(number, "metrics")

    def worker_started(self, number: int, rank: int, world: int, until: int | None, gpu: str) -> None:
        self._note(number, "worker_started")

    def rung(self, number: int, step: int, value: float) -> None:
        self._note(number, "rung")

    def repeated(self, number: int, values: dict[str, Any], earlier: int) -> None:
        self._note(number, "repeated")

    def end(self, number: int, state: str, reason: str) -> None:
        self._note(number, f"end {state}")

    def _note(self, number: int, event: str) -> None:
        self.heard.append((number, event, threading.get_ident()))
        if event == self._fails_at:
            raise OSError(f"{event} of trial {number} cannot be written down")


Run = Callable[[Recorder], optuna.Study]


@pytest.fixture
def run(search_overrides: Callable[[str], list[str]], tiny_data: str, tmp_path: Path) -> Run:
    """Runs three trials of two rungs, as many at a time as there are CPUs."""
    job = _job(*search_overrides(SPACE), f"search.num_trials={NUM_TRIALS}", "search.objectives=[val/loss]")

    def start(listener: Recorder) -> optuna.Study:
        study = optuna.create_study(study_name=job.name, storage=job.search.storage)
        settings = TrialSettings(job, tmp_path, tiny_data, (1, 2), "val/loss", tmp_path / "stop", 1)
        resources = trial_resources(job, {"CPU": float(os.cpu_count() or 1)})
        run_trials(study, load_space(job.search.space, job), settings, resources, listener)
        return study

    return start


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_one_thread_hears_everything_and_of_each_trial_its_beginning_first(run: Run) -> None:
    build_model(_job().model)  # the first of a process sets a variable of torch's compiler
    environment, level = dict(os.environ), logging.getLogger("ray").level
    recorder = Recorder()
    study = run(recorder)
    assert {thread for _, _, thread in recorder.heard} == {threading.get_ident()}
    for record in records(study):
        events = [event for number, event, _ in recorder.heard if number == record.number]
        assert events[0] == "begin"
        assert events[-1] == f"end {record.state}"
        assert record.run_id == f"run-{record.number}", "a trial ended before its run was known"
        assert {"worker_started", "metrics", "rung"} <= set(events)
    assert len(records(study)) == NUM_TRIALS
    assert (dict(os.environ), logging.getLogger("ray").level) == (environment, level), "left behind in this process"


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("event", ["begin", "rung"])
def test_where_the_listener_fails_trials_end_and_can_be_continued(run: Run, tmp_path: Path, event: str) -> None:
    with pytest.raises(OSError, match="cannot be written down"):
        run(Recorder(fails_at=event))
    assert "ray-tune-fit" not in {thread.name for thread in threading.enumerate()}
    (name,) = optuna.get_all_study_names(f"sqlite:///{tmp_path}/optuna.db")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path}/optuna.db")
    finished = sum(trial.state.is_finished() for trial in study.get_trials())
    assert finished < NUM_TRIALS, "nothing is left to be continued"  # a trial that runs may end before it is stopped
    assert all(trial.user_attrs.get(RUN_ID) for trial in study.get_trials() if trial.state.is_finished())


@pytest.mark.parametrize(
    ("overrides", "there", "expected"),
    [
        ((), {"CPU": 2.0}, (2, {"CPU": 1.0}, 1)),
        (("search.max_concurrent=1",), {"CPU": 4.0}, (1, {"CPU": 4.0}, 4)),
        (("search.objectives=[val/loss,sampling_seconds]",), {"CPU": 4.0}, (1, {"CPU": 4.0}, 4)),
        (
            ("search.objectives=[eval/fd_lite0,sampling_seconds]",),
            {"CPU": 8.0, "GPU": 4.0},
            (1, {"CPU": 8.0, "GPU": 1.0}, 8),
        ),
        (("workers.count=2",), {"CPU": 8.0}, (4, {"memory": 1.0}, 1)),
        (("workers.gpus_per_worker=0.5",), {"CPU": 16.0, "GPU": 2.0}, (4, {"CPU": 4.0, "GPU": 0.5}, 4)),
        (("workers.use_gpu=false",), {"CPU": 3.0, "GPU": 2.0}, (3, {"CPU": 1.0}, 1)),
    ],
)
def test_concurrency_follows_from_the_cluster(
    overrides: tuple[str, ...], there: dict[str, float], expected: tuple[Any, ...]
) -> None:
    assert trial_resources(_job(*overrides), there) == expected


def test_a_trial_larger_than_the_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="the cluster has 1"):
        trial_resources(_job("workers.use_gpu=true", "workers.count=2"), {"CPU": 8.0, "GPU": 1.0})
    with pytest.raises(ConfigError, match="1 x 4 CPU, the cluster has 2"):
        trial_resources(_job("workers.cpus_per_worker=4"), {"CPU": 2.0})
