"""Moving averages of the weights: what is sampled, evaluated and registered."""

import copy

import numpy as np
import torch
from torch import nn


class ExponentialMovingAverage:
    """A second copy of a network that follows the first.

    The decay warms up as min(decay, (1 + n) / (10 + n)) over n updates: with a constant decay the copy would
    keep decay^n of the random initial weights (37 % after 1000 steps at 0.999).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    def decay_at(self, num_updates: int) -> float:
        """Decay of update number `num_updates`, counted from 0."""
        return min(self.decay, (1 + num_updates) / (10 + num_updates))

    @torch.no_grad()
    def update(self, model: nn.Module, num_updates: int) -> None:
        """Move towards `model`, which has the same parameters in the same order."""
        weight = 1 - self.decay_at(num_updates)
        torch._foreach_lerp_(list(self.model.parameters()), [p.detach() for p in model.parameters()], weight)


class PowerFunctionAverage(ExponentialMovingAverage):
    """An average whose reach grows with the training: Karras et al. 2024 (arXiv:2312.02696), eq. 2.

    Step k of n weighs in proportion to k^gamma, so that the standard deviation of the steps in it is always the same
    share of the training so far. Nothing of the initial weights is left after the first update.

    Args:
        length: that share, from 0 to 0.28; short ones follow closely.
    """

    def __init__(self, model: nn.Module, length: float) -> None:
        super().__init__(model, decay=1)
        self.power = power_of(length)

    def decay_at(self, num_updates: int) -> float:
        return (1 - 1 / (num_updates + 1)) ** (self.power + 1)


def average_name(length: float | None) -> str:
    """How files and metrics name an average of `training.ema_lengths`, or that of `ema_decay` (None)."""
    return "ema" if length is None else f"ema_{length}"


def power_of(length: float) -> float:
    """gamma of a relative length: Karras et al. 2024, algorithm 2, which inverts eq. 126.

    length^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), of which the root with gamma >= 0 is taken.
    """
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())
