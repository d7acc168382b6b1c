"""The prior of a training: from its training slices, calibrated for its network."""

import numpy as np
import torch
from torch import nn

from lwddpm.conditions import Vocabulary
from lwddpm.config import DiffusionConfig
from lwddpm.data.store import Dataset
from lwddpm.diffusion.prior import Prior, calibrate, fit_prior, num_directions
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.evaluation.subset import random_subset
from lwddpm.training.vocabulary import told_of

FITTED_ON = 4096  # training slices: of more a random draw
_CALIBRATED_ON = 64  # slices: 16 noise levels of them take as long as ten steps of training with batches of 32


def prior_of(dataset: Dataset, diffusion: DiffusionConfig, vocabulary: Vocabulary | None = None) -> Prior | None:
    """The prior of training slices as a model sees them, or of a random draw of many; None where they are too few.

    Args:
        vocabulary: of a conditional model: its classes have components of their own.
    """
    if num_directions(dataset.num("train")) == 0:
        return None
    classes = None
    if vocabulary is not None and vocabulary.classes is not None:
        told = told_of(dataset, "train", vocabulary)[:, vocabulary.conditions.index(vocabulary.classes)]
        classes = random_subset(told, FITTED_ON)
    return fit_prior(_draw(dataset, "train", FITTED_ON), gamma=diffusion.intensity_gamma, classes=classes)


def calibrated_for(prior: Prior, network: nn.Module, diffusion: DiffusionConfig, dataset: Dataset) -> Prior:
    """The prior with what can be said of a network: on validation slices, which it has not seen, or on training slices
    where there are none.

    Args:
        prior: of the same dataset, on the network's device.
        network: in eval mode, or with the same output in any.
        diffusion: what it was trained with.
    """
    split = "validation" if dataset.num("validation") else "train"
    vocabulary = getattr(network, "vocabulary", None)
    given = None
    if vocabulary is not None:
        given = torch.from_numpy(random_subset(told_of(dataset, split, vocabulary), _CALIBRATED_ON))
    process = DiffusionProcess(diffusion).to(prior.mean.device)
    return calibrate(prior, network, process, _draw(dataset, split, _CALIBRATED_ON), given=given)


def _draw(dataset: Dataset, split: str, num: int) -> torch.Tensor:
    return torch.from_numpy(np.array(random_subset(dataset.images(split), num)))
