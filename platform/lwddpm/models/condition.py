"""How a network is told of the conditions of its slices."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lwddpm.conditions import Category, Vocabulary

_WAVES = 4  # sines and cosines of a number, whose longest wave is 16 standard deviations and whose shortest is 2


class ConditionEmbedding(nn.Linear):
    """Conditions to the sum of one vector for each: a category has one for each name, a number is a sum of waves, and
    each has a null token for slices of which it is not known.

    Vectors are about as long at the start as the sinusoidal features of the timestep that they are added to: shorter
    ones grow too slowly for short trainings (docs/conditions.md).
    """

    def __init__(self, vocabulary: Vocabulary, dim: int) -> None:
        self.sizes = tuple(
            len(condition.values) if isinstance(condition, Category) else None for condition in vocabulary.conditions
        )
        super().__init__(sum(1 + (2 * _WAVES if size is None else size) for size in self.sizes), dim, bias=False)
        nn.init.normal_(self.weight)

    def forward(self, given: Tensor) -> Tensor:
        """What `Vocabulary.assigned` gives, float32 [B, C], to float [B, dim]."""
        unknown = given.isnan()
        known = torch.where(unknown, 0, given)
        features = []
        for column, size in enumerate(self.sizes):
            if size is None:
                angles = known[:, column, None] * torch.pi * 2.0 ** torch.arange(-3, _WAVES - 3, device=given.device)
                waves = torch.cat([angles.sin(), angles.cos()], 1) * ~unknown[:, column, None]
                features += [unknown[:, column, None].to(waves.dtype), waves / _WAVES**0.5]
            else:  # position 0 is the null token's
                codes = torch.where(unknown[:, column], 0, known[:, column].long() + 1)
                features.append(F.one_hot(codes, size + 1).to(given.dtype))
        return super().forward(torch.cat(features, 1).to(self.weight.dtype))


def told(given: Tensor | None, num_images: int, vocabulary: Vocabulary, device: torch.device) -> Tensor:
    """Conditions as they are given, or null tokens, float32 [B, C]."""
    if given is not None:
        return given
    return torch.full((num_images, len(vocabulary.conditions)), torch.nan, device=device)
