"""Noise levels by their definition, in float64."""

import math

import torch
from torch import Tensor

T = 1000


def reference_abar(schedule: str) -> Tensor:
    """Float64 [T + 1]; the last entry, index -1, is the clean slice."""
    if schedule == "linear":
        betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    else:
        f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)]
        betas = torch.tensor([min(1 - f[t + 1] / f[t], 0.999) for t in range(T)], dtype=torch.float64)
    return torch.cat([(1 - betas).cumprod(0), torch.ones(1, dtype=torch.float64)])
