"""A search job: trials on Ray Tune, proposed by Optuna, tracked in MLflow; then the winner trained to the end."""

import json
import logging
import os
import shutil
import threading
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import optuna
import ray
from ray import tune
from ray.util.queue import Queue as RayQueue

from lwddpm.addresses import public
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.listener import Rows
from lwddpm.cluster.searcher import StudySearcher, make_scheduler
from lwddpm.cluster.session import Session
from lwddpm.cluster.stop import StopRequest
from lwddpm.cluster.trial import Trial, TrialSettings
from lwddpm.config import SearchJob, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, JobError
from lwddpm.evaluation.features import WeightsUnavailable, read_weights
from lwddpm.files import read_json, write_json
from lwddpm.kinds.train import check_dataset, prepare, summary_of, train_evaluate_register
from lwddpm.progress import TrialTable, say
from lwddpm.search import figures
from lwddpm.search import study as record
from lwddpm.search.budget import Budget
from lwddpm.search.space import SearchSpace, load_space
from lwddpm.tracking.outbox import Outbox
from lwddpm.tracking.rundir import clear_folder, lock_folder, read_run_id, run_folder, search_folder, write_run_id
from lwddpm.tracking.runs import TrackedRun, child_run, open_children, tracked_run
from lwddpm.tracking.store import tracking_uri

_CHECKPOINT_OF_TUNE_S = "3600"  # Tune's own state is never read: the study is the record


def check_search(job: SearchJob) -> None:
    """What can be known to be wrong before anything starts.

    Raises:
        ConfigError: the space, the storage, a budget.
    """
    load_space(job.search.space, job)
    record.check_storage(record.storage_url(job.search.storage))
    if job.training.max_steps is not None:
        Budget.of(job, job.training.batch_size * job.batches_per_step)
    if "eval/fid" in (*job.search.objectives, job.search.pruned_on):
        try:
            read_weights("fid", inception_weights=job.search.proxy.inception_weights)
        except WeightsUnavailable as error:
            raise ConfigError(f"search.objectives: eval/fid: {error}; or use eval/fd_lite0") from None


def run_search(job: SearchJob, session: Session, fresh: bool) -> dict[str, Any]:
    """Run or continue a search to its end.

    Raises:
        ConfigError: wrong input, or a study of this name that was made with other settings.
        JobError: no trial reached the full budget.
        KeyboardInterrupt: stopped by the user; the same command continues.
    """
    folder = search_folder(job)
    uri, storage = tracking_uri(job.tracking), record.storage_url(job.search.storage)
    with lock_folder(folder):
        done = read_json(folder / "result.json")
        if not fresh and done is not None and done["digest"] == job.digest():
            say(f"{job.name}: finished already, in {folder}; --fresh searches again, search.num_trials extends it")
            return done
        if fresh:
            record.delete_study(storage, job.name)
            clear_folder(folder)
        run_id = read_run_id(folder, uri)
        with (
            tracked_run(job, uri, run_id, job.digest(), folder) as parent,
            ExportedSeries(job.name, parent.run_id) as exported,
        ):
            write_run_id(folder, parent.run_id, uri)
            dataset = prepare(job.data, session, fresh)
            budget = Budget.of(job, dataset.num("train"))
            space = load_space(job.search.space, job)
            study = record.open_study(storage, job.name, _definition(job, space, budget, dataset))
            parent.tags({"lwddpm.study": job.name, "lwddpm.storage": public(storage)})
            parent.dataset(dataset)
            _close_trials(study, parent, folder)
            try:
                _run_trials(job, study, space, budget, dataset, folder, parent, session, exported)
            finally:
                _log_study(study, parent)
            session.rest()
            result: dict[str, Any] = {
                "name": job.name,
                "digest": job.digest(),
                "run_id": parent.run_id,
                "run_dir": str(folder),
                "tracking_uri": public(uri),
                "dataset": summary_of(dataset),
                "search": record.describe(study),
                "metrics": {},
                "model": None,
            }
            for number, finished in _finish(job, study, dataset, folder, uri, session).items():
                result |= {key: finished[key] for key in ("metrics", "model", "parameters", "step")}
                result.setdefault("finalists", {})[number] = finished
                parent.tags({f"lwddpm.finalist.{number}": json.dumps(finished["model"])})
            write_json(folder / "result.json", result)
    return result


def _close_trials(study: optuna.Study, parent: TrackedRun, folder: Path) -> None:
    """Bring MLflow up to date after a driver that was killed: what trials reported, and how they ended."""
    ended = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
    states = {trial.run_id: ended.get(trial.state, "KILLED") for trial in record.records(study)}
    unfinished = set(open_children(parent))
    for file in folder.glob("trials/*/run.json"):
        run_id = (read_json(file) or {}).get("run_id", "")
        outbox = Outbox(file.parent / "outbox")
        if run_id in unfinished or (run_id in states and outbox.waiting()):
            run = TrackedRun(run_id, parent.client, file.parent)
            run.end(states.get(run_id, "KILLED"))
            run.flush()
            unfinished.discard(run_id)
    for run_id in unfinished:
        parent.client.set_terminated(run_id, "KILLED")


def _definition(job: SearchJob, space: SearchSpace, budget: Budget, dataset: Dataset) -> record.Definition:
    search = job.search
    base = TrainJob.model_validate(job.model_dump(exclude={"kind", "search"}) | {"kind": "train"})
    return record.Definition(
        space=space.describe(),
        sampler=search.sampler,
        seed=job.seed,
        objectives=search.objectives,
        scheduler=search.scheduler,
        prune_on=search.pruned_on,
        max_steps=budget.max_steps,
        grace_steps=budget.grace_steps,
        reduction_factor=search.reduction_factor,
        job=f"{base.training_digest()}-{dataset.version[:12]}",
        proxy=search.proxy.digest(),
    )


def _run_trials(
    job: SearchJob,
    study: optuna.Study,
    space: SearchSpace,
    budget: Budget,
    dataset: Dataset,
    folder: Path,
    parent: TrackedRun,
    session: Session,
    exported: ExportedSeries,
) -> None:
    """Bring the study to `num_trials` trials; does nothing where it has them."""
    trials = study.get_trials(deepcopy=False)
    if len(trials) >= job.search.num_trials and all(trial.state.is_finished() for trial in trials):
        return
    session.connect()
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what went wrong with a trial is said by us, in a line
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the table is ours
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = _CHECKPOINT_OF_TUNE_S
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # a failed trial reports no metric
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    concurrent, resources, cpus_per_worker = trial_resources(job, ray.cluster_resources())
    events = RayQueue(actor_options={"num_cpus": 0})
    settings = TrialSettings(
        job=job,
        folder=folder,
        dataset_path=dataset.path,
        rungs=budget.rungs,
        pruned_on=job.search.pruned_on,
        cpus_per_worker=cpus_per_worker,
        stop_file=folder / "stop",
        events=events,
    )
    with TrialTable(job.search.num_trials, budget.max_steps, job.search.pruned_on) as table:
        ledger = _Ledger(study, parent, table, settings, session, exported)
        searcher = StudySearcher(study, space, settings, ledger.notify(events))
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(Trial, settings=settings), resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=make_scheduler(study, settings),
                num_samples=-1,
                max_concurrent_trials=concurrent,
                reuse_actors="peak_memory_mib" not in job.search.objectives,  # a process remembers its peak
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=uuid.uuid4().hex[:8],
                storage_path=str(folder / "tune"),
                failure_config=tune.FailureConfig(max_failures=job.workers.max_failures),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial's folder is its state
                verbose=0,
            ),
        )
        with StopRequest(settings.stop_file) as stop:
            fit = _Fit(tuner, events)
            fit.start()
            try:
                for number, name, arguments in iter(events.get, None):
                    getattr(ledger, name)(number, *arguments)
            finally:
                ledger.close()
    shutil.rmtree(folder / "tune", ignore_errors=True)
    if fit.error is not None:
        raise fit.error
    if stop.requested:
        say(f"stopped; the same command continues the study {job.name}")
        raise KeyboardInterrupt


def trial_resources(job: SearchJob, there: dict[str, float]) -> tuple[int, dict[str, float], int]:
    """How many trials fit at a time.

    Returns:
        Trials at a time, what Ray reserves for each trial's own process, CPUs of each worker.

    Raises:
        ConfigError: not even one trial fits.
    """
    workers, limit = job.workers, job.search.max_concurrent
    count = workers.max_count
    cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    use_gpu = workers.use_gpu is True or (workers.use_gpu == "auto" and gpus >= count * workers.gpus_per_worker)
    concurrent = int(gpus / (count * workers.gpus_per_worker) + 1e-9) if use_gpu else limit or int(cpus)
    concurrent = min(concurrent, limit or concurrent)
    if concurrent < 1:
        raise ConfigError(
            f"workers: a trial needs {count} x {workers.gpus_per_worker:g} GPU, the cluster has {gpus:g}; "
            "lower workers.count or workers.gpus_per_worker, or set workers.use_gpu: false"
        )
    per_worker = workers.cpus_per_worker or max(1, int(cpus / (concurrent * count)))
    concurrent = min(concurrent, int(cpus / (per_worker * count)))
    if concurrent < 1:
        raise ConfigError(
            f"workers: a trial needs {count} x {per_worker} CPU, the cluster has {cpus:g}; "
            "lower workers.count or workers.cpus_per_worker"
        )
    own = {"CPU": float(per_worker)} | ({"GPU": workers.gpus_per_worker} if use_gpu else {})
    # A trial with a worker group of its own only waits for it: a byte of memory keeps Ray from asking for a CPU.
    return concurrent, own if count == 1 else {"memory": 1.0}, per_worker


class _Fit(threading.Thread):
    """`Tuner.fit` beside the driver's main thread; the last event is None."""

    def __init__(self, tuner: tune.Tuner, events: Any) -> None:
        super().__init__(daemon=True, name="ray-tune-fit")
        self._tuner, self._events = tuner, events
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._tuner.fit()
        except BaseException as error:
            self.error = error
        finally:
            self._events.put(None)


class _Ledger:
    """The driver's books: one MLflow run and one set of exported series for each trial, and the live table."""

    def __init__(
        self,
        study: optuna.Study,
        parent: TrackedRun,
        table: TrialTable,
        settings: TrialSettings,
        session: Session,
        exported: ExportedSeries,
    ) -> None:
        self._study, self._parent, self._table, self._settings = study, parent, table, settings
        self._search, self._trials = exported, dict[int, ExportedSeries]()
        workers, use_gpu = settings.job.workers, session.use_gpu
        self._held_by_one = {
            "CPU": workers.max_count * settings.cpus_per_worker,
            "GPU": workers.max_count * workers.gpus_per_worker if use_gpu else 0,
        }
        self._runs: dict[int, TrackedRun] = {}
        self._ended: list[TrackedRun] = []
        self._folders: dict[int, Path] = {}

    def notify(self, events: Any) -> Any:
        """What the searcher calls: a beginning is booked at once, before the trial can report anything."""

        def call(trial: optuna.Trial, name: str, arguments: tuple[Any, ...]) -> None:
            if name == "begin":
                self.begin(trial, *arguments)
            else:  # in line behind the trial's own reports
                events.put((trial.number, name, arguments))

        return call

    def begin(self, trial: optuna.Trial, job: TrainJob, values: dict[str, Any]) -> None:
        if trial.number in self._runs:  # handed out again after its process was lost
            return
        folder = run_folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        run_id = read_run_id(folder, self._parent.uri)
        run = child_run(self._parent, job, run_id, job.digest(), folder)
        write_run_id(folder, run.run_id, run.uri)
        trial.set_user_attr(record.RUN_ID, run.run_id)
        run.tags({"lwddpm.search": self._study.study_name, "lwddpm.trial": str(trial.number)})
        self._folders[trial.number] = folder
        self._runs[trial.number] = run
        self._trials[trial.number] = ExportedSeries(self._settings.job.name, run.run_id, str(trial.number))
        self._trials[trial.number].open()
        self._count()
        self._table.begin(trial.number, values)

    def metrics(self, number: int, rows: Rows) -> None:
        """For those who watch: MLflow gets them from the trial's outbox."""
        self._trials[number].metrics(rows)
        self._table.advance(number, max(rows))

    def worker_started(self, number: int, rank: int, world: int, until: int | None, gpu: str) -> None:
        self._trials[number].worker_started(rank, world, until, gpu, {})  # the search holds what its trials hold

    def rung(self, number: int, step: int, value: float) -> None:
        self._table.rung(number, step, value)
        self._trials[number].set("trial_objective", value, objective=self._settings.pruned_on)
        self._trials[number].set("trial_step", step)

    def end(self, number: int, state: str, reason: str) -> None:
        run = self._runs.pop(number)
        tags = {"lwddpm.state": state} | ({"lwddpm.reason": reason} if reason else {})
        run.end({"fail": "FAILED", "interrupted": "KILLED"}.get(state, "FINISHED"), tags)
        self._ended.append(run)
        self._trials.pop(number).close()
        self._count()
        self._table.end(number, state, reason)
        if state == "complete":
            kept = {found.number for found in record.pareto_front(self._study)}
            for other in [n for n in self._folders if n not in kept and n not in self._runs]:
                _drop_checkpoints(self._folders.pop(other))
        elif state != "interrupted":
            _drop_checkpoints(self._folders.pop(number))

    def close(self) -> None:
        """End what an error or a second Ctrl-C leaves open, and wait until MLflow has everything."""
        for run in self._runs.values():
            run.end("KILLED")
        for run in (*self._ended, *self._runs.values()):
            run.flush()
        self._runs.clear()
        for series in self._trials.values():
            series.close()
        self._trials.clear()
        self._count()

    def _count(self) -> None:
        """Export how many trials of the whole study are in which state, and what the running ones hold."""
        states = Counter(trial.state for trial in record.records(self._study))
        states["running"] = len(self._trials)  # those of a dead driver are RUNNING in the study
        for state in get_args(record.State):
            self._search.set("trials", states[state], state=state)
        self._search.hold({name: amount * len(self._trials) for name, amount in self._held_by_one.items()})


def _drop_checkpoints(folder: Path) -> None:
    """A trial that cannot win any more keeps its numbers; its weights would fill the disk."""
    for name in ("checkpoints", "paused", "snapshots"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _log_study(study: optuna.Study, parent: TrackedRun) -> None:
    parent.text(record.table(study), "trials.md")
    parent.text(json.dumps(record.describe(study), indent=2, default=str), "study.json")
    for name, figure in figures.all_figures(study).items():
        parent.figure(figure, name)


def _finish(
    job: SearchJob, study: optuna.Study, dataset: Dataset, folder: Path, uri: str, session: Session
) -> dict[int, dict[str, Any]]:
    """Train the winner, or the front, from its checkpoint to the end; evaluate and register it; the winner last."""
    ranked = record.ranking(study)
    if not ranked:
        raise JobError(
            f"search {job.name}: no trial reached the full budget; see lwddpm search show {job.name} for the reasons"
        )
    chosen = {"none": [], "best": ranked[:1], "front": record.pareto_front(study)}[job.search.finish]
    settings = TrialSettings(job, folder, dataset.path, (), "", 1, folder / "stop", None)
    results = {}
    for found in sorted(chosen, key=lambda found: found.number == ranked[0].number):
        trial = settings.job_of(found.number, found.params)
        run_dir = run_folder(trial)
        finished = read_json(run_dir / "result.json")
        if finished is None:
            say(f"trial {found.number}: training to the end of its schedule")
            check_dataset(trial, dataset)
            with (
                tracked_run(trial, uri, found.run_id, trial.digest(), run_dir, nested=True) as run,
                ExportedSeries(job.name, run.run_id, str(found.number)) as exported,
            ):
                tags = {"lwddpm.search": job.name, "lwddpm.trial": str(found.number)}
                finished = train_evaluate_register(trial, dataset, run_dir, run, session, exported, tags)
                run.flush()
                write_json(run_dir / "result.json", finished)
        results[found.number] = finished
    return results
