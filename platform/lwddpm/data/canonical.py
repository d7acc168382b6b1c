"""Voxels in the closest canonical orientation (RAS+), whatever order a file or a series has them in."""

from typing import NamedTuple

import numpy as np

from lwddpm.data.sources import UnusableFile

MAX_VOXELS = 2**29  # of one volume: twice the largest that 7 T scanners make


class Grid(NamedTuple):
    """The voxels of a volume in the closest canonical orientation: axes to the right, the front and the top.

    Attributes:
        shape: voxels along each axis.
        spacing_mm: distance of voxels along each axis.
        centre_mm: world coordinate along each axis of the first slice across it, at the slice's centre.
        step_mm: by how much that coordinate grows from slice to slice; less than the spacing where the grid is oblique.
        num_volumes: how many volumes of this grid there are: of a 4D file, or in a series; 1 of others.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    centre_mm: tuple[float, float, float]
    step_mm: tuple[float, float, float]
    num_volumes: int


def canonical_grid(affine: np.ndarray, shape: tuple[int, int, int], num_volumes: int = 1) -> Grid:
    """The grid of voxels that are stored with this shape and affine (to right, front, top in mm).

    Raises:
        UnusableFile: there are too many of them, or the affine gives no orientation.
    """
    import nibabel  # takes 0.2 s, which folders of images do without

    check_num_voxels(shape)
    orientation = nibabel.io_orientation(affine) if np.isfinite(affine).all() else np.array([[np.nan, 0]])
    if not np.isfinite(orientation).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UnusableFile("its header gives the voxels no usable orientation (affine)")
    affine = affine @ nibabel.orientations.inv_ornt_aff(orientation, shape)
    order = np.argsort(orientation[:, 0])
    canonical = np.array(shape)[order]
    middle = affine[:3, :3] * (canonical - 1) / 2
    centre = affine[:3, 3] + middle.sum(axis=1) - np.diag(middle)
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    sides = int(canonical[0]), int(canonical[1]), int(canonical[2])
    return Grid(sides, _three(spacing), _three(centre), _three(np.diag(affine)[:3]), num_volumes)


def check_num_voxels(shape: tuple[int, ...]) -> None:
    """Refuse a volume that no scanner makes and no memory holds.

    Raises:
        UnusableFile: it has too many voxels.
    """
    if np.prod(shape, dtype=np.float64) > MAX_VOXELS:
        raise UnusableFile(f"{' x '.join(map(str, shape))} voxels: more than {MAX_VOXELS:,} in a volume")


def to_canonical(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The same voxels [X, Y, Z] with axes to the right, the front and the top; nothing is interpolated."""
    import nibabel

    turned: np.ndarray = nibabel.apply_orientation(voxels, nibabel.io_orientation(affine))
    return turned


def finite(voxels: np.ndarray) -> np.ndarray:
    """Integers as they are, all else as float32, where what is not finite becomes the lowest value.

    Raises:
        UnusableFile: no value is finite.
    """
    if voxels.dtype.kind in "iu":
        return voxels
    with np.errstate(over="ignore"):
        voxels = voxels.astype(np.float32)
    is_finite = np.isfinite(voxels)
    if not is_finite.any():
        raise UnusableFile("has no finite values")
    if not is_finite.all():
        voxels[~is_finite] = voxels[is_finite].min()
    return voxels


def _three(values: np.ndarray) -> tuple[float, float, float]:
    rounded = [round(float(value), 4) + 0.0 for value in values]  # headers hold float32
    return rounded[0], rounded[1], rounded[2]
