"""What holds for folders of every kind: no slice that a model of this platform has drawn is taken for a scan."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from tests.data.dicom_files import save, series_of

from lwddpm.config import DataConfig, SamplingConfig
from lwddpm.data.inspection import inspect_folder
from lwddpm.data.prepare import prepare_dataset
from lwddpm.marks.files import ENCODERS, ENDINGS
from lwddpm.marks.mark import Mark, now

SIDE = 24
MARK = Mark(
    model_uri="models:/heads/7", weights_sha256="ab" * 32, sampling=SamplingConfig(start="noise"), index=0, count=1,
    drawn_at=now(),
)  # fmt: skip


def _values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, (SIDE, SIDE, 8)).astype(np.uint8)


def _pictures(folder: Path) -> None:
    for number in range(8):
        Image.fromarray(_values(0)[..., number]).save(folder / f"real{number}.png")


def _nifti(folder: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(_values(0), np.eye(4)), folder / "real.nii.gz")


def _dicom(folder: Path) -> None:
    for made in series_of(_values(0).astype(np.uint16), (0, 0, 0), 1.0):
        save(made, folder / f"real{made.InstanceNumber}")


KINDS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "png": ("images", _pictures),
    "nifti": ("nifti", _nifti),
    "dicom": ("dicom", _dicom),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("understood", [True, False])
def test_a_synthetic_slice_is_refused_with_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, understood: bool
) -> None:
    """Also where it was copied away from its samples.json; of a mark that is not understood nothing is repeated."""
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", "a key of these tests alone")
    file_format, write_scans = KINDS[kind]
    (tmp_path / "scans").mkdir()
    write_scans(tmp_path / "scans")
    mark = MARK if understood else MARK.model_copy(update={"model_uri": "MUELLER"})
    drawn = _values(9)[..., 0]
    (tmp_path / "scans" / f"copied{ENDINGS[kind]}").write_bytes(ENCODERS[kind](drawn, mark))
    expected = "a synthetic slice of model models:/heads/7" if understood else "a synthetic slice of a model"
    data = DataConfig.model_validate(
        {
            "source": str(tmp_path / "scans"), "path": str(tmp_path / "d"), "image_size": SIDE, "format": file_format,
            "max_rejected_fraction": 0.5, "splits": [1, 0, 0],
        }
    )  # fmt: skip
    manifest = prepare_dataset(data, lambda function, items, *, description: map(function, items)).manifest
    assert [file.reason for file in manifest.rejected] == [expected]
    assert manifest.num == 8
    found = inspect_folder(str(tmp_path / "scans"))
    assert [(file["kind"], file["reason"]) for file in found["refused"]] == [(file_format, expected)]
    on_purpose = data.model_copy(update={"synthetic": True, "path": str(tmp_path / "e")})
    taken = prepare_dataset(on_purpose, lambda function, items, *, description: map(function, items)).manifest
    assert (taken.num, taken.simulated) == (8 if kind == "dicom" else 9, True)  # one picture is no DICOM volume
