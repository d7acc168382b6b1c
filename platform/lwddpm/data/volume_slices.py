"""From a volume to its slices: which are taken, and one scale, one crop and true proportions for all of them.

A slice is shown as radiologists do: front or top up; the patient's right, or front, on the left.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from lwddpm.config import DataConfig, SlicesConfig
from lwddpm.data.canonical import Grid
from lwddpm.data.decoding import on_square
from lwddpm.data.faces import crop_face
from lwddpm.data.intensity import PERCENTILES, Intensity
from lwddpm.data.sources import ScanGeometry, Slice, SliceLeftOut

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # across which a plane lies, of right, front, top
COUNTED = 1 << 16  # values at a time: as 64-bit numbers, which counting makes of them, these stay in a core's cache
LEAST_HEAD = 0.01  # share of foreground from which a slice belongs to the head
OUTSIDE, EMPTY = "slices outside of data.slices.range", "slices below data.slices.min_foreground"


@dataclass(frozen=True)
class Cut:
    """How slices are cut from volumes: the settings that all kinds of volumes have in common, see `config.data`."""

    plane: str
    slices: SlicesConfig
    intensity: Intensity
    image_size: int
    fit: str
    crop_background: bool
    faces: str = "warn"

    @classmethod
    def of(cls, data: DataConfig) -> "Cut":
        return cls(data.plane, data.slices, data.intensity, data.image_size, data.fit, data.crop_background, data.faces)

    def numbers(self, grid: Grid) -> list[int]:
        """Which slices of a volume are asked for, as far as its header tells."""
        return slice_numbers(grid, self.plane, self.slices)


class Measured(NamedTuple):
    """What the slices of a volume share.

    Attributes:
        black, white: values that become 0 and 255.
        foreground: share of foreground of each slice, float [n].
        head: first and last slice of the head.
        box: left, top, right, bottom of the head in a slice, in voxels.
    """

    black: float
    white: float
    foreground: np.ndarray
    head: tuple[int, int]
    box: tuple[int, int, int, int]


def slice_numbers(grid: Grid, plane: str, slices: SlicesConfig) -> list[int]:
    """Which slices of a volume are asked for, as far as its header tells, from 0 at its lower (back, left) end."""
    axis = AXES[plane]
    num, spacing = grid.shape[axis], grid.spacing_mm[axis]
    step = max(1.0, slices.step_mm / spacing)
    numbers = [math.floor(i * step + 0.5 - 1e-3) for i in range(math.ceil(num / step) + 1)]  # spacings are rounded
    numbers = [number for number in dict.fromkeys(numbers) if 0 <= number < num]
    if slices.range_mm is None:
        return numbers
    low, high = slices.range_mm
    return [number for number in numbers if low <= position_mm(grid, plane, number) <= high]


def position_mm(grid: Grid, plane: str, number: int) -> float:
    """World coordinate of a slice's centre across its plane."""
    axis = AXES[plane]
    return round(grid.centre_mm[axis] + number * grid.step_mm[axis], 3) + 0.0


def ready(voxels: np.ndarray, grid: Grid, cut: Cut) -> tuple[np.ndarray, Measured]:
    """A volume [X, Y, Z] as slices are taken from it, without its face where that is asked for, and what they share.

    Raises:
        UnusableFile: its face cannot be cropped.
    """
    if cut.faces == "crop":
        voxels = crop_face(voxels, grid.spacing_mm)
    return voxels, measure(voxels, cut.plane, cut.intensity)


def measure(voxels: np.ndarray, plane: str, intensity: Intensity) -> Measured:
    """What the slices of a volume [X, Y, Z] share.

    Foreground is what is brighter than the mean of the volume (Nyul and Udupa 1999, "On standardizing the MR image
    intensity scale"). By "percentiles" black is the 0.5th percentile of the volume, white the 99.5th of the foreground.
    """
    axis = AXES[plane]
    low, high = voxels.min(), voxels.max()
    mean = float(voxels.mean(dtype=np.float64))
    mask = voxels > mean
    black, white = intensity if isinstance(intensity, tuple) else (float(low), float(high))
    if intensity == "percentiles" and high > low:
        inner = percentiles(voxels, mean, low, high)
        black, white = inner if inner[0] < inner[1] else (black, white)
    others = tuple(other for other in range(3) if other != axis)
    foreground = mask.mean(axis=others)
    inside = np.flatnonzero(foreground >= LEAST_HEAD)
    head = (int(inside[0]), int(inside[-1])) if len(inside) else (0, len(foreground) - 1)
    covered = picture_of(mask.sum(axis=axis) >= max(1, LEAST_HEAD * mask.shape[axis]))
    rows, columns = (np.flatnonzero(covered.any(axis=side)) for side in (1, 0))
    box = (0, 0, covered.shape[1], covered.shape[0])
    if len(rows):
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Measured(black, white, foreground, head, box)


def take_slice(
    voxels: np.ndarray, grid: Grid, measured: Measured, number: int, cut: Cut, sequence: str | None
) -> Slice:
    """Slice `number` of a volume, resampled once, from the file's own numbers, and then made 8-bit.

    Raises:
        SliceLeftOut: `cut.slices` leaves it out.
    """
    slices, plane, size = cut.slices, cut.plane, cut.image_size
    first, last = measured.head
    share = (number - first) / max(1, last - first)
    if slices.range != (0.0, 1.0) and not slices.range[0] <= share <= slices.range[1]:
        raise SliceLeftOut(OUTSIDE)
    if measured.foreground[number] < slices.min_foreground:
        raise SliceLeftOut(EMPTY)
    axis = AXES[plane]
    picture = picture_of(np.moveaxis(voxels, axis, 0)[number]).astype(np.float32)
    digest = hashlib.sha256(b"%d %d " % picture.shape)
    digest.update(picture.tobytes())
    if cut.crop_background:
        left, top, right, bottom = measured.box
        picture = picture[top:bottom, left:right]
    sides = [spacing for i, spacing in enumerate(grid.spacing_mm) if i != axis]
    width_mm, height_mm = picture.shape[1] * sides[0], picture.shape[0] * sides[1]
    scale = size / max(width_mm, height_mm)
    shape = (
        (size, size) if cut.fit == "stretch" else (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
    )
    clipped = Image.fromarray(picture.clip(measured.black, measured.white))
    resized = np.asarray(clipped.resize(shape, Image.Resampling.LANCZOS, reducing_gap=2.0))
    contrast = measured.white - measured.black
    grey = (resized - measured.black) * (255 / contrast if contrast > 0 else 0.0)
    geometry = ScanGeometry(
        plane, sequence, position_mm(grid, plane, number), (sides[1], sides[0], grid.spacing_mm[axis])
    )
    return Slice(on_square(grey.clip(0, 255).round().astype(np.uint8), size), digest.digest(), geometry=geometry)


def picture_of(section: np.ndarray) -> np.ndarray:
    """A section of a canonical volume, [first, second axis], as rows from the top and columns from the left."""
    return section[::-1, ::-1].T


def percentiles(voxels: np.ndarray, above: float, lowest: np.number, highest: np.number) -> tuple[float, float]:
    """The lower of PERCENTILES of all voxels, and the upper one of those above a value; both are values of voxels.

    `lowest` and `highest` are those of the voxels. Integers of 16 bits are counted, which is several times as fast as
    sorting.
    """
    low, high = PERCENTILES
    if voxels.dtype.kind not in "iu" or voxels.dtype.itemsize > 2:
        return (
            float(np.percentile(voxels, low, method="higher")),
            float(np.percentile(voxels[voxels > above], high, method="lower")),
        )
    least = int(lowest)
    counts = np.zeros(int(highest) - least + 1, np.int64)
    flat = voxels.ravel(order="K")
    for start in range(0, flat.size, COUNTED):
        part = flat[start : start + COUNTED]
        counts += np.bincount(part if least == 0 else part.astype(np.int64) - least, minlength=len(counts))
    brighter = counts.copy()
    brighter[: math.floor(above) - least + 1] = 0
    rank_low, rank_high = (percent / 100 * (of.sum() - 1) for percent, of in ((low, counts), (high, brighter)))
    return (
        float(least + int(np.searchsorted(counts.cumsum(), math.ceil(rank_low), side="right"))),
        float(least + int(np.searchsorted(brighter.cumsum(), math.floor(rank_high), side="right"))),
    )
