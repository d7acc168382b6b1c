"""Noise levels and the second-order method of Karras et al. 2022 (arXiv:2206.00364), on the timesteps of a training."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lwddpm.diffusion.denoiser import Estimator, noise_level
from lwddpm.diffusion.process import DiffusionProcess

RHO = 7
# From noise the way begins here: the last levels of a cosine schedule, up to 20,000, would take most of the steps.
MAX_SIGMA = 80.0


def karras_timesteps(process: DiffusionProcess, first: int, num: int) -> Tensor:
    """Falling timesteps, all different, whose noise levels come nearest to those of eq. 5 with rho = 7, long [num].

    sigma_i = (sigma_max^(1/rho) + i / (num - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho

    Args:
        first: the timestep of sigma_max, lowered to that of MAX_SIGMA; sigma_min is that of timestep 0.
        num: from 1 to first + 1.
    """
    sigmas = np.array([noise_level(process, timestep) for timestep in range(first + 1)])
    high, low = min(float(sigmas[-1]), MAX_SIGMA) ** (1 / RHO), float(sigmas[0]) ** (1 / RHO)
    wanted = (high + np.linspace(0, 1, num) * (low - high)) ** RHO
    nearest = np.abs(np.log(sigmas)[None] - np.log(wanted)[:, None]).argmin(1)
    # each leaves room for those after it, and is below the one before it
    places = np.maximum(nearest, np.arange(num - 1, -1, -1))
    for i in range(1, num):
        places[i] = min(places[i], places[i - 1] - 1)
    return torch.from_numpy(places.astype(np.int64))


def heun(denoiser: Estimator, visited: Tensor, x: Tensor, on_step: Callable[[Tensor], None] | None = None) -> Tensor:
    """Walk noisy slices to the clean ones by Heun's method in sigma: algorithm 1 without its added noise.

    The last step, to sigma = 0, is Euler's: n steps call the denoiser 2 n - 1 times.

    Args:
        visited: falling timesteps, long [n].
        x: slices at the first of them, float32 [B, 1, H, W].
        on_step: called with the state after each step.

    Returns:
        Clean slices, float32 [B, 1, H, W].
    """
    timesteps = visited.tolist()
    scaled = x.double() / float(denoiser.process.signal[timesteps[0]])  # x_0 + sigma noise: sigma has many sizes
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        sigma = noise_level(denoiser.process, timestep)
        slope = (scaled - denoiser.clean(x, timestep)) / sigma
        if following is None:
            x = (scaled - sigma * slope).to(x.dtype)
        else:
            signal, next_sigma = float(denoiser.process.signal[following]), noise_level(denoiser.process, following)
            ahead = scaled + (next_sigma - sigma) * slope
            slope_ahead = (ahead - denoiser.clean((ahead * signal).to(x.dtype), following)) / next_sigma
            scaled = scaled + (next_sigma - sigma) * (slope + slope_ahead) / 2
            x = (scaled * signal).to(x.dtype)
        if on_step is not None:
            on_step(x)
    return x
