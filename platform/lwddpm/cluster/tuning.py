"""A search's trials on Ray Tune: `Tuner.fit` in a thread, and everything that happens as events for the main thread."""

import logging
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import optuna
import ray
from ray import tune
from ray.util.queue import Queue as RayQueue

from lwddpm.cluster.listener import Rows
from lwddpm.cluster.searcher import StudyScheduler, StudySearcher
from lwddpm.cluster.session import Session
from lwddpm.cluster.settings import ray_settings
from lwddpm.cluster.stop import BackgroundCall
from lwddpm.cluster.trial import Trial, TrialSettings
from lwddpm.config import SearchJob
from lwddpm.errors import ConfigError
from lwddpm.search.space import SearchSpace

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the table is ours
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own state is never read: the study is the record
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports no metric
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


class SearchListener(Protocol):
    """Hears a search, in the thread that runs it; of each trial `begin` first, but of repetitions."""

    def begin(self, number: int, values: dict[str, Any]) -> str:
        """A trial with these job values is handed out, for a second time if its process was lost.

        Returns:
            The id of its MLflow run.
        """

    def metrics(self, number: int, rows: Rows) -> None:
        """`train.Listener.metrics` of a trial."""

    def worker_started(self, number: int, rank: int, world: int, until: int | None, gpu: str) -> None:
        """`train.Listener.worker_started` of a trial."""

    def rung(self, number: int, step: int, value: float) -> None:
        """A trial has been measured; the study has it."""

    def repeated(self, number: int, values: dict[str, Any], earlier: int) -> None:
        """A trial has the job values of an earlier one, and took over its outcome; it never begins nor ends."""

    def end(self, number: int, state: str, reason: str) -> None:
        """A trial is `complete`, `pruned` or `fail` in the study; or `interrupted`, and stays RUNNING there."""


class TrialResources(NamedTuple):
    """What trials get.

    Attributes:
        concurrent: trials at a time.
        reserved: what Ray reserves for each trial's own process.
        cpus_per_worker: CPUs, and so compute threads, of each worker.
    """

    concurrent: int
    reserved: dict[str, float]
    cpus_per_worker: int


def connect(job: SearchJob, session: Session) -> TrialResources:
    """Start or join Ray, and divide what it has among trials.

    Raises:
        ConfigError: not even one trial fits, or as `Session.connect`.
    """
    session.connect()
    return trial_resources(job, ray.cluster_resources())


def trial_resources(job: SearchJob, available: Mapping[str, float]) -> TrialResources:
    """What trials get of a cluster with these resources.

    Raises:
        ConfigError: not even one trial fits.
    """
    workers, limit = job.workers, 1 if job.search.timed else job.search.max_concurrent
    count = workers.max_count
    cpus, gpus = available.get("CPU", 0.0), available.get("GPU", 0.0)
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
    return TrialResources(concurrent, own if count == 1 else {"memory": 1.0}, per_worker)


def run_trials(
    study: optuna.Study,
    space: SearchSpace,
    settings: TrialSettings,
    resources: TrialResources,
    listener: SearchListener,
) -> None:
    """Bring the study to `num_trials` trials or every combination of its space, or until the stop file exists.

    Ray must run. Trials, the searcher and the scheduler send events; the listener is called with one after the other,
    in this thread alone. Where it raises, the trials save a checkpoint and end before the error goes on.
    """
    settings = replace(settings, events=RayQueue(actor_options={"num_cpus": 0}))
    searcher = StudySearcher(study, space, settings)
    # what went wrong with a trial is said in a line by the listener
    with ray_settings(_ENVIRONMENT, logging.CRITICAL):
        fit = BackgroundCall(_tuner(searcher, settings, resources).fit, settings.events)
        fit.start()
        try:
            _listen(fit, searcher, settings, listener)
        finally:
            searcher.release()
    shutil.rmtree(settings.folder / "tune", ignore_errors=True)
    fit.result()


def _listen(
    fit: BackgroundCall[Any], searcher: StudySearcher, settings: TrialSettings, listener: SearchListener
) -> None:
    for number, name, arguments in iter(settings.events.get, None):
        try:
            if name == "begin":
                searcher.run_opened(number, listener.begin(number, *arguments))
            else:
                getattr(listener, name)(number, *arguments)
        except Exception:
            settings.stop_file.touch()
            searcher.release()
            fit.join()
            raise


def _tuner(searcher: StudySearcher, settings: TrialSettings, resources: TrialResources) -> tune.Tuner:
    job = settings.job
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(Trial, settings=settings), resources.reserved),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(searcher),
            num_samples=-1,
            max_concurrent_trials=resources.concurrent,
            reuse_actors="peak_memory_mib" not in job.search.named,  # a process remembers its peak
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=uuid.uuid4().hex[:8],
            storage_path=str(settings.folder / "tune"),
            failure_config=tune.FailureConfig(max_failures=job.workers.max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial's folder is its state
            verbose=0,
        ),
    )
