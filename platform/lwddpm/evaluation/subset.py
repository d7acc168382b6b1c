"""Which slices of a split stand for all of it. Never the first ones: rows are ordered by source, that is by class."""

from typing import TypeVar

import numpy as np
from torch import Tensor

Rows = TypeVar("Rows", np.ndarray, Tensor)

SUBSET_SEED = 0  # of every draw of real slices; fixed, so that floors and caches outlive a change of sampling.seed


def random_subset(rows: Rows, num: int | None) -> Rows:
    """All rows, such as images or their features, or `num` drawn at random, always the same ones, in their order."""
    if num is None or num >= len(rows):
        return rows
    return rows[np.sort(np.random.default_rng(SUBSET_SEED).choice(len(rows), num, replace=False))]


def evenly_spread(images: np.ndarray, num: int) -> np.ndarray:
    """All images, or `num` of them from the first to the last, evenly apart."""
    return images[np.linspace(0, len(images) - 1, min(num, len(images))).astype(int)]


def distinct(images: np.ndarray) -> np.ndarray:
    """Without copies: the first one of pixel-identical images, in their order."""
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    return images[np.sort(first)]
