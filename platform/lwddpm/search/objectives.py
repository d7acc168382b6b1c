"""What trials are judged by: numbers of a network whose training has paused."""

import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lwddpm.config import (
    CLASS_MEASURES,
    COPIED_OBJECTIVE,
    NEIGHBOUR_OBJECTIVES,
    DiffusionConfig,
    EvaluationConfig,
    SearchJob,
)
from lwddpm.config.search import compares_slices
from lwddpm.data.store import Dataset
from lwddpm.diffusion.sampling import generate, reconstruct
from lwddpm.diffusion.timesteps import network_calls
from lwddpm.errors import DataError, JobError
from lwddpm.evaluation.copying import COPIES
from lwddpm.evaluation.features import Extractor, load_extractor
from lwddpm.evaluation.metrics import NUM_RECONSTRUCTED
from lwddpm.evaluation.neighbours import K
from lwddpm.evaluation.protocol import Reconstruct, evaluate, num_evaluated
from lwddpm.models.precision import settled_precision
from lwddpm.training.stored_model import load_for_drawing, load_guide
from lwddpm.training.stored_prior import read_prior

LATENCY_SAMPLES = 64  # slices that `sampling_seconds` is the time for
_TIMED_SAMPLES = 16


def check_objectives(job: SearchJob, dataset: Dataset) -> None:
    """Refuse, before the first trial, what the dataset has no slices for.

    Raises:
        DataError: no validation slices for `val/loss`, fewer than two held-out ones for `eval/...`.
    """
    named = job.search.named
    if "val/loss" in named and dataset.num("validation") == 0:
        raise DataError(
            f"{dataset.path}: search.objectives: val/loss needs validation slices, got 0; "
            "give validation a share in data.splits, or use eval/fd_lite0"
        )
    if any(map(compares_slices, named)):
        num = min(num_evaluated(dataset, job.search.proxy), dataset.num("train"))
        first = next((name for name in named if name in NEIGHBOUR_OBJECTIVES), None)
        if first is not None and num <= K:
            raise DataError(
                f"{dataset.path}: search.objectives: {first} takes more than {K} slices drawn, held out and trained "
                f"on, got {num}; raise search.proxy.num_samples, or use eval/fd_lite0"
            )


def num_slices(job: SearchJob, dataset: Dataset) -> dict[str, int]:
    """How many slices each objective is measured on, of those that are measured on slices."""
    counts = {}
    for name in job.search.named:
        if name == "val/loss":
            counts[name] = min(job.training.validation_samples, dataset.num("validation"))
        elif name == "eval/ssim_reconstruction":
            counts[name] = min(NUM_RECONSTRUCTED, num_evaluated(dataset, job.search.proxy))
        elif compares_slices(name):
            counts[name] = num_evaluated(dataset, job.search.proxy)
        elif name == "sampling_seconds":
            counts[name] = _TIMED_SAMPLES
    return counts


def measure(
    names: tuple[str, ...],
    model_dir: Path,
    dataset: Dataset,
    proxy: EvaluationConfig,
    device: torch.device,
    show: Callable[[float, np.ndarray], None],
    most_copied: float | None = None,
) -> dict[str, float]:
    """Those of the named objectives that are measured on the network itself.

    Args:
        names: objectives; `val/loss` and `peak_memory_mib` come from training and are passed over.
        model_dir: a saved model.
        dataset: what `eval/...` compares with.
        proxy: how many samples of which sampler.
        device: where the network runs.
        show: called with the epoch and the samples, uint8 [N, S, S], if any had to be drawn.
        most_copied: the constraint on `audit/copied_share` that the caller holds the trial to; None: there is none.

    Raises:
        JobError: an `eval/...` objective cannot be computed here, or the model returns training slices and no
            constraint says so.
    """
    precision = settled_precision(proxy.precision, device)
    model, saved = load_for_drawing(model_dir, precision, device, proxy.batch_size)
    prior = read_prior(model_dir, saved.image_size)
    guide = load_guide(model_dir, precision, device, proxy.batch_size) if proxy.guidance != 1 else None
    draw = functools.partial(generate, model, saved.diffusion, prior=prior, guide=guide)
    measured: dict[str, float] = {"parameters": float(saved.parameters)} if "parameters" in names else {}
    wanted = tuple(name.removeprefix("eval/") for name in names if name.startswith("eval/"))
    if wanted or COPIED_OBJECTIVE in names:
        of_classes = tuple(name for name in wanted if name in CLASS_MEASURES)
        config = proxy.model_copy(update={"metrics": tuple(name for name in wanted if name not in of_classes)})
        indices = range(num_evaluated(dataset, config))
        images = draw(config, indices, saved.image_size, device)
        show(saved.epoch, images.numpy())
        asked = None
        if of_classes and saved.conditions is not None:
            asked = saved.conditions.labels(config.conditions, config.like, len(images))
        result = evaluate(
            images,
            dataset,
            config,
            extract=lambda name, images: _extract(name, config.inception_weights, device, images),
            reconstruct=_reconstruction(model, saved.diffusion, config, device),
            network_calls=network_calls(saved.diffusion, config, prior),
            asked=asked,
        )
        for missing in result.unavailable:
            raise JobError(f"search.objectives: eval/{missing.name} cannot be measured: {missing.reason}")
        for name in set(of_classes) - {record.name for record in result.records}:
            raise JobError(
                f"search.objectives: eval/{name} cannot be measured: it takes 5 real slices of each class, and "
                "drawings of two classes"
            )
        assert result.copied is not None
        beyond = most_copied is not None and result.copied.value > most_copied
        for warning in result.warnings:
            if COPIES in warning and not beyond:  # its distances are the least of all, and it must not win
                raise JobError(warning)
        of_slices = {f"eval/{record.name}": record.value for record in result.records}
        measured |= {name: value for name, value in of_slices.items() if name in names}
        if COPIED_OBJECTIVE in names:
            measured[COPIED_OBJECTIVE] = result.copied.value
    if "sampling_seconds" in names:
        warm_up = proxy.model_copy(update={"num_inference_steps": min(2, proxy.num_inference_steps)})
        draw(warm_up, range(_TIMED_SAMPLES), saved.image_size, device)
        start = time.perf_counter()
        draw(proxy, range(_TIMED_SAMPLES), saved.image_size, device)
        measured["sampling_seconds"] = (time.perf_counter() - start) * LATENCY_SAMPLES / _TIMED_SAMPLES
    return measured


def _reconstruction(
    model: nn.Module, diffusion: DiffusionConfig | None, config: EvaluationConfig, device: torch.device
) -> Reconstruct | None:
    if diffusion is None:
        return None
    return lambda images, timestep: reconstruct(
        model,
        diffusion,
        torch.from_numpy(images),
        timestep,
        seed=config.seed,
        device=device,
        batch_size=config.batch_size,
    )


def _extract(name: str, inception_weights: str | None, device: torch.device, images: np.ndarray) -> Tensor:
    if not images.flags.writeable:  # slices as they lie in a dataset, of which torch takes no views
        images = images.copy()
    return _extractor(name, inception_weights, device)(torch.from_numpy(images))


@functools.lru_cache(maxsize=2)  # a process serves many trials
def _extractor(name: str, inception_weights: str | None, device: torch.device) -> Extractor:
    return load_extractor(name, inception_weights=inception_weights, device=device)
