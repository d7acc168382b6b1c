"""Denoising losses of real slices, over the workers, for membership inference."""

import functools
from pathlib import Path

import numpy as np
import torch

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.session import Session
from lwddpm.diffusion.intensity import from_uint8, gamma_of
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.training.stored_model import SavedModel, load_model

TIMESTEPS = (0.02, 0.05, 0.1, 0.2, 0.4)  # of num_train_timesteps
NOISES = 4  # of each slice and timestep
_AT_A_TIME = 64
_SEED = 0


def denoising_losses(model_dir: Path, images: np.ndarray, session: Session, exported: ExportedSeries) -> np.ndarray:
    """Mean loss of each slice at each timestep, float64 [N, len(TIMESTEPS)].

    The network is used without guidance, as it was trained; slice i meets the same noise in every model.
    """
    chunks = [list(enumerate(images[i : i + _AT_A_TIME], start=i)) for i in range(0, len(images), _AT_A_TIME)]
    function = functools.partial(_losses, session.model_device, str(model_dir))
    return np.concatenate(
        list(session.worker_map(function, chunks, description="membership inference", exported=exported))
    )


@torch.inference_mode()
def _losses(device: str, model_dir: str, chunk: list[tuple[int, np.ndarray]]) -> np.ndarray:
    network, saved = _network(model_dir, (Path(model_dir) / "config.json").stat().st_mtime_ns, device)
    assert saved.diffusion is not None
    process = DiffusionProcess(saved.diffusion).to(device)
    numbers, images = zip(*chunk, strict=True)
    x_0 = from_uint8(torch.from_numpy(np.stack(images)), gamma_of(saved.diffusion))[:, None].to(device)
    columns = []
    for place, share in enumerate(TIMESTEPS):
        timestep = round(share * (saved.diffusion.num_train_timesteps - 1))
        timesteps = torch.full((len(x_0),), timestep, device=device)
        total = torch.zeros(len(x_0), dtype=torch.float64)
        for repeat in range(NOISES):
            noise = _noise(numbers, place * NOISES + repeat, x_0.shape[1:]).to(device)
            x_t = process.q_sample(x_0, timesteps, noise)
            prediction = network(process.network_input(x_t, timesteps), timesteps)
            total += process.losses(prediction, x_0, timesteps, noise).double().cpu()
        columns.append(total / NOISES)
    return torch.stack(columns, 1).numpy()


def _noise(numbers: tuple[int, ...], draw: int, shape: torch.Size) -> torch.Tensor:
    draws = (np.random.default_rng([_SEED, number, draw]) for number in numbers)
    return torch.from_numpy(np.stack([each.standard_normal(tuple(shape), np.float32) for each in draws]))


@functools.lru_cache(maxsize=1)
def _network(model_dir: str, modified: int, device: str) -> tuple[torch.nn.Module, SavedModel]:
    network, saved = load_model(Path(model_dir))
    return network.eval().to(device), saved
