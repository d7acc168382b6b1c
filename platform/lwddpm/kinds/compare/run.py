"""A comparison: every system trained as an ordinary job, measured by one protocol, described in one report.

    <output>/<name>/
        run.json, result.json      as of a training
        cache/                     samples, measurements and features, each made once
        report/                    data, figures, report.html, report.md: also artifacts of the run

Trainings have run folders and MLflow runs of their own beneath the comparison's; those that are finished are reused.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lwddpm.addresses import public
from lwddpm.cluster.session import Session
from lwddpm.config import NO_PRESET, CompareJob, EvaluateJob, EvaluationConfig
from lwddpm.evaluation.protocol import num_evaluated
from lwddpm.files import read_json, write_json
from lwddpm.kinds.compare.collect import collect
from lwddpm.kinds.compare.comparison import Comparison
from lwddpm.kinds.compare.kept import MeasurementCache
from lwddpm.kinds.compare.measurements import model_of
from lwddpm.kinds.compare.plan import as_system, make_plan, protocol_of
from lwddpm.kinds.evaluate import Evaluation, run_evaluation
from lwddpm.kinds.prepare import prepare, summary_of
from lwddpm.kinds.train import check_dataset, run_training
from lwddpm.progress import say
from lwddpm.report import baseline, page, results
from lwddpm.report import data as report_data
from lwddpm.report.data import ComparisonReport
from lwddpm.report.published import STATEMENTS
from lwddpm.report.statements import judge, measured_on
from lwddpm.tracking.earlier_runs import if_deleted, place_of, run_digest
from lwddpm.tracking.rundir import clear_folder, compare_folder, lock_folder, read_run_id, write_run_id
from lwddpm.tracking.runs import TrackedRun, tracked_run
from lwddpm.tracking.store import tracking_uri


def run_compare(job: CompareJob, session: Session, fresh: bool) -> dict[str, Any]:
    """Run or continue a comparison to its end.

    Raises:
        ConfigError: wrong input.
        JobError: a training failed.
        KeyboardInterrupt: stopped by the user; the same command continues.
    """
    folder = compare_folder(job)
    uri = tracking_uri(job.tracking)
    with lock_folder(folder):
        done = read_json(folder / "result.json")
        if not fresh and done is not None and job.has_result(done) and done["tracking_uri"] == public(uri):
            say(f"{job.name}: finished already, in {folder}; --fresh does it all again{if_deleted(uri, done)}")
            return done
        if fresh:
            clear_folder(folder)
        place = place_of(job, uri, read_run_id(folder, uri))
        with tracked_run(job, uri, place.run_id, run_digest(job), parent=place.parent) as run:
            if place.parent is None:
                write_run_id(folder, run.run_id, uri)
            comparison = _begin(job, session, fresh, folder, run)
            run_ids = _train_all(comparison, fresh)
            _evaluate_ddim(comparison)
            data = collect(comparison, run_ids)
            report_data.save(data, folder / "report")
            say("drawing the report")
            page.draw(data, folder / "report")
            run.client.log_artifacts(run.run_id, str(folder / "report"), "report")
            run.values(_headline(data.report), step=0)
            result = _summary(comparison, data.report)
            write_json(folder / "result.json", result)
    return result


def _begin(job: CompareJob, session: Session, fresh: bool, folder: Path, run: TrackedRun) -> Comparison:
    """Prepare the dataset, plan the trainings, and refuse what the dataset is too small for."""
    started = datetime.fromtimestamp(run.client.get_run(run.run_id).info.start_time / 1000, UTC)
    dataset = prepare(job.data, session, fresh)
    session.rest()
    plan = make_plan(job, dataset.num("train"))
    for training in plan.trainings.values():
        check_dataset(training.job, dataset)
    num_evaluated(dataset, job.protocol)
    run.dataset(dataset)
    if (folder / "bench").exists():  # its name in an earlier version
        (folder / "bench").rename(folder / "cache")
    cache = MeasurementCache(folder / "cache", dataset, session, job.protocol.inception_weights)
    return Comparison(job, plan, dataset, folder, session, run, started.isoformat(timespec="seconds"), cache)


def _train_all(comparison: Comparison, fresh: bool) -> dict[str, str]:
    """Train what is not trained, and keep the evaluations of the systems; MLflow run ids by label."""
    job, plan = comparison.job, comparison.plan
    systems = {
        training.label: system
        for system, trainings in plan.systems.items()
        if system != "ddim"
        for training in trainings
    }
    run_ids = {}
    for number, training in enumerate(plan.trainings.values(), start=1):
        say(f"training {number} of {len(plan.trainings)}: {training.label}")
        system = systems.get(training.label)
        train = training.job if system is None else as_system(job, system, training)
        finished = run_training(train, comparison.session, fresh, dataset=comparison.dataset)
        summary = finished.summary
        run_ids[training.label] = str(summary.get("training_run_id", summary["run_id"]))  # 0.1.0 had one run for both
        if train.evaluation is not None and finished.evaluation is not None:
            _keep(comparison, model_of(training), train.evaluation, finished.evaluation)
    return run_ids


def _evaluate_ddim(comparison: Comparison) -> None:
    """Measure the DDPM's weights with DDIM sampling, in an MLflow run of its own."""
    job = comparison.job
    config = protocol_of(job, "ddim", job.compare.sampling_seeds[0])
    for training in comparison.plan.systems.get("ddim", []):
        model_dir = model_of(training)
        if comparison.cache.has(model_dir, config):
            continue
        evaluate = EvaluateJob(
            kind="evaluate",
            name=f"{job.name}-{training.label.replace('ddpm', 'ddim', 1)}",
            model_uri=str(model_dir),
            data=job.data,
            evaluation=config.model_copy(update={"preset": NO_PRESET}),  # nothing but what the protocol says
            workers=job.workers,
            tracking=job.tracking,
            output=job.output,
        )
        say(f"evaluating {evaluate.name}")
        _, evaluation = run_evaluation(evaluate, comparison.session, fresh=False, dataset=comparison.dataset)
        _keep(comparison, model_dir, config, evaluation)


def _keep(comparison: Comparison, model_dir: Path, config: EvaluationConfig, evaluation: Evaluation) -> None:
    if not comparison.cache.has(model_dir, config):
        comparison.cache.add(model_dir, config, evaluation)


def _headline(report: ComparisonReport) -> dict[str, float]:
    """The table as metrics of the comparison's run: `ROW/NAME`."""
    metrics: dict[str, float] = {}
    for row in results.rows(report):
        values = {
            report.distance: row.distance,
            results.SSIM: row.ssim,
            "images_per_s": row.images_per_s,
            "peak_memory_mib": row.peak_memory_mib,
            "seconds_per_64": row.seconds_per_64,
            **row.diversity,
        }
        metrics |= {f"{row.key}/{name}": value.estimate.mean for name, value in values.items() if value}
        metrics[f"{row.key}/parameters"] = row.parameters
    return metrics


def _summary(comparison: Comparison, report: ComparisonReport) -> dict[str, Any]:
    job, folder = comparison.job, comparison.folder
    return {
        "name": job.name,
        "digest": job.result_digest(),
        "run_id": comparison.run.run_id,
        "run_dir": str(folder),
        "tracking_uri": public(tracking_uri(job.tracking)),
        "dataset": summary_of(comparison.dataset),
        "report": str(folder / "report" / "report.html"),
        "baseline": baseline.as_json(report),
        "statements": {judgement.statement.key: judgement.verdict for judgement in judge(report)},
        "measured_on": {statement.key: measured_on(report, statement) for statement in STATEMENTS},
        "model": None,
    }
