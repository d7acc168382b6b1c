"""A train job: prepare, train, evaluate, register. Each stage is kept; none is done twice."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lwddpm.addresses import public
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.session import Session
from lwddpm.cluster.train import train_on_workers
from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.evaluation import figures
from lwddpm.evaluation.collapse import collapse_warning
from lwddpm.evaluation.protocol import num_evaluated
from lwddpm.files import read_json, write_json
from lwddpm.kinds.evaluate import Evaluation, evaluate_model
from lwddpm.kinds.prepare import prepare, summary_of
from lwddpm.kinds.training_curves import training_curves
from lwddpm.progress import say
from lwddpm.tracking import registry
from lwddpm.tracking.card import model_card
from lwddpm.tracking.metric_log import Curves
from lwddpm.tracking.rundir import clear_folder, lock_folder, read_run_id, run_folder, write_run_id
from lwddpm.tracking.runs import TrackedRun, if_deleted, tracked_run
from lwddpm.tracking.store import connect, tracking_uri
from lwddpm.training.checkpoint import read_saved_model
from lwddpm.training.schedule import Schedule


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
    folder = run_folder(job)
    nested = dataset is not None
    with lock_folder(folder):
        uri = tracking_uri(job.tracking)
        done = read_json(folder / "result.json")
        if not fresh and done is not None and done["digest"] == job.digest() and _still_registered(done, uri):
            say(f"{job.name}: finished already, in {folder}; --fresh trains it again{if_deleted(uri, done)}")
            return FinishedTraining(done, Evaluation.load(folder) if job.evaluation else None)
        if fresh:
            clear_folder(folder)
        run_id = read_run_id(folder, uri)
        with (
            tracked_run(job, uri, run_id, job.digest(), folder, nested=nested) as run,
            ExportedSeries(job.name, run.run_id) as exported,
        ):
            write_run_id(folder, run.run_id, uri)
            if dataset is None:
                dataset = prepare(job.data, session, fresh)
            session.rest()
            check_dataset(job, dataset)
            run.dataset(dataset)
            finished = train_evaluate_register(job, dataset, folder, run, session, exported)
            run.flush()
            write_json(folder / "result.json", finished.summary)
    return finished


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
    if job.evaluation is not None:
        num_evaluated(dataset, job.evaluation)


def train_evaluate_register(
    job: TrainJob,
    dataset: Dataset,
    folder: Path,
    run: TrackedRun,
    session: Session,
    exported: ExportedSeries,
    lineage: dict[str, str] | None = None,
) -> FinishedTraining:
    """Bring a run folder to its end.

    Args:
        exported: the series of the job.
        lineage: further tags of the registered version, such as the search it comes from.
    """
    model_dir = folder / "model"
    if not model_dir.exists():
        train_on_workers(job, dataset, folder, session, exported)
    curves = training_curves(folder, run)
    diversity = curves.get("train/diversity")
    if diversity and (warning := collapse_warning(diversity[-1][1])) is not None:
        run.tags({"lwddpm.warning": warning})
    run.figure(_loss_figure(job, curves), "loss")
    saved = read_saved_model(model_dir)
    summary: dict[str, Any] = {
        "name": job.name,
        "digest": job.digest(),
        "run_id": run.run_id,
        "run_dir": str(folder),
        "tracking_uri": public(tracking_uri(job.tracking)),
        "dataset": summary_of(dataset),
        "parameters": saved.parameters,
        "step": saved.step,
        "metrics": {},
        "n": {},
        "model": None,
    }
    evaluation = None
    if job.evaluation is not None:
        evaluation = evaluate_model(model_dir, dataset, job.evaluation, session, run, exported)
        (folder / "result.json").unlink(missing_ok=True)  # of another evaluation, whose files are replaced now
        evaluation.save(folder)
        result = evaluation.result
        summary |= {"metrics": result.metrics(), "unavailable": [u.model_dump() for u in result.unavailable]}
        summary |= {"warnings": list(result.warnings), "n": result.num_slices()}
    if job.registry is None:
        run.values(summary["metrics"], saved.step)
    else:
        card = model_card(job, saved, dataset, evaluation.result if evaluation else None)
        run.text(card, "model_card.md")
        tags = {
            "lwddpm.dataset_version": dataset.version,
            "lwddpm.digest": job.digest(),
            "lwddpm.job": job.name,
            "lwddpm.parameters": str(saved.parameters),
            "lwddpm.simulated": str(dataset.manifest.simulated).lower(),
            **(lineage or {}),
            registry.NUM_SLICES: json.dumps(summary["n"]),
        }
        version = registry.register(run, model_dir, job.registry, tags, summary["metrics"], saved.step, card)
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
    return figures.loss_curve(train, curves.get("val/loss", []), label)
