"""Weights of the loss by noise level, learned beside the network.

Karras et al. 2024 (arXiv:2312.02696), config C, after Kendall et al. 2018 (arXiv:1705.07115): with u a function of the
noise level, minimising

    L / e^u + u

makes e^u the mean loss of that level, so that every level weighs alike: L / e^u is 1 on average. Without it, levels
whose loss cannot be made small drown the others.
"""

import math

import torch
from torch import Tensor, nn

from lwddpm.diffusion.process import DiffusionProcess

_FEATURES = 128


class LossWeight(nn.Module):
    """u as a linear function of random Fourier features of ln(sigma) / 4, and what is minimised with it.

    Zero at first: every level has weight 1. It is no part of the model: what draws does not need it.

    Args:
        process: its noise levels are the timesteps'.
        probabilities: of each timestep in training, float64 [T].
    """

    features: Tensor
    probabilities: Tensor

    def __init__(self, process: DiffusionProcess, probabilities: Tensor) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)  # its own: the network's initial weights stay as they are
        frequencies, phases = torch.randn(_FEATURES, generator=generator), torch.rand(_FEATURES, generator=generator)
        levels = -process.snrs.double().cpu().log() / 8
        features = math.sqrt(2) * torch.cos(2 * math.pi * (levels[:, None] * frequencies + phases))
        dtype = torch.get_default_dtype()
        self.register_buffer("features", features.to(dtype), persistent=False)
        self.register_buffer("probabilities", probabilities.to(dtype), persistent=False)
        self.coefficients = nn.Parameter(torch.zeros(_FEATURES))

    def log_losses(self) -> Tensor:
        """u of all timesteps, [T]."""
        return self.features @ self.coefficients

    def forward(self, losses: Tensor, timesteps: Tensor) -> Tensor:
        """What is minimised, [B]: the weighted losses, of the network alone, and L / e^u + u, of u alone.

        The network's gradient is that of L / e^u times one number for all, so that the weights are 1 on average over
        the timesteps of the training. Adam does not notice, but the limit of a gradient's norm would.

        Args:
            losses: of each slice, [B].
            timesteps: of each slice, long [B].
        """
        u = self.log_losses()
        weights = (-u).exp()
        relative = (weights / (weights * self.probabilities).sum()).detach()
        return losses * relative[timesteps] + losses.detach() * weights[timesteps] + u[timesteps]
