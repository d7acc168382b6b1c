"""Sampling, reconstruction and feature extraction from a saved model, in chunks over the workers.

`exported` is the series of the job that the CPUs and GPUs are counted for, see `Session.worker_map`.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.session import Session
from lwddpm.config import SamplingConfig, SamplingT
from lwddpm.diffusion.editing import Edit
from lwddpm.diffusion.prior import Prior
from lwddpm.diffusion.sampling import generate, reconstruct
from lwddpm.diffusion.timesteps import network_calls
from lwddpm.evaluation.features import Extractor, load_extractor, read_weights
from lwddpm.families import SAMPLER
from lwddpm.models.precision import NumberFormat, settled_precision
from lwddpm.training.stored_model import SavedModel, load_for_drawing, load_guide, read_saved_model
from lwddpm.training.stored_prior import read_prior

_FEATURE_CHUNK = 64


def generate_images(
    model_dir: Path,
    sampling: SamplingConfig,
    count: int,
    session: Session,
    exported: ExportedSeries | None = None,
    edit: Edit | None = None,
) -> np.ndarray:
    """Samples 0..count-1, uint8 [count, H, W]; the same on any number of workers of one kind."""
    return draw_indices(model_dir, sampling, range(count), session, exported, edit=edit)


def draw_indices(
    model_dir: Path,
    sampling: SamplingConfig,
    indices: Sequence[int],
    session: Session,
    exported: ExportedSeries | None = None,
    description: str = "sampling",
    edit: Edit | None = None,
) -> np.ndarray:
    """The samples of some numbers, uint8 [N, H, W], in batches of those that follow each other."""
    sampling = settled(sampling, session)
    batches = [indices[i : i + sampling.batch_size] for i in range(0, len(indices), sampling.batch_size)]
    saved = read_saved_model(model_dir)
    num_calls = len(batches) * network_calls(saved.diffusion, sampling, read_prior(model_dir, saved.image_size), edit)
    if edit is not None and edit.takes_gradients:
        num_calls = 0  # a compiled network would be compiled once more for them
    function = functools.partial(_generate, session.model_device, str(model_dir), sampling, num_calls, edit)
    return np.concatenate(list(session.worker_map(function, batches, description=description, exported=exported)))


def reconstruct_images(
    model_dir: Path,
    images: np.ndarray,
    timestep: int,
    sampling: SamplingConfig,
    session: Session,
    exported: ExportedSeries | None = None,
) -> np.ndarray:
    """Noise slices uint8 [N, H, W] to `timestep` and denoise them back, to the same shape and type."""
    sampling = settled(sampling, session)
    function = functools.partial(_reconstruct, session.model_device, str(model_dir), timestep, sampling)
    size = sampling.batch_size
    chunks = [list(enumerate(images[i : i + size], start=i)) for i in range(0, len(images), size)]
    return np.concatenate(list(session.worker_map(function, chunks, description="reconstructing", exported=exported)))


def feature_extraction(
    session: Session, inception_weights: str | None, exported: ExportedSeries | None = None
) -> Callable[[str, np.ndarray], torch.Tensor]:
    """A function (extractor name, uint8 [N, H, W]) -> float32 [N, D] that computes on the workers."""

    def extract(name: str, images: np.ndarray) -> torch.Tensor:
        read_weights(name, inception_weights=inception_weights)  # missing weights are found here, not on every worker
        function = functools.partial(_extract, session.model_device, name, inception_weights)
        chunks = [list(images[i : i + _FEATURE_CHUNK]) for i in range(0, len(images), _FEATURE_CHUNK)]
        described = f"features for {name}"
        return torch.cat(list(session.worker_map(function, chunks, description=described, exported=exported)))

    return extract


def settled(sampling: SamplingT, session: Session) -> SamplingT:
    """The settings with the number format that `precision: auto` comes to where models compute.

    Of several workers one decides for all, so that every slice is drawn alike. A GAN has no choice.
    """
    if sampling.precision != "auto" or sampling.sampler == SAMPLER:
        return sampling
    device = session.model_device
    if session.in_process:
        found = _settle(device)
    else:
        found = next(iter(session.worker_map(_settle, [device], description="looking at a worker's device")))
    return sampling.model_copy(update={"precision": found})


def _settle(device: str) -> NumberFormat:
    return settled_precision("auto", torch.device(device))


def _generate(
    device: str, model_dir: str, sampling: SamplingConfig, num_calls: int, edit: Edit | None, indices: Sequence[int]
) -> np.ndarray:
    model, saved, prior = _load(device, model_dir, _modified(model_dir), *_how(sampling), num_calls)
    guide = None
    if sampling.guidance != 1:
        guide = _load_guide(device, model_dir, _modified(model_dir), *_how(sampling), num_calls)
    return generate(
        model, saved.diffusion, sampling, indices, saved.image_size, device, prior=prior, guide=guide, edit=edit
    ).numpy()


def _reconstruct(
    device: str, model_dir: str, timestep: int, sampling: SamplingConfig, chunk: list[tuple[int, np.ndarray]]
) -> np.ndarray:
    model, saved, _ = _load(device, model_dir, _modified(model_dir), *_how(sampling))
    assert saved.diffusion is not None
    numbers, images = zip(*chunk, strict=True)
    return reconstruct(
        model,
        saved.diffusion,
        torch.from_numpy(np.stack(images)),
        timestep,
        seed=sampling.seed,
        device=device,
        batch_size=len(chunk),
        indices=numbers,
    ).numpy()


def _extract(device: str, name: str, inception_weights: str | None, chunk: list[np.ndarray]) -> torch.Tensor:
    return _extractor(device, name, inception_weights)(torch.from_numpy(np.stack(chunk)))


# A worker serves many chunks: it loads a model once. The time of writing tells a retrained model from the old one.
@functools.lru_cache(maxsize=1)
def _load(
    device: str, model_dir: str, modified: int, precision: NumberFormat, batch_size: int, num_calls: int = 0
) -> tuple[torch.nn.Module, SavedModel, Prior | None]:
    model, saved = load_for_drawing(Path(model_dir), precision, device, batch_size, num_calls)
    return model, saved, read_prior(Path(model_dir), saved.image_size)


@functools.lru_cache(maxsize=1)
def _load_guide(
    device: str, model_dir: str, modified: int, precision: NumberFormat, batch_size: int, num_calls: int
) -> torch.nn.Module | None:
    return load_guide(Path(model_dir), precision, device, batch_size, num_calls)


def _how(sampling: SamplingConfig) -> tuple[NumberFormat, int]:
    return "fp32" if sampling.precision == "auto" else sampling.precision, sampling.batch_size  # auto: a GAN's


def _modified(model_dir: str) -> int:
    # of any file: `models calibrate` adds a prior to a folder and leaves the others
    return max(file.stat().st_mtime_ns for file in Path(model_dir).iterdir())


@functools.lru_cache(maxsize=2)
def _extractor(device: str, name: str, inception_weights: str | None) -> Extractor:
    return load_extractor(name, inception_weights=inception_weights, device=torch.device(device))
