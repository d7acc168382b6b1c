"""One trial of a search, as an actor of Ray Tune: trains to the next rung, measures, asks whether to go on.

A trial is an ordinary training run in a folder of its own that pauses at every rung. Between two rungs nothing of it
runs: Tune can end a trial there without killing workers, and whoever dies, the folder says where to continue.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune

from lwddpm.cluster.listener import Rows
from lwddpm.cluster.session import Session
from lwddpm.cluster.train import run_workers
from lwddpm.config import COPIED_OBJECTIVE, SearchJob, TrainJob
from lwddpm.data.store import open_dataset
from lwddpm.errors import LwddpmError
from lwddpm.files import read_json, write_json
from lwddpm.search.objectives import measure
from lwddpm.search.space import numbered_trial_job
from lwddpm.tracking.outbox import Outbox
from lwddpm.tracking.rundir import run_folder
from lwddpm.training.loop import GRID_SAMPLES


@dataclass(frozen=True)
class TrialSettings:
    """What all trials of a search share; travels to their actors once.

    Attributes:
        rungs: optimizer steps at which a trial is measured; the last is its full budget.
        pruned_on: the objective that is measured at every rung; the others, and constraints, only at the last one.
        stop_file: once it exists, trials save a checkpoint and end.
        cpus_per_worker: compute threads of each worker.
        events: queue to the driver of (trial number, name, arguments).
    """

    job: SearchJob
    folder: Path
    dataset_path: str
    rungs: tuple[int, ...]
    pruned_on: str
    stop_file: Path
    cpus_per_worker: int
    events: Any = None

    def job_of(self, number: int, values: dict[str, Any]) -> TrainJob:
        """The training job of a trial; its run folder is that of the job."""
        return numbered_trial_job(self.job, number, values, self.folder)


class Trial(tune.Trainable):
    """`step` takes the trial to its next rung. Results: `step`, `seconds`, objectives by name, `done`; or `error`."""

    def setup(self, config: dict[str, Any], settings: TrialSettings) -> None:
        self._settings = settings
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Become another trial: a new process would take seconds to start."""
        self._number: int = config["number"]
        self._job = self._settings.job_of(self._number, config["values"])
        self._remaining = list(self._settings.rungs)
        return True

    def step(self) -> dict[str, Any]:
        rung = self._remaining.pop(0)
        folder = run_folder(self._job)
        folder.mkdir(parents=True, exist_ok=True)
        measured = read_json(folder / "rungs.json") or {}
        if str(rung) not in measured:
            start = time.perf_counter()
            try:
                values = self._advance(folder, rung)
            except LwddpmError as error:
                return {"step": rung, "error": str(error), "done": True}
            except Exception as error:  # Tune would try again; what fails once in a program fails again
                return {"step": rung, "error": f"{type(error).__name__}: {error}", "done": True}
            if values is None:
                return {"step": rung, "interrupted": True, "done": True}
            measured[str(rung)] = values | {"seconds": time.perf_counter() - start}
            write_json(folder / "rungs.json", measured)
        seconds = sum(values["seconds"] for values in measured.values())
        values = {name: value for name, value in measured[str(rung)].items() if name != "seconds"}
        bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if bad:
            return {"step": rung, "error": f"not a number to compare: {', '.join(bad)}", "done": True}
        return {"step": rung, "seconds": seconds, "done": not self._remaining} | values

    def _advance(self, folder: Path, rung: int) -> dict[str, float] | None:
        """Train to the rung and measure; None if a stop was requested on the way."""
        settings, job = self._settings, self._job
        torch.set_num_threads(settings.cpus_per_worker)
        dataset = open_dataset(settings.dataset_path)
        listener, outbox = TrialListener(self._number, settings.events), Outbox(folder / "outbox")
        session = Session.inside_ray(job.workers.model_copy(update={"cpus_per_worker": settings.cpus_per_worker}))
        outcome = run_workers(job, dataset, folder, listener, session, settings.stop_file, until=rung)
        if outcome.step < rung:
            return None
        last = rung == settings.rungs[-1]
        search = settings.job.search
        names = search.named if last else (settings.pruned_on,)
        model_dir = folder / ("model" if outcome.finished else "paused")
        # a trial with a worker group of its own may wait for it on a node without GPUs
        device = torch.device("cuda" if session.use_gpu and torch.cuda.is_available() else "cpu")
        reported = {"val/loss": listener.validation_loss, "peak_memory_mib": listener.peak_memory_mib}
        measured = {name: value for name, value in reported.items() if name in names}
        measured |= measure(
            names,
            model_dir,
            dataset,
            search.proxy,
            device,
            show=lambda epoch, images: outbox.images(rung, epoch, images[:GRID_SAMPLES]),
            most_copied=search.constraints.get(COPIED_OBJECTIVE) if last else None,
        )
        if unreported := {name: value for name, value in measured.items() if name != "val/loss"}:
            outbox.metrics({rung: unreported})
        return measured


class TrialListener:
    """Hears a trial's training: passes everything on to the driver, and keeps what objectives need."""

    def __init__(self, number: int, events: Any) -> None:
        self._number, self._events = number, events
        self.validation_loss = math.nan
        self.peak_memory_mib = 0.0

    def metrics(self, rows: Rows) -> None:
        for values in rows.values():
            self.validation_loss = values.get("val/loss", self.validation_loss)
            self.peak_memory_mib = max(self.peak_memory_mib, values.get("train/peak_memory_mib", 0.0))
        self._send("metrics", rows)

    def worker_started(self, rank: int, world_size: int, until: int | None, gpu: str) -> None:
        self._send("worker_started", rank, world_size, until, gpu)

    def warning(self, step: int, message: str) -> None:
        """The trial's run has it as a tag; the terminal shows the live table."""

    def _send(self, name: str, *arguments: Any) -> None:
        self._events.put((self._number, name, arguments))
