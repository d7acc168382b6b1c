"""NIfTI files: what their headers say, and their voxels in the closest canonical orientation (RAS+).

Of a header only the grid, the numbers' type and their scale are looked at; its texts and extensions never are.
"""

import logging
import math
import os
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lwddpm.data.sources import UnusableFile

SUFFIXES = (".nii", ".nii.gz")
MAX_VOXELS = 2**29  # of one volume: twice the largest that 7 T scanners make
DEFLATE_RATIO = 1032  # the most that gzip can compress: what a header promises beyond it is not in the file


class Grid(NamedTuple):
    """The voxels of a file in the closest canonical orientation: axes to the right, the front and the top.

    Attributes:
        shape: voxels along each axis.
        spacing_mm: distance of voxels along each axis.
        centre_mm: world coordinate along each axis of the first slice across it, at the slice's centre.
        step_mm: by how much that coordinate grows from slice to slice; less than the spacing where the grid is oblique.
        num_volumes: of a 4D file; 1 of others.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    centre_mm: tuple[float, float, float]
    step_mm: tuple[float, float, float]
    num_volumes: int


@lru_cache(maxsize=100_000)  # a source is scanned several times
def read_grid(path: Path, size: int, time: int) -> Grid | str:
    """The grid of a file from its header, or why it cannot be used.

    Args:
        path: the file.
        size, time: its size and time, which tell an earlier file of that name apart.
    """
    try:
        return _grid(_open(path), size, compressed=path.name.lower().endswith(".gz"))
    except Exception as error:
        return reason_of(error, size)


def read_voxels(path: Path, volume: int) -> np.ndarray:
    """One volume of a file [X, Y, Z] in canonical orientation, slope and intercept applied.

    Integers without a scale stay as they are, all else is float32.

    Raises:
        UnusableFile: it is damaged or has no finite values.
    """
    import nibabel

    try:
        image = _open(path)
        dimensions = len(image.shape)
        voxels = np.asanyarray(image.dataobj[..., volume] if _num_volumes(image.shape) > 1 else image.dataobj)
        voxels = voxels.reshape((*image.shape, 1)[:3] if dimensions < 3 else image.shape[:3])
        voxels = nibabel.apply_orientation(voxels, nibabel.io_orientation(image.affine))
    except Exception as error:
        raise UnusableFile(reason_of(error, path.stat().st_size)) from None
    if voxels.dtype.kind in "iu":
        return voxels
    with np.errstate(over="ignore"):
        voxels = voxels.astype(np.float32)
    finite = np.isfinite(voxels)
    if not finite.any():
        raise UnusableFile("has no finite values")
    if not finite.all():
        voxels[~finite] = voxels[finite].min()
    return voxels


def reason_of(error: Exception, size: int) -> str:
    """Why a file cannot be used. Messages of the libraries are not repeated: they name the file."""
    if isinstance(error, UnusableFile):
        return str(error)
    if size == 0:
        return "empty file"
    if isinstance(error, OSError) and error.errno is not None:
        return f"unreadable: {os.strerror(error.errno)}"
    if isinstance(error, EOFError | zlib.error | OSError | ValueError):
        return "damaged or truncated"
    return f"not a NIfTI file, or a damaged one ({type(error).__name__})"


def _open(path: Path) -> Any:
    import nibabel  # takes 0.2 s, which folders of other formats do without

    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what is wrong with a file is why it is rejected
    return nibabel.load(path, mmap=False)  # a mapped file that is cut while it is read ends the process


def _num_volumes(shape: tuple[int, ...]) -> int:
    return math.prod(shape[3:])


def _grid(image: Any, size: int, *, compressed: bool) -> Grid:
    import nibabel

    dtype, whole = image.get_data_dtype(), image.shape
    if dtype.kind not in "iuf" or dtype.names:
        raise UnusableFile(f"voxels of type {dtype.name if not dtype.names else 'colour'} are no intensities")
    if len(whole) < 2 or min(whole) < 1 or math.prod(whole[3:]) != max(whole[3:], default=1):
        sides = " x ".join(map(str, whole))
        raise UnusableFile(f"must have two, three or four dimensions, got {sides or 'none'}")
    shape = tuple(int(side) for side in (*whole, 1)[:3])
    if math.prod(shape) > MAX_VOXELS:
        raise UnusableFile(f"{' x '.join(map(str, shape))} voxels: more than {MAX_VOXELS:,} in a volume")
    promised = image.dataobj.offset + math.prod(whole) * dtype.itemsize
    if promised > size * (DEFLATE_RATIO if compressed else 1):
        raise UnusableFile("truncated: its header promises more voxels than the file can hold")
    affine = np.asarray(image.affine, np.float64)
    orientation = nibabel.io_orientation(affine) if np.isfinite(affine).all() else np.array([[np.nan, 0]])
    if not np.isfinite(orientation).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UnusableFile("its header gives the voxels no usable orientation (affine)")
    affine = affine @ nibabel.orientations.inv_ornt_aff(orientation, shape)
    order = np.argsort(orientation[:, 0])
    canonical = np.array(shape)[order]
    middle = affine[:3, :3] * (canonical - 1) / 2
    centre = affine[:3, 3] + middle.sum(axis=1) - np.diag(middle)
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))

    def three(values: np.ndarray) -> tuple[float, float, float]:
        rounded = [round(float(value), 4) + 0.0 for value in values]  # headers hold float32
        return rounded[0], rounded[1], rounded[2]

    return Grid(
        (int(canonical[0]), int(canonical[1]), int(canonical[2])),
        three(spacing),
        three(centre),
        three(np.diag(affine)[:3]),
        _num_volumes(whole),
    )
