"""One function for each kind of job: takes a validated job, returns a summary that is also the `--json` output."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from lwddpm.cluster.generate import generate_images
from lwddpm.cluster.measure import measure
from lwddpm.cluster.rundir import check_writable, clear, occupied, read_json, run_folder, write_json
from lwddpm.cluster.session import Session
from lwddpm.cluster.train import train_on_workers
from lwddpm.config import (
    AnyJob,
    DataConfig,
    EvaluateJob,
    PrepareJob,
    SampleJob,
    TrainJob,
    check_steps,
)
from lwddpm.data.prepare import check_source, prepare_dataset
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.evaluation import figures
from lwddpm.evaluation.protocol import num_evaluated
from lwddpm.progress import say
from lwddpm.tracking import registry
from lwddpm.tracking.card import model_card
from lwddpm.tracking.runs import TrackedRun, tracked_run
from lwddpm.tracking.store import check_tracking, connect, public, tracking_uri
from lwddpm.training.checkpoint import SavedModel, complete_folder, read_saved_model
from lwddpm.training.schedule import Schedule


def run_job(job: AnyJob, *, fresh: bool = False, address: str | None = None) -> dict[str, Any]:
    """Run a job to its end.

    Args:
        job: from `jobfile.load_job`.
        fresh: start over instead of continuing or reusing.
        address: a Ray cluster; default RAY_ADDRESS, else Ray inside this process.

    Raises:
        LwddpmError: wrong input (before any worker starts) or a failure.
        KeyboardInterrupt: stopped by the user.
    """
    check_job(job, address, fresh)
    with Session(job.workers, address) as session:
        match job:
            case PrepareJob():
                return {"dataset": _summary_of(_prepare(job.data, session, fresh))}
            case TrainJob():
                return _train(job, session, fresh)
            case EvaluateJob():
                return _evaluate(job, session, fresh)
            case SampleJob():
                return _sample(job, session)


def check_job(job: AnyJob, address: str | None = None, fresh: bool = False) -> None:
    """Everything that can be known to be wrong before Ray starts.

    Raises:
        ConfigError, DataError: one clear message.
    """
    Session(job.workers, address).check()
    if isinstance(job, PrepareJob | TrainJob | EvaluateJob):
        check_source(job.data, fresh=fresh)
    if not isinstance(job, PrepareJob):
        check_tracking(job.tracking)
    if isinstance(job, TrainJob):
        check_writable(Path(job.output), "output")
        weights = job.evaluation.inception_weights if job.evaluation else None
    elif isinstance(job, SampleJob):
        _check_out(Path(job.out).resolve())
        weights = None
    else:
        weights = job.evaluation.inception_weights if isinstance(job, EvaluateJob) else None
    if weights is not None and not Path(weights).is_file():
        raise ConfigError(f"evaluation.inception_weights: no such file, got {weights}; leave it out to use the cache")


def _check_out(out: Path) -> None:
    check_writable(out.parent, "out")
    if out == Path.cwd() or out in Path.cwd().parents:
        raise ConfigError(
            f"out: must not hold the working folder, which it would replace, got {out}; name a new folder"
        )
    if out.exists() and any(out.iterdir()) and not (out / "samples.json").exists():
        raise ConfigError(f"out: must be a new or empty folder, or hold earlier samples, got {out}; choose another")


def _prepare(data: DataConfig, session: Session, fresh: bool) -> Dataset:
    dataset = prepare_dataset(data, session.map, fresh=fresh)
    if session.in_process:
        session.close()  # idle, Ray's processes still take a few per cent of the CPUs that training wants
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


def _train(job: TrainJob, session: Session, fresh: bool) -> dict[str, Any]:
    folder = run_folder(job)
    with occupied(folder):
        uri = tracking_uri(job.tracking)
        done = read_json(folder / "result.json")
        if not fresh and done is not None and done["digest"] == job.digest() and _still_registered(done, uri):
            say(f"{job.name}: finished already, in {folder}; --fresh trains it again")
            return done
        with ThreadPoolExecutor(1) as pool:  # MLflow takes seconds to make a new store; preparation does not need it
            opening = pool.submit(connect, uri)
            dataset = _prepare(job.data, session, fresh)
            opening.result()
        _check_dataset(job, dataset)
        if fresh:
            clear(folder)
        earlier = read_json(folder / "run.json") or {}
        run_id = earlier.get("run_id") if earlier.get("tracking_uri") == public(uri) else None
        with tracked_run(job, uri, run_id, job.digest()) as run:
            write_json(folder / "run.json", {"run_id": run.run_id, "tracking_uri": public(uri)})
            run.dataset(dataset)
            result = _train_evaluate_register(job, dataset, folder, run, session)
            write_json(folder / "result.json", result)
    return result


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


def _check_dataset(job: TrainJob, dataset: Dataset) -> None:
    """Refuse, before training, a dataset too small to train on or to evaluate with."""
    Schedule.of(job.training, dataset.num("train"))
    if job.evaluation is not None:
        num_evaluated(dataset, job.evaluation)


def _train_evaluate_register(
    job: TrainJob, dataset: Dataset, folder: Path, run: TrackedRun, session: Session
) -> dict[str, Any]:
    model_dir = folder / "model"
    if not model_dir.exists():
        train_on_workers(job, dataset, folder, run, session)
    label = f"{job.diffusion.loss} loss on {job.diffusion.prediction_type}"
    run.figure(figures.loss_curve(run.history("train/loss"), run.history("val/loss"), label), "loss")
    saved = read_saved_model(model_dir)
    result: dict[str, Any] = {
        "name": job.name,
        "digest": job.digest(),
        "run_id": run.run_id,
        "run_dir": str(folder),
        "tracking_uri": public(tracking_uri(job.tracking)),
        "dataset": _summary_of(dataset),
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
        }
        version = registry.register(run, model_dir, job.registry, tags, result["metrics"], saved.step, card)
        result["model"] = {
            "name": version.name,
            "version": version.version,
            "alias": job.registry.alias,
            "uri": f"models:/{version.name}@{job.registry.alias}",
        }
    return result


def _evaluate(job: EvaluateJob, session: Session, fresh: bool) -> dict[str, Any]:
    uri = tracking_uri(job.tracking)
    connect(uri)
    model_dir = registry.fetch_model(job.model_uri)
    saved = read_saved_model(model_dir)
    if saved.image_size != job.data.image_size:
        raise ConfigError(
            f"data.image_size: must be the model's {saved.image_size}, got {job.data.image_size}; "
            f"set data.image_size={saved.image_size}"
        )
    _check_steps(job.evaluation, saved, "evaluation")
    dataset = _prepare(job.data, session, fresh)
    num_evaluated(dataset, job.evaluation)
    with tracked_run(job, uri, None, job.digest()) as run:
        run.dataset(dataset)
        result = measure(model_dir, dataset, job.evaluation, session, run)
        run.values(result.metrics(), saved.step)
        return {
            "name": job.name,
            "run_id": run.run_id,
            "tracking_uri": public(uri),
            "dataset": _summary_of(dataset),
            "parameters": saved.parameters,
            "metrics": result.metrics(),
            "unavailable": [u.model_dump() for u in result.unavailable],
        }


def _sample(job: SampleJob, session: Session) -> dict[str, Any]:
    connect(tracking_uri(job.tracking))
    model_dir = registry.fetch_model(job.model_uri)
    saved = read_saved_model(model_dir)
    _check_steps(job.sampling, saved, "sampling")
    images = generate_images(model_dir, job.sampling, job.count, session)
    out = Path(job.out).resolve()
    with complete_folder(out) as folder:
        width = len(str(job.count - 1))
        for index, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{index:0{width}d}.png")
        Image.fromarray(figures.tile(images[:64])).save(folder / "grid.png")
        about = {
            "synthetic": True,
            "model_uri": job.model_uri,
            "sampling": job.sampling.model_dump(),
            "count": job.count,
            "model": saved.model_dump(mode="json"),
        }
        write_json(folder / "samples.json", about)
    return {"name": job.name, "out": str(out), "count": job.count, "image_size": saved.image_size}


def _check_steps(sampling: Any, saved: SavedModel, section: str) -> None:
    try:
        check_steps(sampling, saved.diffusion, section)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _summary_of(dataset: Dataset) -> dict[str, Any]:
    manifest = dataset.manifest
    return {
        "path": dataset.path,
        "version": dataset.version,
        "simulated": manifest.simulated,
        "splits": {name: split.num for name, split in manifest.splits.items()},
        "rejected": len(manifest.rejected),
        "duplicates": manifest.duplicates.model_dump(exclude={"label_conflicts"}),
    }
