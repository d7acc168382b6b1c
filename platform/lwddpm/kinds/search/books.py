"""What is kept about the trials of a search besides the study: MLflow runs, exported series, and the live table."""

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.listener import Rows
from lwddpm.files import read_json
from lwddpm.kinds.search.context import SearchRun
from lwddpm.progress import TrialTable
from lwddpm.search.ranking import pareto_front
from lwddpm.search.trials import State, records
from lwddpm.tracking.earlier_runs import run_digest
from lwddpm.tracking.outbox import Outbox
from lwddpm.tracking.rundir import claim_run_folder, read_run_id, write_run_id
from lwddpm.tracking.runs import TrackedRun, child_run, open_children


class Books:
    """One MLflow run, one set of exported series and one row of the table for each trial.

    Implements `cluster.tuning.SearchListener`: called by one thread, the driver's main thread.

    Args:
        held_by_trial: CPUs and GPUs that a trial holds while it runs.
    """

    def __init__(self, search: SearchRun, table: TrialTable, held_by_trial: Mapping[str, float]) -> None:
        self._search, self._table, self._held_by_trial = search, table, held_by_trial
        self._series: dict[int, ExportedSeries] = {}
        self._runs: dict[int, TrackedRun] = {}  # of trials at work
        self._ended: list[TrackedRun] = []
        self._folders: dict[int, Path] = {}  # of trials that have their checkpoints

    def __enter__(self) -> "Books":
        return self

    def __exit__(self, *error: object) -> None:
        """End what an error or a second Ctrl-C leaves open, and wait until MLflow has everything."""
        for run in self._runs.values():
            run.end("KILLED")
        for run in (*self._ended, *self._runs.values()):
            run.flush()
        self._runs.clear()
        for series in self._series.values():
            series.close()
        self._series.clear()
        self._count()

    def begin(self, number: int, values: dict[str, Any]) -> str:
        if number in self._runs:  # handed out again after its process was lost
            return self._runs[number].run_id
        parent, name = self._search.run, self._search.job.name
        job = self._search.trial_job(number, values)
        folder = claim_run_folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        run = child_run(parent, job, read_run_id(folder, parent.uri), run_digest(job), folder)
        write_run_id(folder, run.run_id, run.uri)
        run.tags({"lwddpm.search": name, "lwddpm.trial": str(number)})
        self._folders[number], self._runs[number] = folder, run
        self._series[number] = ExportedSeries(name, run.run_id, str(number))
        self._series[number].open()
        self._count()
        self._table.begin(number, values)
        return run.run_id

    def metrics(self, number: int, rows: Rows) -> None:
        """For those who watch: MLflow gets them from the trial's outbox."""
        self._series[number].metrics(rows)
        self._table.advance(number, max(rows))

    def worker_started(self, number: int, rank: int, world: int, until: int | None, gpu: str) -> None:
        self._series[number].worker_started(rank, world, until, gpu, {})  # the search holds what its trials hold

    def rung(self, number: int, step: int, value: float) -> None:
        self._table.rung(number, step, value)
        self._series[number].set("trial_objective", value, objective=self._search.job.search.pruned_on)
        self._series[number].set("trial_step", step)

    def repeated(self, number: int, values: dict[str, Any], earlier: int) -> None:
        self._table.repeated(number, values, earlier)
        self._count()

    def end(self, number: int, state: str, reason: str) -> None:
        run = self._runs.pop(number)
        tags = {"lwddpm.state": state} | ({"lwddpm.reason": reason} if reason else {})
        run.end({"fail": "FAILED", "interrupted": "KILLED"}.get(state, "FINISHED"), tags)
        self._ended.append(run)
        self._series.pop(number).close()
        self._count()
        self._table.end(number, state, reason)
        if state == "complete":
            on_front = {trial.number for trial in pareto_front(self._search.study)}
            for other in [n for n in self._folders if n not in on_front and n not in self._runs]:
                _drop_checkpoints(self._folders.pop(other))
        elif state != "interrupted":
            _drop_checkpoints(self._folders.pop(number))

    def _count(self) -> None:
        """Export how many trials of the whole study are in which state, and what the running ones hold."""
        states = Counter(trial.state for trial in records(self._search.study))
        states["running"] = len(self._runs)  # those of a dead driver are RUNNING in the study
        for state in get_args(State):
            self._search.exported.set("trials", states[state], state=state)
        self._search.exported.hold({name: amount * len(self._runs) for name, amount in self._held_by_trial.items()})


def _drop_checkpoints(folder: Path) -> None:
    """A trial that cannot win any more keeps its numbers; its weights would fill the disk."""
    for name in ("checkpoints", "paused", "snapshots"):
        shutil.rmtree(folder / name, ignore_errors=True)


def close_trials(search: SearchRun) -> None:
    """Bring MLflow up to date after a driver that was killed: what trials reported, and how they ended.

    To be called before any trial runs: what a killed process had begun to write is removed, too.
    """
    parent = search.run
    ended = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
    states = {trial.run_id: ended.get(trial.state, "KILLED") for trial in records(search.study)}
    unfinished = set(open_children(parent))
    for file in search.folder.glob("trials/*/run.json"):
        run_id = (read_json(file) or {}).get("run_id", "")
        outbox = Outbox(file.parent / "outbox")
        outbox.sweep()
        if run_id in unfinished or (run_id in states and outbox.waiting()):
            run = TrackedRun(run_id, parent.client, file.parent)
            run.end(states.get(run_id, "KILLED"))
            run.flush()
            unfinished.discard(run_id)
    for run_id in unfinished:
        parent.client.set_terminated(run_id, "KILLED")
