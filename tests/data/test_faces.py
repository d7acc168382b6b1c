"""Faces are cropped and brains are not, on simulated heads with a face, in every plane, pitch and contrast."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy import ndimage
from tests.data.dicom_files import save, series_of

from lwddpm.config import DataConfig
from lwddpm.data.faces import NO_BRAIN, crop_face
from lwddpm.data.phantom import load_atlas
from lwddpm.data.phantom_volumes import FIRST_MM, SCALP_MM, SHAPE, SKULL_MM, SPACING_MM
from lwddpm.data.prepare import check_source, prepare_dataset
from lwddpm.data.remarks import remarks
from lwddpm.data.sources import UnusableFile

MM = (SPACING_MM,) * 3
CORD_MM = -70.0  # below this the template shows the spinal cord


def serial(function: Any, items: Any, *, description: str) -> Any:
    return map(function, items)


def head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A head with skull, scalp, nose, cheeks, jaw and neck in MNI space, and where its face and its brain are."""
    axes = [first + SPACING_MM * np.arange(side) for first, side in zip(FIRST_MM, SHAPE, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    points = np.stack([x, y, z]).astype(np.float32)
    atlas = load_atlas()
    brain = (atlas.template.sample(points) > 0.2 * 255) & (z > CORD_MM)
    to_brain = atlas.to_brain.sample(points)
    outside = to_brain > 14
    parts = (
        (x / 60) ** 2 + ((y - 50) / 40) ** 2 + ((z + 62) / 38) ** 2 < 1,  # jaw and cheeks
        (x / 12) ** 2 + ((y - 84) / 14) ** 2 + ((z + 40) / 16) ** 2 < 1,  # nose
        (abs(x) - 32) ** 2 + (y - 68) ** 2 + (z + 38) ** 2 < 12**2,  # eyes
    )
    face = np.logical_or.reduce(parts) & outside & (y > 40)
    neck = ((x / 55) ** 2 + ((y + 30) / 50) ** 2 < 1) & outside & (z < -80)
    volume = 4 * atlas.template.sample(points)
    volume = np.where(to_brain > SKULL_MM, 850, np.where(to_brain > 1, 80, volume))
    volume = np.where(face | neck, 700, np.where(to_brain > SCALP_MM, 0, volume))
    noise = np.random.default_rng(0).normal(0, 15, volume.shape)
    return abs(volume + noise).astype(np.int16), face, brain


@pytest.fixture(scope="module")
def parts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return head()


def removed(before: np.ndarray, after: np.ndarray, where: np.ndarray) -> float:
    """Share of the voxels of a part that were made black."""
    assert set(np.unique(after[after != before])) <= {before.min()}
    return float((after != before)[where & (before > before.min())].mean())


@pytest.mark.parametrize("pitch", [-20, -10, 0, 10, 20])
def test_the_face_goes_and_the_brain_stays(parts: Any, pitch: float) -> None:
    volume, face, brain = parts
    turned = ndimage.rotate(volume, pitch, axes=(1, 2), reshape=False, order=1)
    face, brain = (
        ndimage.rotate(part.astype(np.float32), pitch, axes=(1, 2), reshape=False, order=1) > 0.9
        for part in (face, brain)
    )
    cropped = crop_face(turned, MM)
    assert removed(turned, cropped, brain) == 0
    assert removed(turned, cropped, face) > 0.95
    assert np.array_equal(turned, np.where(cropped != turned, turned, cropped))


def test_of_other_contrasts_the_brain_stays_or_the_volume_is_refused(parts: Any) -> None:
    """As of T2: fluid bright, white matter dark."""
    volume, face, brain = parts
    inside = ndimage.binary_dilation(brain, iterations=2)
    other = np.where(inside, 1250 - volume.clip(max=1100), volume // 2).astype(np.int16)
    cropped = crop_face(other, MM)
    assert removed(other, cropped, brain) == 0
    assert removed(other, cropped, face) > 0.9


@pytest.mark.parametrize("thick", [0, 1, 2])
def test_thick_slices_of_any_plane(parts: Any, thick: int) -> None:
    volume, face, brain = (np.take(part, range(0, part.shape[thick], 3), axis=thick) for part in parts)
    spacing = [SPACING_MM] * 3
    spacing[thick] *= 3
    cropped = crop_face(volume, (spacing[0], spacing[1], spacing[2]))
    assert removed(volume, cropped, brain) == 0
    assert removed(volume, cropped, face) > 0.9


def test_a_brain_without_head_stays_whole() -> None:
    template = load_mni152_template(resolution=2).get_fdata(dtype=np.float32)
    brain = load_mni152_brain_mask(resolution=2).get_fdata() > 0
    assert removed(template, crop_face(template, (2.0, 2.0, 2.0)), brain) == 0


def test_where_nothing_looks_like_a_brain_nothing_is_guessed() -> None:
    ball = sum(axis**2 for axis in np.meshgrid(*[np.arange(-30.0, 30)] * 3)) < 25**2
    for volume in (ball.astype(np.int16), np.zeros((20, 20, 20)), np.random.default_rng(0).normal(size=(40, 40, 40))):
        with pytest.raises(UnusableFile, match="no brain was found"):
            crop_face(volume, MM)


@pytest.mark.parametrize("file_format", ["nifti", "dicom"])
def test_datasets_are_cropped_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: Any, file_format: str
) -> None:
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", "a key of these tests alone")
    volume = parts[0]
    scans = tmp_path / "scans"
    ball = np.zeros_like(volume)
    ball[:40, :40, :40] = 500
    for name, voxels in {"sub-1_T1w": volume, "sub-2_T1w": ball}.items():
        if file_format == "nifti":
            affine = np.diag([*MM, 1.0])
            affine[:3, 3] = FIRST_MM
            scans.mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels, affine), scans / f"{name}.nii.gz")
        else:
            for made in series_of(voxels.astype(np.uint16), FIRST_MM, SPACING_MM, series=f"1.{name[4]}", patient=name):
                save(made, scans / name / f"{made.InstanceNumber}")

    def prepared(faces: str) -> Any:
        data = DataConfig.model_validate(
            {
                "source": str(scans), "path": str(tmp_path / faces), "image_size": 64, "format": file_format,
                "faces": faces, "plane": "sagittal", "splits": [1, 0, 0], "max_rejected_fraction": 0.5,
                "slices": {"step_mm": 10},
            }
        )  # fmt: skip
        check_source(data)
        return prepare_dataset(data, serial)

    kept, cropped, accepted = (prepared(faces) for faces in ("warn", "crop", "accept"))
    assert {file.reason for file in cropped.manifest.rejected} == {NO_BRAIN}
    assert len(cropped.manifest.rejected) == 1
    assert cropped.manifest.settings["faces"] == "crop"
    assert any("below and in front of the brain" in line for line in remarks(cropped.manifest))
    assert any("can show faces" in line for line in remarks(kept.manifest))
    assert not any("face" in line for line in remarks(accepted.manifest))
    assert kept.manifest.version == accepted.manifest.version != cropped.manifest.version
    whole, without = kept.images("train"), cropped.images("train")
    # of sagittal slices front is left: the lower left loses what it had, the middle nothing
    heads = [i for i, name in enumerate(kept.sources("train")) if name in set(cropped.sources("train"))]
    assert (whole[heads, 46:, :14].mean(axis=(1, 2)) > 20).sum() > 3
    assert without[:, 46:, :14].mean(axis=(1, 2)).max() < 3
    assert max(image[12:32, 24:48].mean() for image in without) > 50
