"""Pictures that a set of slices holds more than once, by the audit's correlation: what a perceptual hash misses.

Copies that were shifted by a pixel, turned or re-contrasted have other hashes (`data.duplicates`). The time grows with
the square of the number of slices.
"""

import numpy as np

from lwddpm.audit.correlation import CorrelationSearch
from lwddpm.progress import bar

MIN_CORRELATION = 0.985  # at 64 x 64 neighbouring slices of one person mostly lie below
_AT_A_TIME = 64


def near_copies(images: np.ndarray) -> np.ndarray:
    """Each slice with the other one that it correlates most with, where that is more than `MIN_CORRELATION`.

    Args:
        images: uint8 [N, S, S], S from 16.

    Returns:
        int64 [P, 2], i < j, sorted and unique.
    """
    found = [np.empty((0, 2), np.int64)]
    if len(images) < 2:
        return found[0]
    search = CorrelationSearch(images)
    with bar("comparing slices", len(images)) as progress:
        for first in range(0, len(images), _AT_A_TIME):
            rows = np.arange(first, min(first + _AT_A_TIME, len(images)))
            match = search(images[rows], but_for=rows)
            alike = match.score > MIN_CORRELATION
            found.append(np.sort(np.stack([rows[alike], match.row[alike]], axis=1), axis=1))
            progress.advance_to(int(rows[-1]) + 1)
    return np.unique(np.concatenate(found), axis=0)
