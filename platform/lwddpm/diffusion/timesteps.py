"""Which timesteps a sampler visits, and how many network calls a slice takes.

Visited timesteps are spaced "trailing": the first is T - 1, where training ends (Lin et al. 2024, arXiv:2305.08891);
or they are those nearest to the noise levels of `karras`. A model with a prior starts where the signal is strong enough
for its network to say more than the prior does; an edit may start later still.
"""

import numpy as np
import torch
from torch import Tensor

from lwddpm.config import DiffusionConfig, SamplingConfig
from lwddpm.diffusion.denoiser import noise_level
from lwddpm.diffusion.editing import Edit
from lwddpm.diffusion.karras import karras_timesteps
from lwddpm.diffusion.prior import Prior
from lwddpm.diffusion.process import DiffusionProcess

# Signal sqrt(abar_t) at which a start from the prior hands over at the latest, measured (docs/sampling.md): a sampler
# that adds noise makes up for an early start, a deterministic one only loses steps by it.
LATEST_START = {"ddpm": 0.7, "sde-dpmsolver++": 0.7, "ddim": 0.9, "dpmsolver++": 0.9, "unipc": 0.9, "heun": 0.9}


def visited_timesteps(num_train_timesteps: int, num_inference_steps: int) -> Tensor:
    """Timesteps that a sampler visits, long [num_inference_steps], falling evenly from num_train_timesteps - 1.

    Raises:
        ValueError: more steps than the model was trained with.
    """
    if not 1 <= num_inference_steps <= num_train_timesteps:
        raise ValueError(f"num_inference_steps must be from 1 to {num_train_timesteps}, got {num_inference_steps}")
    stride = num_train_timesteps / num_inference_steps
    return torch.from_numpy(np.round(num_train_timesteps - stride * np.arange(num_inference_steps)).astype(int) - 1)


def start_timestep(process: DiffusionProcess, prior: Prior, sampler: str) -> int:
    """The first timestep that the network sees after a start from the prior: where it begins to be trusted, at the
    latest that of LATEST_START."""
    latest = max(int((process.signal >= LATEST_START[sampler]).sum()) - 1, 0)
    return max(latest, prior.trusted_until(len(process.signal)))


def planned_timesteps(
    process: DiffusionProcess, sampling: SamplingConfig, prior: Prior | None, edit: Edit | None = None
) -> Tensor:
    """Falling timesteps at which the network is called, long [n].

    Args:
        prior: where the way starts from it: then below the timesteps that need no network; None: from noise.
        edit: may begin later; what it leaves as it is needs no timestep.
    """
    total, steps = process.config.num_train_timesteps, sampling.num_inference_steps
    first = total - 1 if prior is None else start_timestep(process, prior, sampling.sampler)
    if edit is not None:
        first = edit.first_timestep(first, total)
        if first < 0:
            return torch.empty(0, dtype=torch.long)
    if prior is not None or edit is not None:
        steps = min(steps, first + 1)
    return karras_timesteps(process, first, steps) if sampling.on_karras_levels else visited_timesteps(first + 1, steps)


def network_calls(
    diffusion: DiffusionConfig | None, sampling: SamplingConfig, prior: Prior | None, edit: Edit | None = None
) -> int:
    """Calls of a network that draw a slice: one for each visited timestep, two where it is guided, and with Heun's
    method those of all but the first once more; one of a GAN. Inpainting takes more (`editing`).

    Args:
        prior: of the model, if it has one; `sampling` says whether the way starts from it.
    """
    if diffusion is None:
        return 1
    process = DiffusionProcess(diffusion)
    visited = planned_timesteps(process, sampling, starting_prior(sampling, prior), edit).tolist()
    asked = visited + visited[1:] if sampling.sampler == "heun" else visited
    return sum((edit or Edit()).calls(sampling, noise_level(process, timestep)) for timestep in asked)


def steps_within(calls: int, sampler: str) -> int:
    """As many steps as make so many network calls at most, without guidance; at least 1."""
    return max(1, (calls + 1) // 2 if sampler == "heun" else calls)


def starting_prior(sampling: SamplingConfig, prior: Prior | None) -> Prior | None:
    """What the way starts from: a model's prior, or None: noise."""
    return None if sampling.start == "noise" else prior
