"""A search job: trials on Ray Tune, proposed by Optuna, tracked in MLflow; then the winner trained to the end."""

import json
from contextlib import ExitStack
from typing import Any

from lwddpm.addresses import public
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.session import Session
from lwddpm.cluster.stop import StopRequest
from lwddpm.cluster.trial import TrialSettings
from lwddpm.cluster.tuning import connect, run_trials
from lwddpm.config import SearchJob
from lwddpm.errors import ConfigError, JobError
from lwddpm.evaluation.features import WeightsNotFetched, WeightsUnavailable, read_weights
from lwddpm.files import read_json, write_json
from lwddpm.kinds.guide import check_guide_of_trials
from lwddpm.kinds.prepare import prepare, summary_of
from lwddpm.kinds.search.books import Books, close_trials
from lwddpm.kinds.search.context import SearchRun
from lwddpm.kinds.train import train_evaluate_register
from lwddpm.progress import TrialTable, say
from lwddpm.search.budget import Budget
from lwddpm.search.definition import NUM_SLICES
from lwddpm.search.figures import all_figures
from lwddpm.search.objectives import check_objectives
from lwddpm.search.ownership import check_made_here, lock_study
from lwddpm.search.ranking import describe, pareto_front, ranking, table
from lwddpm.search.space import load_space, num_trials
from lwddpm.search.storage import check_storage, delete_study, storage_url
from lwddpm.search.trials import TrialRecord, exhausted
from lwddpm.tracking.earlier_runs import if_deleted, run_digest
from lwddpm.tracking.rundir import (
    claim_run_folder,
    clear_folder,
    lock_folder,
    read_run_id,
    search_folder,
    write_run_id,
)
from lwddpm.tracking.runs import tracked_run
from lwddpm.tracking.store import tracking_uri
from lwddpm.wording import with_n


def check_search(job: SearchJob, *, download: bool = True) -> None:
    """What can be known to be wrong before anything starts.

    Args:
        download: fetch Inception weights that the trials need; otherwise they count as there where they can be had.

    Raises:
        ConfigError: the space, the storage, a budget.
    """
    load_space(job.search.space, job)
    check_storage(storage_url(job.search.storage))
    if job.training.max_steps is not None:
        Budget.of(job, job.training.batch_size * job.batches_per_step)
    if "eval/fid" in job.search.named:
        try:
            read_weights("fid", inception_weights=job.search.proxy.inception_weights, download=download)
        except WeightsNotFetched:
            pass  # a dry run
        except WeightsUnavailable as error:
            reason = str(error).removeprefix("fid: ")
            raise ConfigError(f"search.objectives: eval/fid: {reason}; or use eval/fd_lite0") from None


def run_search(job: SearchJob, session: Session, fresh: bool) -> dict[str, Any]:
    """Run or continue a search to its end.

    Raises:
        ConfigError: wrong input, or a study of this name that was made with other settings, or somewhere else and is
            to be started over.
        JobError: no trial reached the full budget, or another process runs the study.
        KeyboardInterrupt: stopped by the user; the same command continues.
    """
    folder, uri, storage = search_folder(job), tracking_uri(job.tracking), storage_url(job.search.storage)
    with lock_folder(folder), ExitStack() as locks:
        done = read_json(folder / "result.json")
        if not fresh and done is not None and job.has_result(done) and done["tracking_uri"] == public(uri):
            more = f"--fresh searches again, search.num_trials extends it{if_deleted(uri, done)}"
            say(f"{job.name}: finished already, in {folder}; {more}")
            return done
        locks.enter_context(lock_study(storage, job.name))
        if fresh:
            check_made_here(storage, job.name, folder)
            delete_study(storage, job.name)
            clear_folder(folder)
        run_id = read_run_id(folder, uri)
        with (
            tracked_run(job, uri, run_id, run_digest(job), folder) as run,
            ExportedSeries(job.name, run.run_id) as exported,
        ):
            write_run_id(folder, run.run_id, uri)
            dataset = prepare(job.data, session, fresh)
            check_objectives(job, dataset)
            check_guide_of_trials(job, dataset, Budget.of(job, dataset.num("train")).grace_steps)
            search = SearchRun.open(job, folder, dataset, run, exported, session)
            close_trials(search)
            try:
                _run_trials(search)
            finally:
                _log_study(search)
            session.rest()
            result: dict[str, Any] = {
                "name": job.name,
                "digest": job.result_digest(),
                "run_id": run.run_id,
                "run_dir": str(folder),
                "tracking_uri": public(uri),
                "dataset": summary_of(dataset),
                "search": describe(search.study),
                "metrics": {},
                "model": None,
            }
            for number, finished in _finish(search).items():
                result |= {key: finished[key] for key in ("metrics", "model", "parameters", "step")}
                result["n"] = finished.get("n", {})  # of 0.1.0 not known
                result.setdefault("finalists", {})[number] = finished
                run.tags({f"lwddpm.finalist.{number}": json.dumps(finished["model"])})
            write_json(folder / "result.json", result)
    return result


def _run_trials(search: SearchRun) -> None:
    """Bring the study to `num_trials` trials, or to every combination; does nothing where it has them."""
    job, session, total = search.job, search.session, num_trials(search.job, search.space)
    trials = search.study.get_trials(deepcopy=False)
    enough = len(trials) >= total or exhausted(search.study, search.space)
    if enough and all(trial.state.is_finished() for trial in trials):
        return
    combinations = search.space.num_combinations
    if combinations is not None and combinations < total:
        say(
            f"{job.search.space} has {combinations} combinations, fewer than search.num_trials = {total}: a proposal "
            "that repeats a trial takes over its outcome, and the search ends once all have been tried"
        )
    resources = connect(job, session)
    if job.search.timed:
        say("one trial at a time: others would lengthen what sampling_seconds measures")
    settings = TrialSettings(
        job=job,
        folder=search.folder,
        dataset_path=search.dataset.path,
        rungs=search.budget.rungs,
        pruned_on=job.search.pruned_on,
        stop_file=search.folder / "stop",
        cpus_per_worker=resources.cpus_per_worker,
    )
    workers, pruned_on, n = job.workers, job.search.pruned_on, search.study.user_attrs[NUM_SLICES]
    held_by_trial = {
        "CPU": workers.max_count * resources.cpus_per_worker,
        "GPU": workers.max_count * workers.gpus_per_worker if session.use_gpu else 0,
    }
    with (
        StopRequest(settings.stop_file) as stop,
        TrialTable(total, search.budget.max_steps, with_n(pruned_on, n.get(pruned_on))) as rows,
        Books(search, rows, held_by_trial) as books,
    ):
        run_trials(search.study, search.space, settings, resources, books)
    if stop.requested:
        say(f"stopped; the same command continues the study {job.name}")
        raise KeyboardInterrupt


def _log_study(search: SearchRun) -> None:
    search.run.text(table(search.study), "trials.md")
    search.run.text(json.dumps(describe(search.study), indent=2, default=str), "study.json")
    for name, figure in all_figures(search.study).items():
        search.run.figure(figure, name)


def _finish(search: SearchRun) -> dict[int, dict[str, Any]]:
    """Train the winner, or the front, from its checkpoint to the end; evaluate and register it; the winner last."""
    name, ranked = search.job.name, ranking(search.study)
    if not ranked:
        kept = " within search.constraints" if search.job.search.constraints else ""
        raise JobError(
            f"search {name}: no trial reached the full budget{kept}; see lwddpm search show {name} for the reasons"
        )
    chosen = {"none": [], "best": ranked[:1], "front": pareto_front(search.study)}[search.job.search.finish]
    ordered = sorted(chosen, key=lambda trial: trial.number == ranked[0].number)
    return {trial.number: _train_to_the_end(search, trial) for trial in ordered}


def _train_to_the_end(search: SearchRun, trial: TrialRecord) -> dict[str, Any]:
    """The summary of the trial's training, which is made once for the job's settings."""
    job = search.trial_job(trial.number, trial.params)
    folder = claim_run_folder(job)
    finished = read_json(folder / "result.json")
    if finished is not None and job.has_result(finished):
        return finished
    say(f"trial {trial.number}: training to the end of its schedule")
    return train_evaluate_register(
        job,
        folder,
        trial.run_id,
        search.session,
        lambda: search.dataset,
        series=lambda run_id: ExportedSeries(search.job.name, run_id, str(trial.number)),
        nested=True,
        lineage={"lwddpm.search": search.job.name, "lwddpm.trial": str(trial.number)},
    ).summary
