"""From a job's `model` section to a network."""

import torch
from torch import nn

from lwddpm.conditions import Vocabulary
from lwddpm.config import ModelConfig
from lwddpm.families import ADVERSARIAL
from lwddpm.models.gan import Generator
from lwddpm.models.unet import LightweightUNet


def build_model(config: ModelConfig, image_size: int | None = None, vocabulary: Vocabulary | None = None) -> nn.Module:
    """The network that is sampled, evaluated and registered, initialised from torch's global generator.

    Args:
        config: a U-Net's, or a GAN's generator's.
        image_size: height and width of the slices; a U-Net takes any, a generator is built for one.
        vocabulary: of the conditions that it is told of; None: none.

    Raises:
        ValueError: a generator without an image_size, or for one that is no power of two.
    """
    if config.family not in ADVERSARIAL:
        return LightweightUNet(config, vocabulary)
    if image_size is None:
        raise ValueError(f"a generator of family {config.family} is built for one image_size, got none")
    return Generator(config, image_size, vocabulary)


def count_parameters(config: ModelConfig, image_size: int | None = None, vocabulary: Vocabulary | None = None) -> int:
    """Number of parameters, without allocating them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(config, image_size, vocabulary).parameters())
