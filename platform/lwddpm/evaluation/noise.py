"""Predicted against true noise: histograms of their pixels, and the distance between those."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lwddpm.diffusion.intensity import from_uint8
from lwddpm.diffusion.process import DiffusionProcess

EDGES = np.linspace(-5, 5, 101)


class Histograms(NamedTuple):
    """Counts of pixels by slice, int64 [N, bins]; what lies outside the edges is in the outer bins."""

    edges: np.ndarray
    true: np.ndarray
    predicted: np.ndarray


@torch.inference_mode()
def noise_histograms(
    model: nn.Module,
    process: DiffusionProcess,
    images: np.ndarray,
    timesteps: Sequence[int],
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> Histograms:
    """Histograms of the noise added to real slices, and of the noise that the model predicts for them.

    Args:
        model: in eval mode, on the device of `process`.
        images: uint8 [N, S, S]; slice i is noised to timestep i modulo the number of timesteps.
        timesteps: those that a sampler visits, evenly thinned to N at most.
    """
    device = process.betas.device
    thinned = np.linspace(0, len(timesteps) - 1, min(len(images), len(timesteps))).round().astype(int)
    visited = np.asarray(timesteps)[thinned]
    generator = torch.Generator().manual_seed(seed)
    true: list[np.ndarray] = []
    predicted: list[np.ndarray] = []
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size])
        t = torch.from_numpy(visited[np.arange(start, start + len(batch)) % len(visited)]).to(device)
        x_0 = from_uint8(torch.from_numpy(batch)[:, None], process.config.intensity_gamma).to(device)
        noise = torch.randn(x_0.shape, generator=generator).to(device)
        x_t = process.q_sample(x_0, t, noise)
        prediction = model(process.network_input(x_t, t), t).float()
        true.append(_counts(noise))
        predicted.append(_counts(process.predict_noise(x_t, t, prediction)))
    return Histograms(EDGES, np.concatenate(true), np.concatenate(predicted))


def _counts(values: Tensor) -> np.ndarray:
    inside = values.cpu().flatten(1).numpy().clip(EDGES[0], EDGES[-1])
    return np.stack([np.histogram(row, EDGES)[0] for row in inside])


def wasserstein(edges: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """1-Wasserstein distance of two histograms over the same edges, in units of the edges: area between their CDFs.

    Args:
        edges: [bins + 1], equally wide.
        first, second: counts [bins], neither empty.
    """
    cdfs = (np.cumsum(counts) / np.sum(counts) for counts in (first, second))
    return float(np.abs(next(cdfs) - next(cdfs)).sum() * (edges[1] - edges[0]))
