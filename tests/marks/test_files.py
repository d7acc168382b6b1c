"""Marked files of every format: what is written is read back, and others' readers see that it is synthetic."""

import gzip
import io
import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from lwddpm.config import SamplingConfig
from lwddpm.errors import DataError
from lwddpm.marks import files
from lwddpm.marks.mark import Mark, now, parse

# Secondary Capture Image IOD, PS3.3 A.8.1 with its mandatory modules: attributes that must have a value (type 1), and
# such as must be there, with or without one (type 2).
TYPE_1 = (
    "SOPClassUID", "SOPInstanceUID",  # SOP Common
    "StudyInstanceUID",  # General Study
    "Modality", "SeriesInstanceUID",  # General Series
    "ConversionType",  # SC Equipment
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelData",  # Image Pixel
)  # fmt: skip
TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",  # Patient
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",  # General Study
    "SeriesNumber",  # General Series
    "Manufacturer",  # General Equipment
    "InstanceNumber", "PatientOrientation",  # General Image
)  # fmt: skip
META_TYPE_1 = (
    "FileMetaInformationVersion", "MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID",
    "ImplementationClassUID",
)  # fmt: skip


def _mark(**changes: object) -> Mark:
    values = {
        "model_uri": "models:/lw-ddpm/3",
        "weights_sha256": "ab" * 32,
        "sampling": SamplingConfig(seed=7, start="noise"),
        "index": 5,
        "count": 64,
        "drawn_at": now(),
    }
    return Mark.model_validate(values | changes)


@pytest.fixture
def picture() -> np.ndarray:
    """Neither square nor of an even number of pixels, and different in every direction."""
    return np.random.default_rng(0).integers(0, 256, (15, 17), dtype=np.uint8)


def _written(folder: Path, format: str, image: np.ndarray, mark: Mark) -> Path:
    file = folder / f"slice{files.ENDINGS[format]}"
    file.write_bytes(files.ENCODERS[format](image, mark))
    return file


@pytest.mark.parametrize("format", files.ENCODERS)
def test_pixels_and_mark_come_back(format: str, picture: np.ndarray, tmp_path: Path) -> None:
    mark = _mark()
    pixels, text = files.read(_written(tmp_path, format, picture, mark))
    assert pixels is not None
    assert np.array_equal(pixels, picture)
    assert parse(text or "") == mark
    assert files.ENCODERS[format](picture, mark) == files.ENCODERS[format](picture, mark)


def test_a_png_says_so_to_every_reader_of_texts(picture: np.ndarray, tmp_path: Path) -> None:
    texts = Image.open(_written(tmp_path, "png", picture, _mark())).text
    assert texts["Description"].startswith("SYNTHETIC")
    assert "models:/lw-ddpm/3 seed 7 index 5" in texts["Description"]
    assert json.loads(texts["lwddpm"])["synthetic"] == "SYNTHETIC"


def test_a_dicom_file_has_what_its_iod_asks_for_and_no_patient(picture: np.ndarray, tmp_path: Path) -> None:
    file = pydicom.dcmread(_written(tmp_path, "dicom", picture, _mark()))
    for keyword in TYPE_1:
        assert keyword in file, keyword
        assert file[keyword].value not in (None, ""), keyword
    for keyword in TYPE_2:
        assert keyword in file, keyword
    for keyword in META_TYPE_1:
        assert file.file_meta[keyword].value, keyword
    assert file.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage == file.file_meta.MediaStorageSOPClassUID
    for group_10 in file.group_dataset(0x10):
        assert not group_10.value
    assert list(file.ImageType) == ["DERIVED", "SECONDARY"]
    assert (file.ConversionType, file.SeriesDescription) == ("SYN", "SYNTHETIC")
    (equipment,) = file.ContributingEquipmentSequence
    (purpose,) = equipment.PurposeOfReferenceCodeSequence
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109102", "DCM")
    assert purpose.CodeMeaning
    assert equipment.Manufacturer
    assert equipment.ManufacturerModelName == "models:/lw-ddpm/3"
    uids = [element for element in file.iterall() if element.VR == "UI"]
    assert all(pydicom.uid.UID(element.value).is_valid for element in uids)
    assert np.array_equal(file.pixel_array, picture)


def test_no_value_of_a_dicom_file_breaks_its_vr(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.RAISE)
    longest = _mark(model_uri=f"models:/{'m' * 200}/123456789", lwddpm="0.1.0+" + "a" * 90)
    content = files.ENCODERS["dicom"](picture, longest)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    for element in pydicom.dcmread(io.BytesIO(content)).iterall():
        assert element.value is not None


def test_uids_are_those_of_the_image_and_not_of_the_moment(picture: np.ndarray) -> None:
    def uids(mark: Mark) -> tuple[str, str, str]:
        file = pydicom.dcmread(io.BytesIO(files.ENCODERS["dicom"](picture, mark)))
        return file.StudyInstanceUID, file.SeriesInstanceUID, file.SOPInstanceUID

    study, series, image = uids(_mark())
    assert uids(_mark(drawn_at="2001-02-03T04:05:06Z", lwddpm="2")) == (study, series, image)
    assert uids(_mark(index=6))[:2] == (study, series)
    assert uids(_mark(index=6))[2] != image
    assert uids(_mark(tiles=2))[2] != image
    other_seed = uids(_mark(sampling=SamplingConfig(seed=8, start="noise")))
    assert other_seed[0] == study
    assert other_seed[1:] != (series, image)
    assert not set(uids(_mark(weights_sha256="cd" * 32))) & {study, series, image}


def test_a_nifti_file_says_so_in_its_header_and_shows_the_slice_upright(picture: np.ndarray, tmp_path: Path) -> None:
    path = _written(tmp_path, "nifti", picture, _mark())
    file = nibabel.load(path)
    assert bytes(file.header["descrip"]).startswith(b"SYNTHETIC models:/lw-ddpm/3 seed 7 index 5")
    assert file.header.get_intent()[2] == "SYNTHETIC"
    (extension,) = file.header.extensions
    assert extension.get_code() == 6
    assert (file.shape, file.header["qform_code"], file.header["sform_code"]) == ((17, 15, 1), 0, 0)
    voxels = np.asarray(file.dataobj)
    assert voxels[0, -1, 0] == picture[0, 0], "left and up"
    assert voxels[-1, -1, 0] == picture[0, -1], "right and up"


@pytest.mark.parametrize("format", files.ENCODERS)
def test_no_part_of_a_file_names_a_folder_of_the_machine(format: str, picture: np.ndarray, tmp_path: Path) -> None:
    mark = _mark(model_uri="training:0123abcd")
    content = files.ENCODERS[format](picture, mark)
    content = gzip.decompress(content) if format == "nifti" else content
    for path in (str(tmp_path), str(Path.home()), str(Path.cwd())):
        assert path.encode() not in content


@pytest.mark.parametrize(
    "model_uri", ["/home/someone/model", "models:/a/b/c", "training:/home/x", "models:/a@champion"]
)
def test_a_mark_takes_neither_paths_nor_aliases(model_uri: str) -> None:
    with pytest.raises(ValueError, match="model_uri"):
        _mark(model_uri=model_uri)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"index": 64}, "index"),
        ({"format": 2}, "format"),
        ({"weights_sha256": "x"}, "weights_sha256"),
        ({"synthetic": "no"}, "synthetic"),
        ({"sampling": {"sampler": "euler"}}, "sampling"),
        ({"prior_sha256": "ab" * 32}, "prior_sha256"),
        ({"more": "x" * 20_000}, "characters"),
    ],
)
def test_a_mark_that_makes_no_sense_is_none(change: dict[str, object], expected: str) -> None:
    text = json.dumps(json.loads(_mark().text()) | change)
    with pytest.raises(DataError, match=expected):
        parse(text)


def _truncated(folder: Path, format: str) -> Path:
    file = _written(folder, format, np.zeros((40, 40), np.uint8), _mark())
    file.write_bytes(file.read_bytes()[: -len(file.read_bytes()) // 3])
    return file


@pytest.mark.parametrize("format", files.ENCODERS)
def test_damaged_files_are_unreadable(format: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="damaged"):
        files.read(_truncated(tmp_path, format))


def test_others_files_bear_no_mark(picture: np.ndarray, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.tif"):
        Image.fromarray(picture).save(tmp_path / name)
        pixels, text = files.read(tmp_path / name)
        assert pixels is not None
        assert text is None
    Image.fromarray(picture).convert("RGB").save(tmp_path / "rgb.png")
    assert files.read(tmp_path / "rgb.png") == (None, None)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.eye(4)), tmp_path / "head.nii")
    assert files.read(tmp_path / "head.nii") == (None, None)
    from pydicom.data import get_testdata_file

    assert files.read(Path(str(get_testdata_file("CT_small.dcm")))) == (None, None)
    for name, content in (("empty.png", b""), ("text.png", b"no picture"), ("text.nii", b"no volume")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError):
            files.read(tmp_path / name)
    with pytest.raises(DataError, match="No such file"):
        files.read(tmp_path / "missing.png")
