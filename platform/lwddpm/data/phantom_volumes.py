"""Simulated heads as NIfTI volumes: a second embedded dataset, which takes the way of real volumes.

The T1 template of ICBM152 2009 (skull-stripped, in nilearn) under a smooth random deformation of some millimetres, in a
skull and a scalp that follow from the distance to the brain; a coil profile and Rician noise. It has no face and no
lesions. A volume depends on (seed, number) alone; its file is written where it is first needed, and again elsewhere.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lwddpm.config import DataConfig
from lwddpm.data.manifest import NotTaken
from lwddpm.data.nifti_folder import NiftiFolder, open_nifti_folder
from lwddpm.data.phantom import load_atlas
from lwddpm.data.sources import PART, Slice
from lwddpm.files import cache_folder, replacing

VERSION = 1  # of the volumes: raise it with every change that alters them
SPACING_MM = 2.0
FIRST_MM, SHAPE = (-100.0, -136.0, -100.0), (101, 118, 104)  # first voxel in MNI space, and voxels
DEFORMATION_MM = 4.0
KNOTS = 5  # of a deformation, along each axis
SKULL_MM, SCALP_MM = 6.0, 12.0  # beyond the brain's hull


@dataclass(frozen=True)
class PhantomVolumes:
    """`count` volumes as a source, one of each subject (see `sources.Source`)."""

    count: int
    seed: int
    folder: NiftiFolder

    simulated = True

    @classmethod
    def of(cls, data: DataConfig) -> "PhantomVolumes":
        root = cache_folder() / f"phantom-volumes-{VERSION}-{data.seed}"
        root.mkdir(parents=True, exist_ok=True)
        settings = {
            "source": str(root),
            "format": "nifti",
            "include": (),
            "exclude": (),
            "label": None,
            "synthetic": True,
        }
        return cls(data.phantom_count, data.seed, open_nifti_folder(data.model_copy(update=settings)))

    def scan(self) -> tuple[list[str], str]:
        first, *others = (self._file(number) for number in range(self.count))
        self._write(first)  # all volumes have its grid
        slices = [name.removeprefix(first) for name in self.folder.scan()[0] if name.startswith(f"{first}{PART}")]
        return [file + slice_ for file in (first, *others) for slice_ in slices], f"phantom volumes {VERSION}"

    def not_taken(self) -> NotTaken:
        return NotTaken()

    def read(self, name: str) -> Slice:
        self._write(name.partition(PART)[0])
        return self.folder.read(name)

    def label(self, name: str) -> str:
        return self.folder.label(name)

    def subject_id(self, name: str) -> str | None:
        return self.folder.subject_id(name)

    def portion(self, names: Sequence[str]) -> "PhantomVolumes":
        return self

    def volume(self, name: str) -> str | None:
        return self.folder.volume(name)

    def _file(self, number: int) -> str:
        return f"sub-{number:05d}/anat/sub-{number:05d}_T1w.nii.gz"

    def _write(self, file: str) -> None:
        path = Path(self.folder.root, file)
        if not path.exists():
            with replacing(path) as partial:
                partial.write_bytes(_compressed(self.seed, int(file[4:9])))


def simulate_volume(seed: int, number: int) -> np.ndarray:
    """Head `number`, int16 [X, Y, Z], axes to the right, the front and the top, voxels of SPACING_MM."""
    rng = np.random.default_rng((seed, number, 3))
    axes = [first + SPACING_MM * np.arange(side, dtype=np.float32) for first, side in zip(FIRST_MM, SHAPE, strict=True)]
    size = rng.normal(1, 0.04, (3, 1, 1, 1)).astype(np.float32)
    points = np.stack(np.meshgrid(*axes, indexing="ij")) / size
    points += DEFORMATION_MM * np.stack([_smooth_field(rng) for _ in range(3)])
    atlas = load_atlas()
    outside = atlas.to_brain.sample(points)
    head = atlas.template.sample(points) / 255
    scalp = 0.85 * np.exp(0.15 * _smooth_field(rng))
    layers: tuple[tuple[float | np.ndarray, float], ...] = ((0.08, 1.0), (scalp, SKULL_MM), (0.0, SCALP_MM))
    for signal, beyond in layers:
        head = head + (signal - head) / (1 + np.exp(np.clip((beyond - outside) / 0.5, -30, 30)))
    head *= np.exp(0.15 * _smooth_field(rng))  # sensitivity of the receive coil
    noise = rng.normal(0, 0.015, (2, *SHAPE))
    return np.round(1000 * np.hypot(head + noise[0], noise[1])).astype(np.int16)


def _smooth_field(rng: np.random.Generator) -> np.ndarray:
    """Gaussian random field of unit variance, smooth on the scale of 1/KNOTS of the volume, float32."""
    bases = []
    for side in SHAPE:
        position = (np.arange(side, dtype=np.float32) + 0.5) / side * KNOTS
        basis = np.exp(-0.5 * (position[:, None] - np.arange(-1.0, KNOTS + 2)) ** 2 / 0.6**2)
        bases.append((basis / np.sqrt(np.square(basis).sum(axis=1, keepdims=True))).astype(np.float32))
    weights = rng.standard_normal([basis.shape[1] for basis in bases]).astype(np.float32)
    return np.asarray(np.einsum("xi,yj,zk,ijk->xyz", *bases, weights, optimize=True))


def _compressed(seed: int, number: int) -> bytes:
    import nibabel

    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = FIRST_MM
    file = nibabel.Nifti1Image(simulate_volume(seed, number), affine)
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(file.to_bytes()) + packer.flush()
