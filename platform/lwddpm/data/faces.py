"""Cropping faces: of a volume of a head what lies below and in front of the brain becomes black.

The brain is found by intensity alone: the largest connected part of what is bright, once thin bridges (meninges,
vessels, optic nerves) are eroded away; of several thresholds and depths the first that leaves something of a brain's
size. That needs no weights and no template; the libraries that remove faces need one or the other, or a brain mask,
from elsewhere (pydeface FSL, caideface HD-BET, quickshear a mask). It is coarse on purpose: all goes that has no brain
in front of it and below it, neck and forehead included.
"""

import numpy as np

from lwddpm.data.sources import UnusableFile

NO_BRAIN = "no brain was found by intensity, so its face cannot be cropped (data.faces)"
COARSE_MM = 4.0
BRIGHT = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)  # thresholds, of the median of what is brighter than the mean
DEPTHS_MM = (4, 5, 6, 7, 8, 9, 10, 12)  # of erosion
BRAIN_ML = (700.0, 1900.0)  # volumes of children's and adults' brains; thresholds leave some of the rim out
SKULL_MM = 30.0  # the most that lies beside, behind and above a brain
BRAIN_MM = (165.0, 200.0, 155.0)  # the most that one measures to the right, the front and the top
MARGIN_MM = 10.0  # what is kept below and in front of the mask, whose rim is uncertain


def crop_face(voxels: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """A copy of a volume [X, Y, Z] with axes to the right, the front and the top, without its face.

    What is removed gets the lowest value of the volume.

    Raises:
        UnusableFile: no brain is found.
    """
    steps = [max(1, round(COARSE_MM / spacing)) for spacing in spacing_mm]
    coarse_mm = [step * spacing for step, spacing in zip(steps, spacing_mm, strict=True)]
    brain = find_brain(_means(voxels, steps), coarse_mm)
    if brain is None:
        raise UnusableFile(NO_BRAIN)
    beside = kept_beside(brain, coarse_mm[1], coarse_mm[2])
    kept = beside.repeat(steps[1], axis=0).repeat(steps[2], axis=1)[: voxels.shape[1], : voxels.shape[2]]
    return np.where(kept, voxels, voxels.min())


def find_brain(voxels: np.ndarray, spacing_mm: list[float]) -> np.ndarray | None:
    """A mask of the brain's bulk in a coarse volume, bool [X, Y, Z]; None where nothing has a brain's size."""
    from scipy import ndimage

    head: np.ndarray = voxels > voxels.mean()
    bright = voxels[head]
    if not bright.size:
        return None
    ml = float(np.prod(spacing_mm)) / 1000
    for share in BRIGHT:
        mask = voxels > share * np.median(bright)
        depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
        for depth_mm in DEPTHS_MM:
            parts, num = ndimage.label(depth > depth_mm)
            if not num:
                break
            sizes = np.bincount(parts.ravel())
            sizes[0] = 0
            if not BRAIN_ML[0] / 3 <= sizes.max() * ml <= BRAIN_ML[1]:
                continue
            beyond = ndimage.distance_transform_edt(parts != sizes.argmax(), sampling=spacing_mm)
            brain: np.ndarray = mask & (beyond <= depth_mm + 1)
            if BRAIN_ML[0] <= brain.sum() * ml <= BRAIN_ML[1] and _fits(brain, head, spacing_mm):
                return brain
    return None


def kept_beside(brain: np.ndarray, front_mm: float, top_mm: float) -> np.ndarray:
    """Where, seen from the side, nothing is removed: some brain lies as far in front and as far below; bool [Y, Z].

    Args:
        brain: mask [X, Y, Z].
        front_mm, top_mm: distance of its voxels to the front and to the top.
    """
    silhouette = np.asarray(brain.any(axis=0))
    beside: np.ndarray = np.maximum.accumulate(silhouette[::-1], axis=0)[::-1]  # some brain at least as far in front
    beside = np.maximum.accumulate(beside, axis=1)  # and at least as far below
    behind = (np.arange(beside.shape[0]) - round(MARGIN_MM / front_mm)).clip(min=0)
    above = (np.arange(beside.shape[1]) + round(MARGIN_MM / top_mm)).clip(max=beside.shape[1] - 1)
    kept: np.ndarray = beside[np.ix_(behind, above)]
    return kept


def _means(voxels: np.ndarray, steps: list[int]) -> np.ndarray:
    """Means over blocks of `steps` voxels, float32; volumes that are no multiple go on with their last voxels."""
    padded = np.pad(voxels, [(0, -side % step) for side, step in zip(voxels.shape, steps, strict=True)], mode="edge")
    x, y, z = (side // step for side, step in zip(padded.shape, steps, strict=True))
    blocks = padded.reshape(x, steps[0], y, steps[1], z, steps[2])
    means: np.ndarray = blocks.mean(axis=(1, 3, 5), dtype=np.float32)
    return means


def _fits(brain: np.ndarray, head: np.ndarray, spacing_mm: list[float]) -> bool:
    """Whether a part of a head is no larger than a brain, and lies where one does."""
    for axis, (spacing, most) in enumerate(zip(spacing_mm, BRAIN_MM, strict=True)):
        others = tuple(other for other in range(3) if other != axis)
        inside = np.flatnonzero(brain.any(axis=others))
        around = np.flatnonzero(head.mean(axis=others) > 0.01)
        first, last = int(inside[0]), int(inside[-1])
        below, above = (first - int(around[0])) * spacing, (int(around[-1]) - last) * spacing
        beside = (below, above) if axis == 0 else (below,) if axis == 1 else (above,)
        if (last + 1 - first) * spacing > most or max(beside) > SKULL_MM:
            return False
    return True
