"""An evaluate job, and the last step of a training: samples, metrics with their floors, figures; all of it logged.

What was measured is returned, and kept in the run folder of a training:

    evaluation.json    the metrics, an EvaluationResult
    samples.npy        the slices that they were measured on, uint8 [N, S, S]
"""

import getpass
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from lwddpm.addresses import public
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.generate import feature_extraction, generate_images, reconstruct_images, settled
from lwddpm.cluster.session import Session
from lwddpm.config import UNGUIDED, EvaluateJob, EvaluationConfig
from lwddpm.data.store import Dataset
from lwddpm.diffusion.sampling import denoising_trajectory
from lwddpm.diffusion.timesteps import steps_within
from lwddpm.errors import ConfigError, JobError
from lwddpm.evaluation import figures
from lwddpm.evaluation.class_figure import confusion_matrices
from lwddpm.evaluation.protocol import Reconstruct, evaluate, num_evaluated
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.evaluation.subset import random_subset
from lwddpm.files import whole_file, write_json
from lwddpm.kinds.prepare import prepare, summary_of
from lwddpm.kinds.presets import say_drawn, with_preset
from lwddpm.kinds.saved_model import calls_of, fetch, fitting, labels_of, settled_guidance, start_of
from lwddpm.models.precision import settled_precision
from lwddpm.progress import say
from lwddpm.tracking import attachments, registry
from lwddpm.tracking.earlier_runs import run_digest
from lwddpm.tracking.runs import TrackedRun, log_images, tracked_run
from lwddpm.tracking.store import tracking_uri
from lwddpm.training.stored_model import load_for_drawing, load_guide, read_saved_model
from lwddpm.training.stored_prior import read_prior

_PICTURED = 32  # real and synthetic slices for the side-by-side figure
_STRIP_ROWS, _STRIP_FRAMES = 4, 8
_RESULT, _SAMPLES = "evaluation.json", "samples.npy"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation, and the slices that were measured: uint8 [N, S, S]."""

    result: EvaluationResult
    samples: np.ndarray

    def save(self, run_dir: Path) -> None:
        """Write both files into a run folder, the metrics last.

        Raises:
            JobError: the disk does not take them.
        """
        (run_dir / _RESULT).unlink(missing_ok=True)  # of an evaluation with other settings
        with whole_file(run_dir / _SAMPLES) as partial, partial.open("wb") as stream:
            np.save(stream, self.samples)
        write_json(run_dir / _RESULT, json.loads(self.result.model_dump_json()))

    @classmethod
    def load(cls, run_dir: Path) -> "Evaluation | None":
        """What a run folder has; None where a file is missing (an earlier version kept no samples) or damaged."""
        try:
            result = EvaluationResult.model_validate_json((run_dir / _RESULT).read_bytes())
            return cls(result, np.load(run_dir / _SAMPLES, allow_pickle=False))
        except (FileNotFoundError, ValidationError, ValueError):
            return None


def run_evaluation(
    job: EvaluateJob, session: Session, fresh: bool, *, dataset: Dataset | None = None
) -> tuple[dict[str, Any], Evaluation]:
    """Measure a saved or registered model, in an MLflow run of its own.

    Args:
        dataset: prepared already, by a job that this one is a part of: its run is then beneath the open one.

    Returns:
        The job's summary, and the evaluation.

    Raises:
        ConfigError: no such model, or settings that do not fit it.
        DataError: the dataset has no held-out slices.
    """
    model_dir, saved = fetch(job, session)
    if saved.image_size != job.data.image_size:
        raise ConfigError(
            f"data.image_size: must be the model's {saved.image_size}, got {job.data.image_size}; "
            f"set data.image_size={saved.image_size}"
        )
    preset, config = with_preset(job, job.evaluation, model_dir)
    config = fitting(config, saved, model_dir, "evaluation")
    say_drawn(preset, job.evaluation, config)
    job = job.model_copy(update={"evaluation": config})  # the run's settings are those that were measured
    uri = tracking_uri(job.tracking)
    nested = dataset is not None
    with (
        tracked_run(job, uri, None, run_digest(job), nested=nested) as run,
        ExportedSeries(job.name, run.run_id) as exported,
    ):
        if dataset is None:
            dataset = prepare(job.data, session, fresh)
        session.rest()
        num_evaluated(dataset, config)
        run.dataset(dataset)
        evaluation = evaluate_model(model_dir, dataset, config, session, run, exported)
        result = evaluation.result
        run.values(result.metrics(), saved.step)
        if job.model_uri.startswith("models:/"):
            _store_with_version(job.model_uri, result)
        summary = {
            "name": job.name,
            "run_id": run.run_id,
            "tracking_uri": public(uri),
            "dataset": summary_of(dataset),
            "parameters": saved.parameters,
            "preset": preset,
            "metrics": result.metrics(),
            "n": result.num_slices(),
            "unavailable": [u.model_dump() for u in result.unavailable],
            "warnings": list(result.warnings),
        }
    return summary, evaluation


def _store_with_version(model_uri: str, result: EvaluationResult) -> None:
    """Keep an evaluation with the version that it is of, for the gate, if it was trained on this dataset."""
    version = registry.find_version(model_uri)
    if result.dataset_version != version.tags.get("lwddpm.dataset_version") or registry.WEIGHTS not in version.tags:
        say(f"{model_uri}: this evaluation is not stored with the version, whose dataset is another")
        return
    content = {
        "model": version.tags[registry.WEIGHTS],
        "dataset": result.dataset_version,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "evaluation": result.model_dump(mode="json"),
    }
    try:
        attachments.attach(version, attachments.EVALUATION, content, getpass.getuser())
    except JobError as error:  # the evaluation itself is done, and in its run
        say(f"{model_uri}: this evaluation is not stored with the version: {error}")


def evaluate_model(
    model_dir: Path,
    dataset: Dataset,
    config: EvaluationConfig,
    session: Session,
    run: TrackedRun,
    exported: ExportedSeries,
) -> Evaluation:
    """Evaluate a model folder; log tables, images and figures to the run. The caller logs the numbers.

    Args:
        exported: the series of the job, which counts the CPUs and GPUs that are held.

    Raises:
        DataError: the dataset has no held-out slices.
    """
    saved = read_saved_model(model_dir)
    if saved.diffusion is not None:
        start, config = start_of(config, model_dir), settled_guidance(config, saved, model_dir)
        config = settled(config.model_copy(update={"start": start}), session)  # kept with the result
    count = num_evaluated(dataset, config)
    if count < config.num_samples:
        say(f"evaluation.num_samples lowered to {count}: the floor needs as many held-out real slices")
    generated = generate_images(model_dir, config, max(count, _PICTURED), session, exported)
    samples = generated[:count]
    extract = feature_extraction(session, config.inception_weights, exported)
    calls = calls_of(config, model_dir)
    result = evaluate(
        samples,
        dataset,
        config,
        extract=extract,
        reconstruct=reconstruction(model_dir, config, session, exported),
        network_calls=calls,
        asked=labels_of(config, saved, count),
    )
    if config.guided:
        say(f"guided, each slice takes {calls} network calls; measured without guidance in as many, too")
        plain = without_guidance(config, calls, model_dir)
        unguided = generate_images(model_dir, plain, count, session, exported)
        beside = evaluate(
            unguided,
            dataset,
            plain,
            extract=extract,
            network_calls=calls_of(plain, model_dir),
            asked=labels_of(plain, saved, count),
        )
        result = result.model_copy(update={"unguided": beside.records})
    for unavailable in result.unavailable:
        say(f"{unavailable.name} is not reported: {unavailable.reason}")
    for warning in result.warnings:
        say(f"warning: {warning}")
        run.warn(warning)
    run.text(result.table(), "evaluation/metrics.md")
    run.text(result.model_dump_json(indent=2), "evaluation/metrics.json")
    log_images(run, samples)
    if result.confusion is not None:
        run.figure(confusion_matrices(result.confusion), "obedience")
    _log_figures(model_dir, dataset, config, session, run, generated, count)
    return Evaluation(result, samples)


def without_guidance(config: EvaluationConfig, calls: int, model_dir: Path) -> EvaluationConfig:
    """The same evaluation without guidance, in as many network calls; reconstructing knows none."""
    diffusion = read_saved_model(model_dir).diffusion
    assert diffusion is not None
    steps = min(steps_within(calls, config.sampler), diffusion.num_train_timesteps)
    metrics = tuple(name for name in config.metrics if name != "ssim_reconstruction")
    changes = {
        "num_inference_steps": steps,
        "metrics": metrics,
    }
    return config.model_copy(update=UNGUIDED | changes)


def reconstruction(
    model_dir: Path, config: EvaluationConfig, session: Session, exported: ExportedSeries | None = None
) -> Reconstruct | None:
    """How to noise and denoise real slices; None for models that do not denoise."""
    if read_saved_model(model_dir).diffusion is None:
        return None
    return lambda images, timestep: reconstruct_images(model_dir, images, timestep, config, session, exported)


def _log_figures(
    model_dir: Path,
    dataset: Dataset,
    config: EvaluationConfig,
    session: Session,
    run: TrackedRun,
    generated: np.ndarray,
    num_measured: int,
) -> None:
    """Real beside synthetic slices, their intensities; of a diffusion model also samples emerging from noise."""
    real = dataset.images("test" if dataset.num("test") >= _PICTURED else "train")
    chosen = np.sort(np.random.default_rng(config.seed).choice(len(real), min(_PICTURED, len(real)), replace=False))
    simulated = dataset.manifest.simulated
    shown = generated[:_PICTURED]  # samples are numbered: no order to be wary of
    run.figure(figures.real_beside_synthetic(real[chosen], shown, simulated=simulated), "real_beside_synthetic")
    train, measured = random_subset(dataset.images("train"), config.num_reference), generated[:num_measured]
    run.figure(figures.intensity_histograms(train, measured, simulated=simulated), "intensities")
    device = "cuda" if session.in_process and session.use_gpu else "cpu"  # the driver of a cluster may have no GPU
    precision = settled_precision(config.precision, torch.device(device))
    model, saved = load_for_drawing(model_dir, precision, device, _STRIP_ROWS)
    if saved.diffusion is None:
        return
    num_frames = min(_STRIP_FRAMES, config.num_inference_steps + 1)
    frames, timesteps = denoising_trajectory(
        model,
        saved.diffusion,
        config,
        range(_STRIP_ROWS),
        saved.image_size,
        device,
        num_frames,
        prior=read_prior(model_dir, saved.image_size),
        guide=load_guide(model_dir, precision, device, _STRIP_ROWS),
    )
    run.figure(figures.denoising_strip(frames.numpy(), timesteps.tolist()), "denoising")
