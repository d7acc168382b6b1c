"""NIfTI files: what their headers say, and their voxels in the closest canonical orientation (RAS+).

Of a header only the grid, the numbers' type and their scale are looked at, and whether it bears a mark of this
platform; its other texts and extensions never are.
"""

import io
import logging
import math
import os
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lwddpm.data.canonical import Grid, canonical_grid, check_num_voxels, finite, to_canonical
from lwddpm.data.sources import UnusableFile
from lwddpm.marks.mark import drawn_by
from lwddpm.marks.nifti import mark_of

SUFFIXES = (".nii", ".nii.gz")
DEFLATE_RATIO = 1032  # the most that gzip can compress: what a header promises beyond it is not in the file


@lru_cache(maxsize=100_000)  # a source is scanned several times
def read_grid(path: Path, size: int, time: int, synthetic: bool = False) -> Grid | str:
    """The grid of a file from its header, or why it cannot be used.

    Args:
        path: the file.
        size, time: its size and time, which tell an earlier file of that name apart.
        synthetic: whether slices that models of this platform have drawn can be used.
    """
    try:
        image = _open(path)
        if not synthetic and (mark := mark_of(image)):
            return drawn_by(mark)
        return _grid(image, size, compressed=path.name.lower().endswith(".gz"))
    except Exception as error:
        return reason_of(error, size)


def read_voxels(path: Path, volume: int) -> np.ndarray:
    """One volume of a file [X, Y, Z] in canonical orientation, slope and intercept applied.

    Integers without a scale stay as they are, all else is float32.

    Raises:
        UnusableFile: it is damaged or has no finite values.
    """
    try:
        image = _open(path)
        dimensions = len(image.shape)
        voxels = np.asanyarray(image.dataobj[..., volume] if _num_volumes(image.shape) > 1 else _at_once(image, path))
        voxels = voxels.reshape((*image.shape, 1)[:3] if dimensions < 3 else image.shape[:3])
        voxels = to_canonical(voxels, image.affine)
    except Exception as error:
        raise UnusableFile(reason_of(error, path.stat().st_size)) from None
    return finite(voxels)


def _at_once(image: Any, path: Path) -> Any:
    """The voxels of a file, inflated in one call: Python's gzip module does it in thousands."""
    proxy = image.dataobj
    if not path.name.lower().endswith(".gz"):
        return proxy
    promised = proxy.offset + math.prod(proxy.shape) * proxy.dtype.itemsize
    content, packed = b"", path.read_bytes()
    while packed and len(content) < promised:  # parallel programs write gzip files of several parts
        part = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        content += part.decompress(packed, promised - len(content))
        packed = part.unused_data
    return type(proxy)(io.BytesIO(content), (proxy.shape, proxy.dtype, proxy.offset, proxy.slope, proxy.inter))


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
    dtype, whole = image.get_data_dtype(), image.shape
    if dtype.kind not in "iuf" or dtype.names:
        raise UnusableFile(f"voxels of type {dtype.name if not dtype.names else 'colour'} are no intensities")
    if len(whole) < 2 or min(whole) < 1 or math.prod(whole[3:]) != max(whole[3:], default=1):
        got = " x ".join(map(str, whole)) or "none"
        raise UnusableFile(f"must have two, three or four dimensions, got {got}")
    sides = [int(side) for side in (*whole, 1)]
    shape = sides[0], sides[1], sides[2]
    check_num_voxels(shape)
    promised = image.dataobj.offset + math.prod(whole) * dtype.itemsize
    if promised > size * (DEFLATE_RATIO if compressed else 1):
        raise UnusableFile("truncated: its header promises more voxels than the file can hold")
    return canonical_grid(np.asarray(image.affine, np.float64), shape, _num_volumes(whole))
