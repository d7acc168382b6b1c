"""MLflow runs, folders and series of trials, as the events of a search change them; without Ray."""

from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.session import Session
from lwddpm.config import SearchJob
from lwddpm.data.store import Dataset
from lwddpm.jobfile import load_job
from lwddpm.kinds.search.books import Books, close_trials
from lwddpm.kinds.search.context import SearchRun
from lwddpm.progress import TrialTable
from lwddpm.search.trials import RUN_ID
from lwddpm.tracking.outbox import Outbox
from lwddpm.tracking.rundir import read_run_id, run_folder, search_folder
from lwddpm.tracking.runs import tracked_run
from lwddpm.tracking.store import tracking_uri

SPACE = "training.lr:\n  float: {low: 1.0e-4, high: 1.0e-2, log: true}\n"
VALUES = {"training.lr": 1e-3}


@pytest.fixture
def search(search_overrides: Callable[[str], list[str]], tiny_dataset: Dataset) -> Iterator[SearchRun]:
    job = load_job("search_demo", [*search_overrides(SPACE), "search.max_steps=6", "search.grace_steps=2"])
    assert isinstance(job, SearchJob)
    folder, series = search_folder(job), ExportedSeries(job.name, "")
    folder.mkdir(parents=True)
    with tracked_run(job, tracking_uri(job.tracking), None, job.digest(), folder) as run:
        yield SearchRun.open(job, folder, tiny_dataset, run, series, Session(job.workers))


@pytest.fixture
def table() -> Iterator[TrialTable]:
    with TrialTable(4, 6, "eval/fd_lite0") as opened:
        yield opened


def _status(search: SearchRun, run_id: str) -> str:
    return str(search.run.client.get_run(run_id).info.status)


def _begin(books: Books, search: SearchRun) -> tuple[optuna.Trial, str, Path]:
    """A trial of the study, its run, and its folder with a checkpoint."""
    trial = search.study.ask(search.space.distributions)
    run_id = books.begin(trial.number, VALUES)
    trial.set_user_attr(RUN_ID, run_id)
    folder = run_folder(search.trial_job(trial.number, VALUES))
    (folder / "checkpoints").mkdir()
    return trial, run_id, folder


def test_runs_end_as_their_trials_do_and_only_the_best_keeps_its_checkpoints(
    search: SearchRun, table: TrialTable
) -> None:
    with Books(search, table, {"CPU": 1}) as books:
        begun = [_begin(books, search) for _ in range(4)]
        for (trial, _, _), value in zip(begun[:2], (9.0, 3.0), strict=True):
            search.study.tell(trial.number, value)
            books.end(trial.number, "complete", "")
        books.end(2, "interrupted", "")
        books.end(3, "fail", "diverged")
    statuses = [_status(search, run_id) for _, run_id, _ in begun]
    assert statuses == ["FINISHED", "FINISHED", "KILLED", "FAILED"]
    assert [(folder / "checkpoints").exists() for _, _, folder in begun] == [False, True, True, False]
    assert search.run.client.get_run(begun[3][1]).data.tags["lwddpm.reason"] == "diverged"


def test_a_trial_that_is_handed_out_again_keeps_its_run(search: SearchRun, table: TrialTable) -> None:
    with Books(search, table, {}) as books:
        trial, run_id, folder = _begin(books, search)
        assert books.begin(trial.number, VALUES) == run_id
    assert _status(search, run_id) == "KILLED", "left open by an error"
    with Books(search, table, {}) as books:  # the next session
        assert books.begin(trial.number, VALUES) == run_id
        assert _status(search, run_id) == "RUNNING"
    assert read_run_id(folder, search.run.uri) == run_id


def test_a_killed_driver_leaves_runs_that_are_closed_with_what_they_reported(
    search: SearchRun, table: TrialTable
) -> None:
    books = Books(search, table, {})  # never left: its driver is killed
    trial, run_id, folder = _begin(books, search)
    Outbox(folder / "outbox").metrics({2: {"train/loss": 0.5}})
    (folder / "outbox" / ".half.json.partial").write_text("{")
    books._runs[trial.number].close()
    close_trials(search)
    assert _status(search, run_id) == "KILLED"
    assert [metric.value for metric in search.run.client.get_metric_history(run_id, "train/loss")] == [0.5]
    assert list((folder / "outbox").glob(".*.partial")) == []
