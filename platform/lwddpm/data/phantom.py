"""Simulated axial brain slices: an embedded dataset for demonstrations and tests, never for claims about real MRI.

Anatomy comes from the ICBM152 2009 template and tissue maps inside nilearn (skull-stripped, 1 mm); skull and scalp
are invented from the distance to the brain, tumours from noise (`tumours.py`). Slices differ in level, pose, shape,
contrast (T1, T1 with contrast agent, T2, FLAIR), coil profile and noise; each depends only on (seed, index).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from lwddpm.config import DataConfig
from lwddpm.data.manifest import NotTaken
from lwddpm.data.sources import Slice
from lwddpm.data.tumours import Tumour, smooth_field

VERSION = 1  # of the pictures: raise it with every change that alters them
LABELS = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
COARSE_MM = 4  # grid of the distances
MARGIN = 10  # voxels of that grid around the template, for the head
EYES_MM = ((-32.0, 58.0, -36.0), (32.0, 58.0, -36.0))
EYE_RADIUS_MM = 12.0
NOSE_MM = (0.0, 52.0, -48.0)  # centre and half axes of the nasal cavity
NOSE_AXES_MM = (13.0, 32.0, 26.0)
CANVAS = 96  # least side that is drawn; smaller slices are resampled from it


class Contrast(NamedTuple):
    """Signal of each tissue, as a share of the brightest."""

    shading: float  # share of the brain's signal that follows the T1 template
    grey: float
    white: float
    fluid: float
    bone: float
    marrow: float
    scalp: float
    dura: float
    tumour: float
    necrosis: float
    oedema: float


CONTRASTS = {
    "t1": Contrast(0.6, 0.50, 0.74, 0.14, 0.05, 0.45, 0.90, 0.20, 0.44, 0.26, 0.50),
    "t1c": Contrast(0.6, 0.48, 0.68, 0.12, 0.05, 0.45, 0.86, 0.50, 0.96, 0.24, 0.44),
    "t2": Contrast(0.0, 0.64, 0.40, 0.98, 0.04, 0.30, 0.60, 0.25, 0.72, 0.92, 0.86),
    "flair": Contrast(0.0, 0.62, 0.46, 0.10, 0.04, 0.28, 0.58, 0.25, 0.78, 0.45, 0.95),
}
FREQUENCIES = (0.25, 0.4, 0.2, 0.15)  # of the contrasts


@dataclass(frozen=True)
class Phantom:
    """`count` simulated slices, the four labels in turn, as a source (see `sources.Source`)."""

    count: int
    seed: int
    image_size: int

    simulated = True

    @classmethod
    def of(cls, data: DataConfig) -> "Phantom":
        return cls(data.phantom_count, data.seed, data.image_size)

    def scan(self) -> tuple[list[str], str]:
        names = sorted(f"{LABELS[i % len(LABELS)]}/{i:06d}" for i in range(self.count))
        return names, f"phantom {VERSION}"

    def read(self, name: str) -> Slice:
        image = simulate(self.seed, int(name.rpartition("/")[2]), self.image_size)
        return Slice(image, hashlib.sha256(image.tobytes()).digest())

    def not_taken(self) -> NotTaken:
        return NotTaken()

    def label(self, name: str) -> str:
        return name.partition("/")[0]

    def subject_id(self, name: str) -> str:
        return f"phantom-{name.rpartition('/')[2]}"

    def portion(self, names: Sequence[str]) -> "Phantom":
        return self

    def volume(self, name: str) -> None:
        return None


@dataclass(frozen=True)
class Volume:
    """Values on a regular grid in MNI space: [X, Y, Z], voxels of `spacing_mm` from `origin_mm`."""

    values: np.ndarray
    spacing_mm: float
    origin_mm: np.ndarray

    def sample(self, points_mm: np.ndarray) -> np.ndarray:
        """Trilinear values at points [3, ...], float32; beyond the edge the nearest value."""
        voxels = (points_mm - self.origin_mm.reshape(3, *[1] * (points_mm.ndim - 1))) / self.spacing_mm
        return ndimage.map_coordinates(self.values, voxels, np.float32, order=1, mode="nearest")


class Atlas(NamedTuple):
    """Template and tissue maps, 0..255; distances in mm to the hulls of brain and head, negative inside."""

    template: Volume
    grey: Volume
    white: Volume
    to_brain: Volume
    to_head: Volume


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """Read the volumes that nilearn ships; takes about 4 s, once per process."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    images = [load(resolution=1) for load in (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)]
    origin = images[0].affine[:3, 3].astype(np.float32)
    maps = [np.round(image.get_fdata(dtype=np.float32) * 255).astype(np.uint8) for image in images]
    volumes = [Volume(values, 1.0, origin) for values in maps]
    coarse = slice(None, None, COARSE_MM)
    brain = ndimage.binary_fill_holes(np.pad(maps[0][coarse, coarse, coarse] > 0, MARGIN))
    # The skull runs smoothly over the sulci, and the head is as wide below the vault as it is there.
    skull = _close(brain, radius=2)
    head = _close(np.logical_or.accumulate(skull[:, :, ::-1], axis=2)[:, :, ::-1], radius=8)
    for hull in (skull, head):
        distance = ndimage.distance_transform_edt(~hull) - ndimage.distance_transform_edt(hull)
        smooth = ndimage.gaussian_filter(COARSE_MM * distance.astype(np.float32), 0.7)
        volumes.append(Volume(smooth, COARSE_MM, origin - COARSE_MM * MARGIN))
    return Atlas(*volumes)


def _close(mask: np.ndarray, radius: float) -> np.ndarray:
    """Morphological closing with a ball."""
    grown = ndimage.distance_transform_edt(~mask) <= radius
    return np.asarray(ndimage.distance_transform_edt(grown) > radius) | mask


def simulate(seed: int, index: int, image_size: int) -> np.ndarray:
    """Draw slice `index`, whose label is LABELS[index % 4]: uint8 [image_size, image_size], front of the head up."""
    rng = np.random.default_rng((seed, index))
    label = LABELS[index % len(LABELS)]
    size = max(image_size, CANVAS)
    atlas = load_atlas()

    low, high = (-38, -28) if label == "pituitary_tumor" else (-18, 55)
    grid, points = _plane(rng, size, level_mm=rng.uniform(low, high))
    contrast = CONTRASTS[rng.choice(list(CONTRASTS), p=FREQUENCIES)]
    contrast = Contrast(*(value * rng.uniform(0.9, 1.1) for value in contrast))
    depth = -atlas.to_brain.sample(points)
    skin = atlas.to_head.sample(points)
    tumour = None
    if label != "no_tumor":
        tumour = Tumour.place(rng, label, grid, points, depth, atlas.white.sample(points) / 255)
        points = tumour.push(points, depth)

    head = _skull_and_scalp(rng, _brain(atlas, points, contrast), points, depth, skin, contrast)
    if tumour is not None:
        head = tumour.paint(head, contrast.tumour, contrast.necrosis, contrast.oedema)
    head *= np.exp(rng.uniform(0.05, 0.2) * smooth_field(rng, size, knots=3))  # sensitivity of the receive coil
    return _acquire(rng, head, image_size)


def _plane(rng: np.random.Generator, size: int, level_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """A randomly posed and deformed axial plane.

    Returns:
        In-plane coordinates of the pixels [2, S, S] and where they lie in MNI space [3, S, S], both in mm.
    """
    side = rng.uniform(205, 235) * ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5)
    grid = np.stack(np.meshgrid(side, -side))
    roll, pitch, yaw = np.deg2rad(rng.normal(0, (3, 5, 4)))
    turn_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    turn_y = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    pose = (turn_z @ turn_x @ turn_y * rng.normal(1, 0.05, 3))[:, :2]
    centre = np.array([rng.normal(0, 2), rng.normal(-18, 3), level_mm])
    points = np.tensordot(pose, grid, axes=1) + centre[:, None, None]
    points += 3.0 * smooth_field(rng, size, knots=4, channels=3) + 1.6 * smooth_field(rng, size, knots=12, channels=3)
    return grid, points.astype(np.float32)


def _brain(atlas: Atlas, points: np.ndarray, contrast: Contrast) -> np.ndarray:
    """Signal of grey matter, white matter and fluid, with the finer shading of the template."""
    grey, white = atlas.grey.sample(points) / 255, atlas.white.sample(points) / 255
    fluid = np.clip(1 - grey - white, 0, 1)
    # The maps are averages over 152 people: sharpen them towards one person's tissues.
    grey, white, fluid = grey**1.6, white**1.6, fluid**1.6
    tissue = (contrast.grey * grey + contrast.white * white + contrast.fluid * fluid) / (grey + white + fluid + 1e-6)
    template = atlas.template.sample(points) / 255
    return (1 - contrast.shading) * tissue + contrast.shading * template**1.5


def _skull_and_scalp(
    rng: np.random.Generator,
    brain: np.ndarray,
    points: np.ndarray,
    depth: np.ndarray,
    skin: np.ndarray,
    contrast: Contrast,
) -> np.ndarray:
    """Wrap the brain in fluid, dura and bone with marrow, and these in soft tissue, eyes, nose and scalp.

    Args:
        brain: signal [S, S].
        points: MNI coordinates of the pixels, mm [3, S, S].
        depth, skin: mm below the hull of the brain and outside the hull of the head, [S, S].
    """
    size = len(brain)
    outside = -depth + 0.6 * smooth_field(rng, size, knots=6)
    widths = rng.uniform((0.5, 0.8, 1.2, 1.5, 1.2), (3.0, 1.4, 2.2, 4.0, 2.2))
    marrow = contrast.marrow * (1 + 0.25 * smooth_field(rng, size, knots=10))
    head, start = brain, np.zeros_like(brain)
    layers: tuple[float | np.ndarray, ...] = (contrast.fluid, contrast.dura, contrast.bone, marrow, contrast.bone)
    for signal, width in zip(layers, widths, strict=True):
        head = _over(head, signal, outside - start)
        start = start + width * np.exp(0.2 * smooth_field(rng, size, knots=5))

    beyond_bone = outside - start
    head = _over(head, 0.5 * contrast.scalp * np.exp(0.45 * smooth_field(rng, size, knots=18)), beyond_bone)
    for eye in EYES_MM:
        within = EYE_RADIUS_MM - np.sqrt(sum((points[i] - eye[i]) ** 2 for i in range(3)))
        head = _over(head, contrast.fluid, np.minimum(within, beyond_bone))
    within = 1 - np.sqrt(sum(((points[i] - NOSE_MM[i]) / NOSE_AXES_MM[i]) ** 2 for i in range(3)))
    within = 15 * (within + 0.25 * smooth_field(rng, size, knots=20))
    head = _over(head, contrast.bone, np.minimum(within, beyond_bone))

    scalp = contrast.scalp * (1 + 0.12 * smooth_field(rng, size, knots=14))
    scalp_start = widths.sum() + 0.5 * smooth_field(rng, size, knots=5)
    head = _over(head, scalp, np.minimum(skin - scalp_start, beyond_bone))
    thickness = rng.uniform(3, 7) * np.exp(0.2 * smooth_field(rng, size, knots=4))
    return _over(head, 0.0, skin - scalp_start - thickness)


def _over(below: np.ndarray, signal: np.ndarray | float, beyond_mm: np.ndarray) -> np.ndarray:
    """Cover with a signal what lies beyond a boundary, with an edge of about a millimetre."""
    return below + (signal - below) / (1 + np.exp(np.clip(-beyond_mm / 0.45, -30, 30)))


def _acquire(rng: np.random.Generator, head: np.ndarray, image_size: int) -> np.ndarray:
    """Resample, add Rician noise (Gudbjartsson and Patz 1995) and scale to uint8."""
    if len(head) != image_size:
        picture = Image.fromarray(head.astype(np.float32))
        head = np.asarray(picture.resize((image_size, image_size), Image.Resampling.LANCZOS))
    sigma = rng.uniform(0.008, 0.04)
    real, imaginary = rng.normal(0, sigma, (2, *head.shape))
    magnitude = np.hypot(np.clip(head, 0, None) + real, imaginary)
    level = np.percentile(magnitude, 99.5) / rng.uniform(0.8, 1.0)
    return np.clip(255 * magnitude / level, 0, 255).round().astype(np.uint8)
