"""A train job: prepare, train, evaluate, register. Each stage is kept; none is done twice."""

import functools
import getpass
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lwddpm.addresses import public
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.session import Session
from lwddpm.cluster.train import train_on_workers
from lwddpm.config import RuleBroken, TrainJob, check_asked
from lwddpm.data.store import Dataset
from lwddpm.diffusion.prior import SLICES_PER_DIRECTION, num_directions
from lwddpm.errors import ConfigError, DataError
from lwddpm.evaluation import figures
from lwddpm.evaluation.choice import MEASURE
from lwddpm.evaluation.collapse import collapse_warning
from lwddpm.evaluation.figure_style import LIGHT, render
from lwddpm.evaluation.protocol import num_evaluated
from lwddpm.evaluation.snapshot_figure import SNAPSHOTS, quality_and_copying
from lwddpm.files import read_json, whole_file, write_json
from lwddpm.kinds.choice import check_choice, chosen_model
from lwddpm.kinds.earlier_attempts import come_back, say_missing_snapshots
from lwddpm.kinds.evaluate import Evaluation, evaluate_model
from lwddpm.kinds.guide import check_guide_epoch, check_guide_snapshot, keep_guide
from lwddpm.kinds.prepare import prepare, summary_of
from lwddpm.kinds.presets import keep_evaluated
from lwddpm.kinds.saved_model import calls_of
from lwddpm.kinds.teacher import keep_teacher, settled
from lwddpm.kinds.training_curves import training_curves
from lwddpm.progress import say
from lwddpm.release.policy import check_gate, set_gate_of_job
from lwddpm.tracking import registration, registry
from lwddpm.tracking.card import model_card, with_presets
from lwddpm.tracking.earlier_runs import if_deleted, place_of, run_digest
from lwddpm.tracking.metric_log import Curves
from lwddpm.tracking.outbox import WARNING
from lwddpm.tracking.rundir import (
    claim_run_folder,
    clear_folder,
    lock_folder,
    read_job,
    read_run_id,
    write_job,
    write_run_id,
)
from lwddpm.tracking.runs import TrackedRun, tracked_run
from lwddpm.tracking.store import connect, tracking_uri
from lwddpm.training.schedule import Schedule
from lwddpm.training.stored_model import read_saved_model
from lwddpm.training.stored_presets import read_presets
from lwddpm.training.stored_prior import read_prior
from lwddpm.training.vocabulary import classes_of, vocabulary_of


@dataclass(frozen=True)
class FinishedTraining:
    """What a training leaves.

    Attributes:
        summary: of the job, for people and `--json`; the content of `result.json`.
        evaluation: None where the job asks for none, or an earlier version has not kept all of it.
    """

    summary: dict[str, Any]
    evaluation: Evaluation | None


def run_training(job: TrainJob, session: Session, fresh: bool, *, dataset: Dataset | None = None) -> FinishedTraining:
    """Bring a training to its end, or say that it has been there.

    Args:
        dataset: prepared already, by a job that this one is a part of: its run is then beneath the open one.
    """
    job = settled(job)
    folder = claim_run_folder(job)
    nested = dataset is not None
    with lock_folder(folder):
        uri = tracking_uri(job.tracking)
        done = read_json(folder / "result.json")
        if not fresh and done is not None and job.has_result(done) and _still_registered(done, uri):
            say(f"{job.name}: finished already, in {folder}; --fresh trains it again{if_deleted(uri, done)}")
            if dataset is not None:
                say_missing_snapshots(job, dataset, folder)
            return FinishedTraining(
                done | {"run_dir": str(folder)}, Evaluation.load(folder) if job.evaluation else None
            )
        if fresh:
            clear_folder(folder)
        before = read_job(folder)
        write_job(folder, job)

        @functools.cache
        def prepared() -> Dataset:
            return prepare(job.data, session, fresh) if dataset is None else dataset

        return train_evaluate_register(
            job,
            folder,
            read_run_id(folder, uri),
            session,
            prepared,
            series=lambda run_id: ExportedSeries(job.name, run_id),
            nested=nested,
            fresh=fresh,
            before=before,
        )


def _still_registered(done: dict[str, Any], uri: str) -> bool:
    """Whether this store still has the model of a finished job."""
    if done["tracking_uri"] != public(uri):
        return False
    connect(uri)
    try:
        return done["model"] is None or bool(
            registry.find_version(f"{done['model']['name']}/{done['model']['version']}")
        )
    except ConfigError:
        return False


def check_dataset(job: TrainJob, dataset: Dataset) -> None:
    """Refuse, before training, a dataset too small to train on or to evaluate with."""
    Schedule.of(job.training, dataset.num("train"), job.batches_per_step)
    check_guide_epoch(job, dataset)
    vocabulary = vocabulary_of(dataset, job.model.conditions, job.training.condition_dropout or 0)
    if vocabulary is not None and job.training.sampling == "balanced":
        classes_of(vocabulary)
    if job.evaluation is not None:
        try:
            check_asked(job.evaluation, vocabulary, "evaluation")
        except RuleBroken as broken:
            raise ConfigError(str(broken)) from None
    if job.training.ema_lengths and dataset.num("validation") == 0:
        raise DataError(
            f"{dataset.path}: training.ema_lengths: choosing takes validation slices, got 0; give them a share of "
            "data.splits, or leave the lengths out"
        )
    check_choice(job, dataset)
    if job.evaluation is not None:
        num_evaluated(dataset, job.evaluation)
        asked = job.evaluation.start == "gaussian" or job.evaluation.calibrate
        if asked and num_directions(dataset.num("train")) == 0:
            raise DataError(
                f"evaluation.start: a start from the prior takes {SLICES_PER_DIRECTION} or more training slices, got "
                f"{dataset.num('train')}; leave it out"
            )


def train_evaluate_register(
    job: TrainJob,
    folder: Path,
    run_id: str | None,
    session: Session,
    prepared: Callable[[], Dataset],
    *,
    series: Callable[[str], ExportedSeries],
    nested: bool,
    fresh: bool = False,
    before: TrainJob | None = None,
    lineage: dict[str, str] | None = None,
) -> FinishedTraining:
    """Bring a run folder to its end, and write down its result.

    It is trained in the MLflow run that it has. It is evaluated there too, or, where that run has other parameters than
    this job's settings, in one of its own beneath it.

    Args:
        run_id: of an earlier attempt, if there was one.
        prepared: the dataset; called when a run is open, and twice where there are two.
        series: exported series of the job, given the id of its run.
        nested: whether a run is open, which the job is a part of.
        fresh: begin at step 0, whatever other trainings of this name have.
        before: the job of the attempt before.
        lineage: further tags of the registered version, such as the search it comes from.
    """
    uri = tracking_uri(job.tracking)
    if job.registry is not None and job.registry.gate is not None:
        connect(uri)
        check_gate(job.registry.name, job.registry.gate)
    digest, place = run_digest(job), place_of(job, uri, run_id)

    def checked_dataset(run: TrackedRun) -> Dataset:
        dataset = prepared()
        session.rest()
        check_dataset(job, dataset)
        check_guide_snapshot(job, dataset, folder)
        run.dataset(dataset)
        return dataset

    if place.parent is None or not (place.parent_finished and (folder / "model").exists()):
        with (
            tracked_run(job, uri, run_id, digest, folder, nested=nested) as run,
            series(run.run_id) as exported,
        ):
            write_run_id(folder, run.run_id, uri)
            dataset = checked_dataset(run)
            keep_teacher(job, dataset, folder)
            if not fresh:
                come_back(job, before, dataset, folder, run)
            _train(job, dataset, folder, run, session, exported)
            if place.parent is None:
                finished = _evaluate_and_register(job, dataset, folder, run, run.run_id, session, exported, lineage)
                run.flush()
                write_json(folder / "result.json", finished.summary)
                return finished
    with (
        tracked_run(job, uri, place.run_id, digest, nested=nested, parent=place.parent) as run,
        series(run.run_id) as exported,
    ):
        dataset = checked_dataset(run)
        finished = _evaluate_and_register(job, dataset, folder, run, place.parent, session, exported, lineage)
        write_json(folder / "result.json", finished.summary)
    return finished


def _train(
    job: TrainJob, dataset: Dataset, folder: Path, run: TrackedRun, session: Session, exported: ExportedSeries
) -> None:
    if not (folder / "model").exists():
        train_on_workers(job, dataset, folder, session, exported)
    curves = training_curves(folder, run)
    diversity = curves.get("train/diversity")
    if diversity and (warning := collapse_warning(diversity[-1][1])) is not None:
        run.warn(warning)
    run.figure(_loss_figure(job, curves), "loss")


def _evaluate_and_register(
    job: TrainJob,
    dataset: Dataset,
    folder: Path,
    run: TrackedRun,
    training_run_id: str,
    session: Session,
    exported: ExportedSeries,
    lineage: dict[str, str] | None,
) -> FinishedTraining:
    """Measure and register the model of a run folder, as far as the job asks for it; `run` gets the numbers."""
    keep_guide(job, dataset, folder)
    model_dir, choice = chosen_model(job, dataset, folder, session, exported)
    saved = read_saved_model(model_dir)
    summary: dict[str, Any] = {
        "name": job.name,
        "digest": job.result_digest(),
        "run_id": run.run_id,
        "training_run_id": training_run_id,
        "run_dir": str(folder),
        "tracking_uri": public(tracking_uri(job.tracking)),
        "dataset": summary_of(dataset),
        "parameters": saved.parameters,
        "step": saved.step,
        "metrics": {},
        "n": {},
        "model": None,
    }
    if job.training.ema_lengths:
        summary["ema_length"] = saved.ema_length  # null: that of ema_decay
    if choice is not None:
        summary["choice"] = choice.model_dump(mode="json") | {"chosen": choice.best.model_dump()}
        run.text(choice.table(), "evaluation/choice.md")
        for step, values in choice.metrics().items():
            run.values(values, step)
        draw = functools.partial(quality_and_copying, choice.points, choice.copied_floor, MEASURE, choice.n)
        run.figure(draw(), SNAPSHOTS)
        (folder / "report").mkdir(exist_ok=True)
        with whole_file(folder / "report" / f"{SNAPSHOTS}.png") as partial:
            partial.write_bytes(render(draw, LIGHT))
    evaluation = None
    if job.evaluation is not None:
        evaluation = evaluate_model(model_dir, dataset, job.evaluation, session, run, exported)
        (folder / "result.json").unlink(missing_ok=True)  # of another evaluation, whose files are replaced now
        evaluation.save(folder)
        result = evaluation.result
        keep_evaluated(model_dir, result, calls_of(result.config, model_dir))
        summary |= {"metrics": result.metrics(), "unavailable": [u.model_dump() for u in result.unavailable]}
        summary |= {"warnings": list(result.warnings), "n": result.num_slices()}
    if job.registry is None:
        run.values(summary["metrics"], saved.step)
    else:
        prior = read_prior(model_dir, saved.image_size)
        card = model_card(job, saved, dataset, evaluation.result if evaluation else None, prior, choice)
        card = with_presets(card, read_presets(model_dir))
        run.text(card, "model_card.md")
        tags = {
            "lwddpm.dataset_version": dataset.version,
            "lwddpm.digest": run_digest(job),
            "lwddpm.job": job.name,
            "lwddpm.parameters": str(saved.parameters),
            "lwddpm.simulated": str(dataset.manifest.simulated).lower(),
            **({"lwddpm.epoch": f"{saved.epoch:g}"} if choice is not None else {}),
            **({"lwddpm.consent": job.data.consent} if job.data.consent else {}),
            **({WARNING: "; ".join(summary["warnings"])} if summary.get("warnings") else {}),
            **(lineage or {}),
            registry.NUM_SLICES: json.dumps(summary["n"]),
        }
        version = registration.register(run, model_dir, job.registry, tags, summary["metrics"], saved.step, card)
        if job.registry.gate is not None:
            set_gate_of_job(version.name, job.registry.gate, job.name, getpass.getuser())
        summary["model"] = {
            "name": version.name,
            "version": version.version,
            "alias": job.registry.alias,
            "uri": f"models:/{version.name}@{job.registry.alias}",
        }
    return FinishedTraining(summary, evaluation)


def _loss_figure(job: TrainJob, curves: Curves) -> Figure:
    train = curves.get("train/loss", [])
    if job.diffusion is None:
        return figures.adversarial_losses(train, curves.get("train/loss_discriminator", []), job.model.family)
    label = f"{job.diffusion.loss} loss on {job.diffusion.prediction_type}"
    if job.consistency is not None:
        label = "consistency loss"
    return figures.loss_curve(train, curves.get("val/loss", []), label)
