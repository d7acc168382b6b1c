"""Evaluation of a saved model on the workers: samples, metrics with their floors, figures; all of it logged."""

from pathlib import Path

import numpy as np

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.generate import feature_extraction, generate_images, reconstruct_images
from lwddpm.cluster.session import Session
from lwddpm.config import EvaluationConfig
from lwddpm.data.store import Dataset
from lwddpm.diffusion.sampling import denoising_trajectory
from lwddpm.evaluation import figures
from lwddpm.evaluation.protocol import Reconstruct, evaluate, num_evaluated
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.progress import say
from lwddpm.tracking.runs import TrackedRun, log_images
from lwddpm.training.checkpoint import load_model, read_saved_model

_PICTURED = 32  # real and synthetic slices for the side-by-side figure
_STRIP_ROWS, _STRIP_FRAMES = 4, 8


def measure(
    model_dir: Path,
    dataset: Dataset,
    config: EvaluationConfig,
    session: Session,
    run: TrackedRun,
    exported: ExportedSeries,
) -> EvaluationResult:
    """Evaluate a model folder and log tables, images and figures to the run. Its numbers are the caller's to log.

    Raises:
        DataError: the dataset has no held-out slices.
    """
    count = num_evaluated(dataset, config)
    if count < config.num_samples:
        say(f"evaluation.num_samples lowered to {count}: the floor needs as many held-out real slices")
    generated = generate_images(model_dir, config, max(count, _PICTURED), session, exported)
    result = evaluate(
        generated[:count],
        dataset,
        config,
        extract=feature_extraction(session, config.inception_weights, exported),
        reconstruct=reconstruction(model_dir, config, session, exported),
    )
    for missing in result.unavailable:
        say(f"{missing.name} is not reported: {missing.reason}")
    for warning in result.warnings:
        say(f"warning: {warning}")
        run.tags({"lwddpm.warning": warning})
    run.text(result.table(), "evaluation/metrics.md")
    run.text(result.model_dump_json(indent=2), "evaluation/metrics.json")
    log_images(run, generated[:count])
    _draw(model_dir, dataset, config, session, run, generated[:_PICTURED])
    return result


def reconstruction(
    model_dir: Path, config: EvaluationConfig, session: Session, exported: ExportedSeries | None = None
) -> Reconstruct | None:
    """How to noise and denoise real slices, for models that denoise."""
    if read_saved_model(model_dir).diffusion is None:
        return None
    return lambda images, timestep: reconstruct_images(model_dir, images, timestep, config, session, exported)


def _draw(
    model_dir: Path,
    dataset: Dataset,
    config: EvaluationConfig,
    session: Session,
    run: TrackedRun,
    generated: np.ndarray,
) -> None:
    real = dataset.images("test" if dataset.num("test") >= _PICTURED else "train")
    chosen = np.sort(np.random.default_rng(config.seed).choice(len(real), min(_PICTURED, len(real)), replace=False))
    simulated = dataset.manifest.simulated
    run.figure(figures.real_beside_synthetic(real[chosen], generated, simulated=simulated), "real_beside_synthetic")
    device = "cuda" if session.in_process and session.use_gpu else "cpu"  # the driver of a cluster may have no GPU
    model, saved = load_model(model_dir, device)
    if saved.diffusion is None:
        return
    num_frames = min(_STRIP_FRAMES, config.num_inference_steps + 1)
    frames, timesteps = denoising_trajectory(
        model, saved.diffusion, config, range(_STRIP_ROWS), saved.image_size, device, num_frames
    )
    run.figure(figures.denoising_strip(frames.numpy(), timesteps.tolist()), "denoising")
