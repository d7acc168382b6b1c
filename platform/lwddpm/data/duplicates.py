"""Exact and near duplicates, found without comparing all pairs.

Slices are the same picture when their decoded pixels are equal (SHA-256), or when their perceptual hashes differ
in few bits *and* their pixels correlate (the hash alone confuses smooth pictures). Mirrored copies count
as copies, because training flips slices.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

HASH_SIDE = 16  # 256 bits
MAX_DISTANCE = 16  # bits
MIN_CORRELATION = 0.9
PIXELS_PER_BATCH = 1 << 22
CONTENT_LEVELS = 4  # grey levels of 256: more than what JPEG makes of a uniform slice
FAINT_LEVELS = 24  # less than the faintest of 3,264 published slices shows (40)
CONTENT_AREA = 0.02  # share of a slice's pixels: more than a burnt-in letter, less than the smallest slice of a head


def are_blank(images: np.ndarray, levels: int = CONTENT_LEVELS) -> np.ndarray:
    """Which slices are without content: nearly all their pixels have one grey value.

    Args:
        images: uint8 [N, S, S].
        levels: grey levels by which content differs; with FAINT_LEVELS: which slices are nearly without content.

    Returns:
        bool [N].
    """
    median = np.median(images, axis=(1, 2), keepdims=True)
    differs = np.abs(images.astype(np.float32) - median) > levels
    return differs.mean(axis=(1, 2)) < CONTENT_AREA


@lru_cache
def _dct_basis(size: int) -> np.ndarray:
    """The HASH_SIDE lowest type-II DCT basis functions on `size` samples, float32 [HASH_SIDE, size]."""
    frequency, sample = np.arange(HASH_SIDE)[:, None], np.arange(size)[None, :]
    return np.cos(np.pi * frequency * (sample + 0.5) / size).astype(np.float32)


def perceptual_hashes(images: np.ndarray) -> np.ndarray:
    """DCT hashes of slices and of their mirror images.

    A bit says whether one of the 16x16 lowest DCT coefficients lies above their median (the pHash of
    Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", with 256 bits).

    Args:
        images: uint8 [N, S, S] with S >= 16.

    Returns:
        uint64 [N, 2, 4]: the 256 bits of each slice, and those of its left-right mirror image.
    """
    basis = _dct_basis(images.shape[-1])
    coefficients = basis @ images.astype(np.float32) @ basis.T
    mirrored = coefficients * (-1.0) ** np.arange(HASH_SIDE)  # odd horizontal frequencies change sign
    both = np.stack([coefficients, mirrored], axis=1).reshape(len(images), 2, HASH_SIDE**2)
    return np.packbits(both > np.median(both, axis=-1, keepdims=True), axis=-1).view(np.uint64)


def candidate_pairs(hashes: np.ndarray, max_distance: int = MAX_DISTANCE) -> np.ndarray:
    """All pairs of hashes within `max_distance` bits.

    Multi-index search (Norouzi et al. 2012): of max_distance + 1 disjoint bands of bits, two such hashes agree
    in at least one, so only slices that share a band are compared.

    Args:
        hashes: uint64 [N, 2, 4] from `perceptual_hashes`.

    Returns:
        int64 [P, 3], sorted and unique: i < j, and 1 if slice j matches mirrored.
    """
    num = len(hashes)
    entries = hashes.transpose(1, 0, 2).reshape(2 * num, 4)  # plain first, then mirrored
    bits = np.unpackbits(entries.view(np.uint8), axis=-1)
    close_pairs = [np.empty((0, 3), np.int64)]
    for band in range(max_distance + 1):
        # Strided, so that no band holds only low frequencies, which all heads share.
        packed = np.ascontiguousarray(np.packbits(bits[:, band :: max_distance + 1], axis=-1))
        _, keys = np.unique(packed.view(f"V{packed.shape[1]}").ravel(), return_inverse=True)
        order = np.argsort(keys, kind="stable")
        keys, start = keys[order], np.arange(2 * num)
        for offset in range(1, 2 * num):
            start = start[start + offset < 2 * num]
            start = start[keys[start] == keys[start + offset]]
            if not len(start):
                break
            # The order is stable and plain entries come first, so `one` is the smaller entry.
            one, two = order[start], order[start + offset]
            compare = (one < num) & (one < two % num)
            one, two = one[compare], two[compare]
            close = np.bitwise_count(entries[one] ^ entries[two]).sum(axis=-1) <= max_distance
            one, two = one[close], two[close]
            close_pairs.append(np.stack([one, two % num, two // num], axis=1))
    return np.unique(np.concatenate(close_pairs), axis=0)


def verified_pairs(
    pairs: np.ndarray,
    read: Callable[[Sequence[int]], np.ndarray],
    image_size: int,
    min_correlation: float = MIN_CORRELATION,
) -> np.ndarray:
    """The candidate pairs whose pixels correlate.

    Args:
        pairs: int [P, 3] from `candidate_pairs`.
        read: gives the slices of some indices, uint8 [n, S, S].
        image_size: S; with it the pairs are read in batches that fit in memory.
        min_correlation: least Pearson correlation of the pixels.

    Returns:
        The rows of `pairs` that pass.
    """
    keep = [np.empty((0, 3), np.int64)]
    step = max(1, PIXELS_PER_BATCH // image_size**2)
    for batch in (pairs[start : start + step] for start in range(0, len(pairs), step)):
        wanted, position = np.unique(batch[:, :2], return_inverse=True)
        images = read(wanted.tolist()).astype(np.float32)
        position = position.reshape(-1, 2)
        one, two = images[position[:, 0]], images[position[:, 1]]
        mirrored = batch[:, 2] == 1
        two[mirrored] = two[mirrored, :, ::-1]
        keep.append(batch[correlation(one, two) >= min_correlation])
    return np.concatenate(keep)


def correlation(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Pearson correlation of paired slices [n, S, S]; 1 for two constant slices, 0 for one."""
    one = one - one.mean(axis=(1, 2), keepdims=True)
    two = two - two.mean(axis=(1, 2), keepdims=True)
    power_one, power_two = np.square(one).sum(axis=(1, 2)), np.square(two).sum(axis=(1, 2))
    scale = np.sqrt(power_one * power_two)
    flat = (power_one == 0) & (power_two == 0)
    return np.where(flat, 1.0, (one * two).sum(axis=(1, 2)) / np.where(scale == 0, 1.0, scale))


def connected_groups(num: int, *links: np.ndarray) -> np.ndarray:
    """Number the groups that links between slices form.

    Args:
        num: number of slices.
        links: int [P, 2] arrays of pairs of slices that belong together.

    Returns:
        Group of each slice, int64 [num], numbered in the order of first appearance.
    """
    pairs = np.concatenate([np.empty((0, 2), np.int64), *links])
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(num, num))
    _, component = connected_components(graph, directed=False)
    _, first, component = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[component]


def equal_links(keys: Sequence[str | bytes | None]) -> np.ndarray:
    """Link each position to the first one with an equal key, int64 [P, 2]; None equals nothing."""
    first: dict[str | bytes, int] = {}
    links = [(first.setdefault(key, i), i) for i, key in enumerate(keys) if key is not None]
    return np.array([(one, two) for one, two in links if one != two], dtype=np.int64).reshape(-1, 2)
