"""Noise of which each image has its own stream, so that it does not depend on its batch or shard."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lwddpm.diffusion.editing import Between, spherical


def noise_streams(seed: int, indices: Sequence[int]) -> list[torch.Generator]:
    """One generator for each image. They live on the CPU, so that images are the same on every device.

    torch keeps 32 bits of a CPU seed: counting up from a hash of `seed` never repeats one among 2^32 images.
    """
    first = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return [torch.Generator().manual_seed((first + index) % 2**32) for index in indices]


class StreamsBetween(list[torch.Generator]):
    """Streams of the frames between two drawings: each frame reads its own copies of the streams of both ends.

    Attributes:
        of_the_last: those of the last frame; the list itself has those of the first.
        fractions: how far each frame is on its way, float64 [B].
    """

    def __init__(self, between: Between, frames: Sequence[int]) -> None:
        first, last = between.seeds
        super().__init__(noise_streams(first, [0])[0] for _ in frames)
        self.of_the_last = [noise_streams(last, [0])[0] for _ in frames]
        self.fractions = between.fractions(torch.tensor(frames))


def draw_noise(shape: tuple[Any, ...], streams: list[torch.Generator], device: torch.device) -> Tensor:
    """Standard normal noise, each image's from its own stream."""
    from diffusers.utils.torch_utils import randn_tensor

    drawn: Tensor = randn_tensor(shape, list(streams), device)
    if isinstance(streams, StreamsBetween):
        return spherical(drawn, randn_tensor(shape, streams.of_the_last, device), streams.fractions)
    return drawn
