"""What is said of a folder from its headers: of every kind, as preparation decides, and without identifiers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from tests.data.dicom_files import save, series_of

from lwddpm.cli.views import data as views
from lwddpm.config import DataConfig
from lwddpm.data.inspection import inspect_folder
from lwddpm.data.prepare import prepare_dataset
from lwddpm.errors import DataError

SECRET = "a key of these tests alone"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", SECRET)


def values(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 999, shape).astype(np.int16)


def dicom(folder: Path) -> Path:
    """Two series of one of three patients, a series with a gap, localizers, and what cannot be used."""
    for number, (patient, description) in enumerate([("A", "t1"), ("A", "t2 flair"), ("B", "t1"), ("MUELLER", "x")]):
        made = series_of(
            values(number, 16, 16, 8), (0, 0, 0), 2.0, series=f"1.{number}", patient=patient,
            SeriesDescription=description,
        )  # fmt: skip
        for each in made if patient != "B" else made[:3] + made[5:]:
            save(each, folder / f"MUELLER{number}" / f"{each.InstanceNumber}")
    localizers = series_of(
        values(9, 16, 16, 3), (0, 0, 0), 2.0, series="2", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    mosaics = series_of(values(9, 16, 16, 3), (0, 0, 0), 2.0, series="3", ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"])
    for each in [*localizers, *mosaics]:
        save(each, folder / f"{each.SeriesInstanceUID}-{each.InstanceNumber}")
    (folder / "MUELLER.dcm").write_bytes(b"MUELLER" * 40)
    (folder / "MUELLER.txt").write_text("MUELLER")
    return folder


def test_a_folder_of_series(tmp_path: Path) -> None:
    found = inspect_folder(str(dicom(tmp_path / "scans")))
    assert (found["kinds"], found["subjects"], found["without_subject"]) == ({"dicom": 4}, 3, 0)
    assert found["sequences"] == {"T1w": 2, "FLAIR": 1, "unknown": 1}
    assert found["planes"] == {"axial": 4}
    assert {tuple(volume["size"]) for volume in found["volumes"]} == {(16, 16, 8)}
    assert sorted(volume["missing_slices"] for volume in found["volumes"]) == [0, 0, 0, 2]
    assert sorted(file["reason"].partition(":")[0] for file in found["refused"]) == [
        "a mosaic", "not a DICOM file, or a damaged one",
    ]  # fmt: skip
    assert any(file["reason"].endswith("slice by slice (3 files of a series)") for file in found["refused"])
    assert found["passed_over"] == {
        "files that are neither DICOM, NIfTI nor images": 1,
        "localizers": 3,
        "slices that are missing between those of a series": 2,
    }
    assert [(series["reason"], series["files"]) for series in found["listed"]] == [("localizers", 3)]


def test_it_says_what_preparation_says(tmp_path: Path) -> None:
    source = dicom(tmp_path / "scans")
    found = inspect_folder(str(source))
    data = DataConfig(
        source=str(source), path=str(tmp_path / "d"), format="dicom", image_size=16, max_rejected_fraction=1,
        splits=(1, 0, 0),
    )  # fmt: skip
    manifest = prepare_dataset(data, lambda function, items, *, description: map(function, items)).manifest
    refused = {(file["source"], file["reason"]) for file in found["refused"]}
    assert refused == {(file.source, file.reason) for file in manifest.rejected}
    passed_over = found["passed_over"]
    passed_over["files that are no DICOM"] = passed_over.pop("files that are neither DICOM, NIfTI nor images")
    assert passed_over.items() <= manifest.not_taken.other.items()
    assert {series["source"] for series in found["listed"]} == {file.source for file in manifest.not_taken.listed}


def mixed(folder: Path) -> Path:
    dicom(folder)
    for number, (stem, slices) in enumerate([("sub-1_T1w", 8), ("sub-1_FLAIR", 8), ("MUELLER", 4), ("sub-2_dseg", 8)]):
        affine = np.diag([1.0, 1.0, 1.0 if slices == 8 else 5.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(values(number, 8, 8, slices), affine), folder / f"{stem}.nii.gz")
    (folder / "MUELLER_cut.nii").write_bytes(b"")
    for number in range(3):
        Image.fromarray(values(number, 20, 30).astype(np.uint8)).save(folder / f"MUELLER{number}.png")
    Image.fromarray(values(5, 20, 30).astype(np.uint16)).save(folder / "deep.png")
    (folder / "loop").symlink_to("loop")
    (folder / ".hidden").touch()
    return folder


def test_kinds_may_be_mixed_and_nobody_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect_folder(str(mixed(tmp_path / "scans")))
    assert found["kinds"] == {"dicom": 4, "images": 4, "nifti": 3}
    assert (found["subjects"], found["without_subject"]) == (4, 1)
    assert found["planes"] == {"axial": 5, "any": 2}
    assert found["images"] == [
        {"size": [30, 20], "more_than_8_bits": False, "pages": 1, "files": 3},
        {"size": [30, 20], "more_than_8_bits": True, "pages": 1, "files": 1},
    ]
    reasons = {file["reason"] for file in found["refused"]}
    assert {"empty file", "unreadable: Too many levels of symbolic links"} < reasons
    assert found["passed_over"]["masks and segmentations"] == 1
    views.inspected(found)
    for text in (json.dumps(found), capsys.readouterr().out):
        assert "mueller" not in text.lower()
        assert str(tmp_path) not in text
        assert SECRET not in text


def test_a_folder_of_images_alone_refuses_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "glioma").mkdir()
    Image.fromarray(values(5, 20, 30).astype(np.uint8)).save(tmp_path / "glioma" / "a.png")
    (tmp_path / "glioma" / "b.png").write_bytes(b"no image")
    found = inspect_folder(str(tmp_path))
    assert found["kinds"] == {"images": 1}
    assert [file["reason"] for file in found["refused"]] == ["not an image of a known format"]


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"PATH: .*none: no such folder; give a folder of scans"):
        inspect_folder(str(tmp_path / "none"))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="must be a folder of DICOM files, got a file"):
        inspect_folder(str(tmp_path / "file"))


def inspect(*arguments: str) -> tuple[int, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "lwddpm", "data", "inspect", *arguments, "--json"], capture_output=True, text=True
    )
    return ended.returncode, json.loads(ended.stdout)


def test_exit_codes(tmp_path: Path) -> None:
    dicom(tmp_path / "scans")
    assert inspect(str(tmp_path / "scans")) == (0, json.loads(json.dumps(inspect_folder(str(tmp_path / "scans")))))
    (tmp_path / "empty").mkdir()
    code, found = inspect(str(tmp_path / "empty"))
    assert (code, found["kinds"]) == (1, {})
    assert inspect(str(tmp_path / "none"))[0] == 2
