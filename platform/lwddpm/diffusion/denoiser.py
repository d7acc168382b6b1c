"""What samplers are told at each step: the clean slices that a network sees in noisy ones, guided and corrected.

Guidance leads away from the clean slices of a weaker network, at some noise levels:

    D = D_weak + w (D_strong - D_weak)

Both see the same noisy slices and timesteps. Where the weaker one is an earlier snapshot of the same training this is
autoguidance (Karras et al. 2024, arXiv:2406.02507): what training has corrected is corrected further. Where it is the
same network without its condition it is classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598). At high noise
guidance costs variety, and at low noise it changes little, so that an interval of noise levels is better and cheaper
(Kynkaanniemi et al. 2024, arXiv:2404.07724).

Both may act at once, each with a weight of its own: what a snapshot lacks, and what the conditions add, are two
differences, and are added up:

    D = D_snapshot + w (D_strong - D_snapshot) + (w_c - 1) (D_strong - D_nothing)
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from lwddpm.conditions import NULL
from lwddpm.config import UNGUIDED, SamplingConfig
from lwddpm.diffusion.prior import Prior
from lwddpm.diffusion.process import DiffusionProcess


class Estimator(Protocol):
    """What a sampler asks at each step."""

    @property
    def process(self) -> DiffusionProcess: ...

    def clean(self, x: Tensor, timestep: int) -> Tensor:
        """Clean slices of x at a timestep, float32 [B, 1, S, S], inside [-1, 1]."""
        ...


@dataclass(frozen=True)
class Denoiser:
    """Estimates the clean slices in noisy ones.

    Attributes:
        network: predicts from (the process's `network_input` of x_t [B, 1, S, S], timesteps [B]); on its device.
        sampling: `guidance`, `condition_guidance` and `guidance_interval`.
        weak: the network that guidance leads away from, of the same process; None: no guidance. Where it is `network`
            itself, without its conditions, both are called as one batch of twice the size.
        trusted: corrects the guided slices by how far `network` is to be believed: where noise hides a slice from it,
            nothing is known of its difference from a weaker one either.
        given: what the network is told of the slices, float32 [B, C]; None: nothing, or it has no conditions.
        given_weak: the same of the weak one.
    """

    network: nn.Module
    process: DiffusionProcess
    sampling: SamplingConfig
    weak: nn.Module | None = None
    trusted: Prior | None = None
    given: Tensor | None = None
    given_weak: Tensor | None = None

    def clean(self, x: Tensor, timestep: int) -> Tensor:
        """Clean slices of x at a timestep, float32 [B, 1, S, S], clamped to [-1, 1].

        Each network's are clamped before they are combined: with epsilon they are huge at late timesteps, and so would
        be their difference.
        """
        if self.guided_at(timestep):
            x_0 = self._guided(x, timestep).clamp(-1, 1)
        else:
            x_0 = self._predicted(self.network, x, timestep, self.given)
        if self.trusted is not None:
            signal, noise = float(self.process.signal[timestep]), float(self.process.noise[timestep])
            expected = self.trusted.expected_x_0(x, signal, noise)
            x_0 = expected.lerp(x_0, self.trusted.trust_at(timestep, len(self.process.signal))).clamp(-1, 1)
        return x_0

    def guided_at(self, timestep: int) -> bool:
        """Whether a step at a timestep calls a network more than once."""
        return calls_of_step(self.sampling, noise_level(self.process, timestep)) > 1

    def alone(self) -> "Denoiser":
        """The network without guidance."""
        return replace(self, weak=None, sampling=self.sampling.model_copy(update=UNGUIDED))

    def _guided(self, x: Tensor, timestep: int) -> Tensor:
        by_conditions = self.sampling.condition_guidance
        if self.given is not None and (self.weak is self.network or by_conditions != 1):
            both = torch.cat([self.given, torch.full_like(self.given, NULL)])
            x_0, told_nothing = self._predicted(self.network, torch.cat([x, x]), timestep, both).chunk(2)
        else:
            x_0, told_nothing = self._predicted(self.network, x, timestep, self.given), None
        result = x_0
        if self.weak is not None:
            weak = told_nothing if self.weak is self.network else None
            weak = self._predicted(self.weak, x, timestep, self.given_weak) if weak is None else weak
            result = guided(x_0, weak, self.sampling.guidance)
        if told_nothing is not None and by_conditions != 1:
            result = result + (by_conditions - 1) * (x_0 - told_nothing)
        return result

    def _predicted(self, network: nn.Module, x: Tensor, timestep: int, given: Tensor | None) -> Tensor:
        timesteps = torch.full((len(x),), timestep, device=x.device)
        known = {} if given is None else {"given": given}
        prediction = network(self.process.network_input(x, timesteps), timesteps, **known).to(x.dtype)
        return self.process.predict_x_0(x, timesteps, prediction).clamp(-1, 1)


def guided(strong: Tensor, weak: Tensor, weight: float) -> Tensor:
    """D of D_strong and D_weak, of their shape; D_strong itself, to the last bit, where w is 1 or the two are equal."""
    return weak.lerp(strong, weight)


def noise_level(process: DiffusionProcess, timestep: int) -> float:
    """sigma = sqrt(1 - abar) / sqrt(abar) of a timestep: the noise in x_t relative to the slice."""
    return float(process.noise[timestep]) / float(process.signal[timestep])


def calls_of_step(sampling: SamplingConfig, sigma: float) -> int:
    """Network calls of a step at a noise level: one, and one more for each weaker estimate that it is led away from."""
    low, high = sampling.guidance_interval or (0.0, float("inf"))
    return 1 + ((sampling.guidance != 1) + (sampling.condition_guidance != 1) if low < sigma <= high else 0)
