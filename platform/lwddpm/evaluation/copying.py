"""Does a set of slices consist of training slices? A cheap look at distances of pixels, for wherever models are ranked.

Copies of training slices score better than any honest model in a Fréchet distance, below the floor of real slices. Here
a slice counts as near where its nearest training slice is less than half as far away as for the median of real held-out
slices: blurred slices, which are near to everything, come to about 0.7 of it. Copies that were shifted, turned or
re-contrasted are not found: that is what an audit is for.
"""

from typing import NamedTuple

import numpy as np
import torch

from lwddpm.evaluation.intervals import of_share

NEAR = 0.5  # of the held-out slices' median distance
_AT_ONCE, _TRAIN_AT_ONCE = 256, 4096
COPIES = "returns training slices"  # by which the warning is known
COPIED_SHARE = "copied_share"  # what the share is called wherever figures are told


class Copying(NamedTuple):
    """How many slices are near to a training slice.

    Attributes:
        near: of `n` slices.
        expected: of `n_expected` held-out slices.
    """

    near: int
    n: int
    expected: int
    n_expected: int

    @property
    def share(self) -> float:
        """Of the slices those that are near."""
        return self.near / self.n

    @property
    def floor(self) -> float:
        """Of the held-out slices those that are near."""
        return self.expected / self.n_expected

    @property
    def copies(self) -> bool:
        """Whether more are near than among held-out slices, beyond what chance gives (95 % intervals apart)."""
        return of_share(self.near, self.n)[0] > of_share(self.expected, self.n_expected)[1]

    @property
    def warning(self) -> str | None:
        """What people are told; None where there is nothing to tell."""
        if not self.copies:
            return None
        return (
            f"the model {COPIES}: {self.near} of {self.n} slices are nearer to one than half of the usual distance of "
            f"held-out slices, of which {self.expected} of {self.n_expected} are; good figures then mean nothing"
        )


def as_told(share: float | None, floor: float | None, n: int) -> Copying | None:
    """The look that a copied share and its floor come from; None where they were not told.

    Args:
        n: slices drawn, and held-out ones, that they are shares of.
    """
    if share is None or floor is None:
        return None
    return Copying(round(share * n), n, round(floor * n), n)


def nearest_distances(images: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Root mean square distance of each slice to its nearest training slice, in grey levels, float32 [N].

    Args:
        images, train: uint8 [N, S, S] and [M, S, S].
    """
    queries = torch.from_numpy(np.array(images)).flatten(1).float()
    nearest = torch.full((len(queries),), torch.inf)
    for first in range(0, len(train), _TRAIN_AT_ONCE):  # so that memory does not grow with the training split
        bank = torch.from_numpy(np.array(train[first : first + _TRAIN_AT_ONCE])).flatten(1).float()
        of_bank = torch.cat([torch.cdist(part, bank).min(1).values for part in queries.split(_AT_ONCE)])
        nearest = torch.minimum(nearest, of_bank)
    distances: np.ndarray = (nearest / queries.shape[1] ** 0.5).numpy()
    return distances


def nearest_median(images: np.ndarray, train: np.ndarray) -> float:
    """Median of `nearest_distances`."""
    return float(np.median(nearest_distances(images, train)))


def copying(images: np.ndarray, held_out: np.ndarray, train: np.ndarray) -> Copying:
    """Look at slices as a model draws them.

    Args:
        images: uint8 [N, S, S], to be judged.
        held_out: real slices that the model never saw, uint8 [H, S, S].
        train: those that it was trained on, uint8 [M, S, S].
    """
    usual = nearest_distances(held_out, train)
    limit = NEAR * float(np.median(usual))
    near = int((nearest_distances(images, train) < limit).sum())
    return Copying(near, len(images), int((usual < limit).sum()), len(usual))
