"""What a training job goes through: prepare, train, evaluate, register. Each stage is kept; none is done twice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lwddpm.cluster.exported import JobMetrics
from lwddpm.cluster.session import Session
from lwddpm.cluster.train import train_on_workers
from lwddpm.config import DataConfig, EvaluateJob, RuleBroken, SampleJob, SamplingT, TrainJob, check_steps, one_pass
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.evaluation import figures
from lwddpm.evaluation.collapse import collapse_warning
from lwddpm.evaluation.protocol import num_evaluated
from lwddpm.kinds.evaluate import measure
from lwddpm.progress import say
from lwddpm.tracking import registry
from lwddpm.tracking.card import model_card
from lwddpm.tracking.rundir import clear, keep_run, kept_run, occupied, read_json, run_folder, write_json
from lwddpm.tracking.runs import TrackedRun, tracked_run
from lwddpm.tracking.store import connect, public, tracking_uri
from lwddpm.training.checkpoint import SavedModel, read_saved_model
from lwddpm.training.schedule import Schedule


def prepare(data: DataConfig, session: Session, fresh: bool) -> Dataset:
    dataset = prepare_dataset(data, session.map, fresh=fresh)
    if "://" not in dataset.path:  # workers have working folders of their own
        dataset = replace(dataset, path=str(Path(dataset.path).absolute()))
    manifest = dataset.manifest
    kept = ", ".join(f"{split.num} {name}" for name, split in manifest.splits.items())
    duplicates = manifest.duplicates
    say(
        f"dataset {dataset.path} version {dataset.version[:12]}: {kept}; {duplicates.exact_copies} exact copies and "
        f"{duplicates.near_pairs} near-duplicate pairs kept within one split each"
    )
    for rejected in manifest.rejected[:5]:
        say(f"  rejected {rejected.source}: {rejected.reason}")
    if len(manifest.rejected) > 5:
        say(f"  and {len(manifest.rejected) - 5} more: see {dataset.path}/dataset.json")
    return dataset


def run_training(job: TrainJob, session: Session, fresh: bool, *, dataset: Dataset | None = None) -> dict[str, Any]:
    """Bring a training to its end, or say that it has been there.

    Args:
        dataset: prepared already, by a job that this one is a part of: its run is then beneath the open one.
    """
    folder = run_folder(job)
    nested = dataset is not None
    with occupied(folder):
        uri = tracking_uri(job.tracking)
        done = read_json(folder / "result.json")
        if not fresh and done is not None and done["digest"] == job.digest() and _still_registered(done, uri):
            say(f"{job.name}: finished already, in {folder}; --fresh trains it again")
            return done
        if fresh:
            clear(folder)
        run_id = kept_run(folder, uri)
        with (
            tracked_run(job, uri, run_id, job.digest(), folder, nested=nested) as run,
            JobMetrics(job.name, run.run_id) as session.metrics,
        ):
            keep_run(folder, run.run_id, uri)
            if dataset is None:
                dataset = prepare(job.data, session, fresh)
            session.rest()
            check_dataset(job, dataset)
            run.dataset(dataset)
            result = train_evaluate_register(job, dataset, folder, run, session)
            run.flush()
            write_json(folder / "result.json", result)
    return result


def run_evaluation(
    job: EvaluateJob, session: Session, fresh: bool, *, dataset: Dataset | None = None
) -> dict[str, Any]:
    """Measure a saved or registered model; `dataset` as in `run_training`."""
    uri = tracking_uri(job.tracking)
    connect(uri)
    model_dir = registry.fetch_model(job.model_uri, models_folder(job, session))
    saved = read_saved_model(model_dir)
    if saved.image_size != job.data.image_size:
        raise ConfigError(
            f"data.image_size: must be the model's {saved.image_size}, got {job.data.image_size}; "
            f"set data.image_size={saved.image_size}"
        )
    evaluation = fitting(job.evaluation, saved, "evaluation")
    nested = dataset is not None
    with (
        tracked_run(job, uri, None, job.digest(), nested=nested) as run,
        JobMetrics(job.name, run.run_id) as session.metrics,
    ):
        if dataset is None:
            dataset = prepare(job.data, session, fresh)
        session.rest()
        num_evaluated(dataset, evaluation)
        run.dataset(dataset)
        result = measure(model_dir, dataset, evaluation, session, run)
        run.values(result.metrics(), saved.step)
        return {
            "name": job.name,
            "run_id": run.run_id,
            "tracking_uri": public(uri),
            "dataset": summary_of(dataset),
            "parameters": saved.parameters,
            "metrics": result.metrics(),
            "unavailable": [u.model_dump() for u in result.unavailable],
            "warnings": list(result.warnings),
        }


def models_folder(job: EvaluateJob | SampleJob, session: Session) -> Path | None:
    """Where a registered model is kept: on a cluster workers on other nodes read it too, from shared storage."""
    return Path(job.output) / "models" if session.address else None


def fitting(sampling: SamplingT, saved: SavedModel, section: str) -> SamplingT:
    """The settings as this model takes them: as they are, or one pass of a GAN's generator.

    Raises:
        ConfigError: they ask for what the model cannot do.
    """
    try:
        if saved.diffusion is None:
            return one_pass(sampling, section)
        check_steps(sampling, saved.diffusion, section)
    except RuleBroken as broken:
        raise ConfigError(str(broken)) from None
    return sampling


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
    lineage: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Bring a run folder to its end.

    Args:
        lineage: further tags of the registered version, such as the search it comes from.

    Returns:
        The job's summary.
    """
    model_dir = folder / "model"
    if not model_dir.exists():
        train_on_workers(job, dataset, folder, session)
    drawn = run.history("train/diversity")
    if drawn and (warning := collapse_warning(drawn[-1][1])) is not None:
        run.tags({"lwddpm.warning": warning})
    run.figure(_loss_figure(job, run), "loss")
    saved = read_saved_model(model_dir)
    result: dict[str, Any] = {
        "name": job.name,
        "digest": job.digest(),
        "run_id": run.run_id,
        "run_dir": str(folder),
        "tracking_uri": public(tracking_uri(job.tracking)),
        "dataset": summary_of(dataset),
        "parameters": saved.parameters,
        "step": saved.step,
        "metrics": {},
        "model": None,
    }
    evaluated = None
    if job.evaluation is not None:
        evaluated = measure(model_dir, dataset, job.evaluation, session, run)
        write_json(folder / "evaluation.json", json.loads(evaluated.model_dump_json()))
        result |= {"metrics": evaluated.metrics(), "unavailable": [u.model_dump() for u in evaluated.unavailable]}
        result |= {"warnings": list(evaluated.warnings)}
    if job.registry is None:
        run.values(result["metrics"], saved.step)
    else:
        card = model_card(job, saved, dataset, evaluated)
        run.text(card, "model_card.md")
        tags = {
            "lwddpm.dataset_version": dataset.version,
            "lwddpm.digest": job.digest(),
            "lwddpm.job": job.name,
            "lwddpm.parameters": str(saved.parameters),
            "lwddpm.simulated": str(dataset.manifest.simulated).lower(),
            **(lineage or {}),
        }
        version = registry.register(run, model_dir, job.registry, tags, result["metrics"], saved.step, card)
        result["model"] = {
            "name": version.name,
            "version": version.version,
            "alias": job.registry.alias,
            "uri": f"models:/{version.name}@{job.registry.alias}",
        }
    return result


def _loss_figure(job: TrainJob, run: TrackedRun) -> Figure:
    train = run.history("train/loss")
    if job.diffusion is None:
        return figures.adversarial_losses(train, run.history("train/loss_discriminator"), job.model.family)
    label = f"{job.diffusion.loss} loss on {job.diffusion.prediction_type}"
    return figures.loss_curve(train, run.history("val/loss"), label)


def summary_of(dataset: Dataset) -> dict[str, Any]:
    manifest = dataset.manifest
    return {
        "path": dataset.path,
        "version": dataset.version,
        "simulated": manifest.simulated,
        "splits": {name: split.num for name, split in manifest.splits.items()},
        "rejected": len(manifest.rejected),
        "duplicates": manifest.duplicates.model_dump(exclude={"label_conflicts"}),
    }
