"""DICOM series as a source of slices: the same as of a NIfTI file, what is taken, and why other files are not."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from tests.data.dicom_files import CODECS, dataset, save, series_of

from lwddpm.config import DataConfig
from lwddpm.data.dicom_folder import DicomFolder, open_dicom_folder
from lwddpm.data.prepare import check_source, open_source, prepare_dataset
from lwddpm.data.remarks import remarks
from lwddpm.data.sources import Slice, SliceLeftOut, UnusableFile
from lwddpm.data.store import SPLITS
from lwddpm.errors import DataError

SIDE = 24  # voxels of 2 mm, and pixels: nothing is resampled
MM = 2.0
AT = (np.arange(SIDE) - (SIDE - 1) / 2) * MM


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", "a key of these tests alone")


def serial(function, items, *, description):
    return map(function, items)


def head() -> np.ndarray:
    """Signal on axes to the right, the front and the top: an ellipsoid that is alike along no axis, at most 4095."""
    right, front, top = np.meshgrid(AT, AT, AT, indexing="ij")
    inside = (right / 20) ** 2 + (front / 16) ** 2 + (top / 18) ** 2 < 1
    return (inside * (2000 + 30 * right + 20 * front + 11 * top)).astype(np.uint16)


def series(values: np.ndarray | None = None, **settings: Any) -> list[Dataset]:
    return series_of(head() if values is None else values, (AT[0],) * 3, MM, **{"bits": 12} | settings)


def save_all(made: list[Dataset], folder: Path, **settings: Any) -> Path:
    for number, each in enumerate(made):
        save(each, folder / f"IM{number:04d}", **settings)
    return folder


def opened(folder: Path, **settings: Any) -> DicomFolder:
    return open_dicom_folder(
        DataConfig.model_validate({"source": str(folder), "format": "dicom", "image_size": SIDE} | settings)
    )


def slices_of(source: Any) -> dict[str, Slice]:
    taken = {}
    for name in source.scan()[0]:
        try:
            taken[name] = source.read(name)
        except SliceLeftOut:
            continue
    return taken


def reasons_of(source: DicomFolder) -> dict[str, str]:
    reasons = {}
    for name in source.scan()[0]:
        try:
            source.read(name)
        except UnusableFile as error:
            reasons[name] = str(error)
        except SliceLeftOut:
            continue
    return reasons


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Slice]]:
    """The slices of the head as a NIfTI file, by number."""
    folder = tmp_path_factory.mktemp("nifti")
    affine = np.diag([MM, MM, MM, 1.0])
    affine[:3, 3] = AT[0]
    nibabel.save(nibabel.Nifti1Image(head(), affine), folder / "head.nii.gz")

    def of(**settings: Any) -> dict[str, Slice]:
        places = {"source": str(folder), "format": "nifti", "image_size": SIDE}
        taken = slices_of(open_source(DataConfig.model_validate(places | settings)))
        return {name.partition("//")[2]: one for name, one in taken.items()}

    return of


def assert_same(taken: dict[str, Slice], expected: dict[str, Slice], *, exact: bool = True) -> None:
    by_number = {name.partition("//")[2]: one for name, one in taken.items()}
    assert by_number.keys() == expected.keys()
    assert len(expected) > 10
    for number, one in expected.items():
        assert np.abs(by_number[number].image.astype(int) - one.image).max() <= (0 if exact else 1)
        assert by_number[number].geometry == one.geometry._replace(sequence="T1w")
        if exact:
            assert by_number[number].pixels_sha256 == one.pixels_sha256


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("plane", ["axial", "sagittal"])
def test_compressions_give_the_slices_of_the_nifti_file(tmp_path: Path, expected: Any, codec: str, plane: str) -> None:
    save_all(series(codec=codec), tmp_path)
    assert_same(slices_of(opened(tmp_path, plane=plane)), expected(plane=plane))


def _inverted() -> list[Dataset]:
    return series(4095 - head(), PhotometricInterpretation="MONOCHROME1")


def _signed_and_scaled() -> list[Dataset]:
    """Stored numbers of -1000 to 1047, of which the head is twice, and 2000 more."""
    return series(((head() // 2 * 2).astype(np.int16) - 2000) // 2, bits=16, RescaleSlope=2, RescaleIntercept=2000)


def _slope_of_each() -> list[Dataset]:
    made = series(bits=16)
    for number, each in enumerate(made):
        slope = (0.5, 1.0, 2.0)[number % 3]
        each.RescaleSlope, each.RescaleIntercept = slope, -3
        stored = np.frombuffer(each.PixelData, np.uint16) / slope
        each.PixelData = (stored.round().astype(np.uint16)).tobytes()
    return made


def _eight_bits() -> list[Dataset]:
    return series((head() / 16).astype(np.uint8), bits=8)


def _overlay_bits() -> list[Dataset]:
    """Bits above those that are stored hold an overlay, as in old files."""
    made = series()
    for each in made:
        numbers = np.frombuffer(each.PixelData, np.uint16) | np.uint16(0x8000)
        each.PixelData = numbers.tobytes()
    return made


def _high_bits() -> list[Dataset]:
    made = series()
    for each in made:
        each.PixelData = (np.frombuffer(each.PixelData, np.uint16) << 4).tobytes()
        each.HighBit = 15
    return made


def _shuffled() -> list[Dataset]:
    """Neither names nor InstanceNumbers are in the order of positions."""
    made = series()
    order = np.random.default_rng(0).permutation(len(made))
    for number, each in zip(order, made, strict=True):
        each.InstanceNumber = int(number) + 1
    return [made[i] for i in np.random.default_rng(1).permutation(len(made))]


def _enhanced() -> list[Dataset]:
    """One file with all pictures, in any order, their places in functional groups."""
    made = _shuffled()
    pictures = np.stack([np.frombuffer(each.PixelData, np.uint16).reshape(SIDE, SIDE) for each in made])
    whole = dataset(pictures, (0, 0, 0), number=1, bits=12, SOPClassUID=uid.EnhancedMRImageStorage)
    for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del whole[key]
    whole.NumberOfFrames = len(made)
    shared, orientation, measures, groups = Dataset(), Dataset(), Dataset(), []
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [MM, MM], MM
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    for each in made:
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = each.ImagePositionPatient
        group.PlanePositionSequence = [place]
        groups.append(group)
    whole.SharedFunctionalGroupsSequence, whole.PerFrameFunctionalGroupsSequence = [shared], groups
    return [whole]


VARIANTS: dict[str, Callable[[], list[Dataset]]] = {
    "MONOCHROME1": _inverted,
    "signed, slope and intercept": _signed_and_scaled,
    "a slope for each slice": _slope_of_each,
    "8 bits": _eight_bits,
    "overlay in unused bits": _overlay_bits,
    "stored in the high bits": _high_bits,
    "shuffled": _shuffled,
    "multi-frame": _enhanced,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_ways_to_store_a_head_give_the_slices_of_the_nifti_file(tmp_path: Path, expected: Any, variant: str) -> None:
    save_all(VARIANTS[variant](), tmp_path)
    exact = variant in ("overlay in unused bits", "stored in the high bits", "shuffled", "multi-frame")
    for plane in ("axial", "coronal"):
        taken = slices_of(opened(tmp_path, plane=plane))
        if variant == "8 bits":  # 16 levels become one
            assert all(np.abs(one.image.astype(int) - expected(plane=plane)[name.partition("//")[2]].image).max() <= 2
                       for name, one in taken.items())  # fmt: skip
        else:
            assert_same(taken, expected(plane=plane), exact=exact)


def test_a_window_means_the_files_units_in_both_photometric_senses(tmp_path: Path) -> None:
    save_all(series(), tmp_path / "a")
    save_all(_inverted(), tmp_path / "b")
    dark = slices_of(opened(tmp_path / "a", intensity=[1000, 3000], slices={"min_foreground": 0}))
    bright = slices_of(opened(tmp_path / "b", intensity=[1095, 3095], slices={"min_foreground": 0}))
    for one, other in zip(dark.values(), bright.values(), strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 1


TURNS = {
    "coronal": ((1, 0, 0, 0, 0, -1), lambda v: v[::-1, :, ::-1].transpose(1, 2, 0)),
    "sagittal": ((0, 1, 0, 0, 0, -1), lambda v: v[:, ::-1, ::-1].transpose(0, 2, 1)),
    "axial, from above, turned": ((0, -1, 0, 1, 0, 0), lambda v: v.transpose(2, 0, 1)[:, ::-1]),
}


@pytest.mark.parametrize("turn", TURNS)
def test_series_of_other_planes_give_the_same_slices(tmp_path: Path, expected: Any, turn: str) -> None:
    orientation, pictures_of = TURNS[turn]
    pictures = np.ascontiguousarray(pictures_of(head()))
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    across = np.flatnonzero(np.cross(row, column))[0]
    for k, picture in enumerate(pictures):
        place = np.where(row + column > 0, AT[0], AT[-1])  # to the left, the back, the top
        place[across] = AT[k] if turn != "coronal" else -AT[k]
        if turn == "sagittal":
            place[across] = -AT[k]
        made = dataset(picture, tuple(place), number=1, bits=12, orientation=orientation)
        save(made, tmp_path / f"{k}")
    for plane in ("axial", "coronal", "sagittal"):
        assert_same(slices_of(opened(tmp_path, plane=plane)), expected(plane=plane))


def test_files_without_preamble_and_a_dicomdir(tmp_path: Path, expected: Any) -> None:
    save_all(series(), tmp_path / "bare", whole=False)
    assert (tmp_path / "bare" / "IM0000").read_bytes()[128:132] != b"DICM"
    assert_same(slices_of(opened(tmp_path / "bare")), expected())
    files = FileSet()
    for each in series(PatientName="A", StudyDate="20200101", StudyTime="12", StudyID="1", SeriesNumber=1):
        files.add(each)
    files.write(tmp_path / "disc")
    assert (tmp_path / "disc" / "DICOMDIR").is_file()
    for source in (tmp_path / "disc", tmp_path / "disc" / "DICOMDIR"):
        folder = opened(source)
        assert_same(slices_of(folder), expected())
        assert folder.not_taken().other == {"indexes (DICOMDIR)": 1}


def test_an_oblique_series_keeps_its_slices_and_tells_their_places(tmp_path: Path) -> None:
    tilt = np.radians(20)
    row, column = np.array([1, 0, 0]), np.array([0, np.cos(tilt), np.sin(tilt)])
    normal = np.cross(row, column)
    pictures = np.ascontiguousarray(head()[::-1, ::-1].transpose(2, 1, 0))
    for k, picture in enumerate(pictures):
        place = tuple(-23 * row - 23 * column + AT[k] * normal)
        save(dataset(picture, place, number=k, bits=12, orientation=(*row, *column)), tmp_path / str(99 - k))
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row * MM, column * MM, normal * MM], axis=1)
    affine[:3, 3] = -23 * row - 23 * column + AT[0] * normal
    affine[:2] *= -1
    nifti = nibabel.Nifti1Image(pictures.transpose(2, 1, 0), affine)
    (tmp_path / "nifti").mkdir()
    nibabel.save(nifti, tmp_path / "nifti" / "head.nii")
    other = open_source(DataConfig(source=str(tmp_path / "nifti"), format="nifti", image_size=SIDE))
    wanted = {name.partition("//")[2]: one for name, one in slices_of(other).items()}
    taken = {name.partition("//")[2]: one for name, one in slices_of(opened(tmp_path)).items()}
    assert taken.keys() == wanted.keys()
    for number, one in wanted.items():
        assert np.array_equal(taken[number].image, one.image)
        assert taken[number].geometry.position_mm == pytest.approx(one.geometry.position_mm, abs=1e-3)


@pytest.mark.parametrize(
    ("fields", "sequence"),
    [
        ({"SeriesDescription": "AX T2 FLAIR FS"}, "FLAIR"),
        ({"SeriesDescription": "ep2d_diff_3scan_trace"}, "dwi"),
        ({"SeriesDescription": "t2_tse_tra_512"}, "T2w"),
        ({"SeriesDescription": "Sag T1 FLAIR"}, "T1w"),
        ({"SeriesDescription": "MUELLER", "ProtocolName": "SWI_Images"}, "SWI"),
        ({"SeriesDescription": "MUELLER"}, None),
        ({"SeriesDescription": "", "AcquisitionContrast": "PROTON_DENSITY"}, "PDw"),
        ({"SeriesDescription": "x", "ScanningSequence": "SE", "EchoTime": 90, "RepetitionTime": 4000}, "T2w"),
        ({"SeriesDescription": "x", "ScanningSequence": ["SE", "IR"], "EchoTime": 90, "RepetitionTime": 9000,
          "InversionTime": 2500}, "FLAIR"),
        ({"SeriesDescription": "x", "ScanningSequence": ["GR", "IR"], "EchoTime": 3, "RepetitionTime": 2300,
          "InversionTime": 900}, "T1w"),
    ],
)  # fmt: skip
def test_sequences_are_words_of_a_list(tmp_path: Path, fields: dict[str, Any], sequence: str | None) -> None:
    source = opened(save_all(series(**fields)[10:13], tmp_path), slices={"min_foreground": 0})
    names = source.scan()[0]
    assert {source.label(name) for name in names} == {sequence or "unlabelled"}
    assert {one.geometry.sequence for one in slices_of(source).values() if one.geometry} == {sequence}


def test_several_volumes_of_a_series(tmp_path: Path, expected: Any) -> None:
    later = series(head() // 2, TemporalPositionIdentifier=2)
    now = series(TemporalPositionIdentifier=1)
    save_all([each for pair in zip(later, now, strict=True) for each in pair], tmp_path / "a")
    source = opened(tmp_path / "a")
    assert source.not_taken().other == {"further volumes of series with several (data.volumes)": 1}
    assert_same(slices_of(source), expected())
    second = slices_of(opened(tmp_path / "a", volumes=1))
    assert np.abs(next(iter(second.values())).image.astype(int) - next(iter(expected().values())).image).max() <= 1
    everything = opened(tmp_path / "a", volumes="all")
    assert {name.count("//") for name in slices_of(everything)} == {2}
    assert len({everything.volume(name) for name in everything.scan()[0]}) == 1
    (reason,) = set(reasons_of(opened(tmp_path / "a", volumes=2)).values())
    assert reason == "has 2 volumes, and data.volumes asks for number 2"
    # the scanner was stopped in the middle of the second
    save_all([*now, *later[:7]], tmp_path / "b")
    stopped = opened(tmp_path / "b")
    assert stopped.not_taken().other == {"pictures of incomplete volumes": 7}
    assert_same(slices_of(stopped), expected())


def test_missing_slices_are_counted_and_the_others_taken(tmp_path: Path, expected: Any) -> None:
    made = series()
    save_all([each for number, each in enumerate(made) if number not in (9, 14, 15)], tmp_path)
    source = opened(tmp_path)
    taken, whole = slices_of(source), expected()
    numbers = {name.partition("//")[2] for name in taken}
    assert whole.keys() - numbers == {"0009", "0014", "0015"}
    assert source.not_taken().other == {"slices that are missing between those of a series": 3}
    for name, one in taken.items():  # the scale of the volume is that of the slices that are there
        assert one.geometry.position_mm == whole[name.partition("//")[2]].geometry.position_mm
        assert np.abs(one.image.astype(int) - whole[name.partition("//")[2]].image).max() <= 3
    ((name, reason),) = reasons_of(opened(tmp_path, plane="coronal")).items()
    assert (name, reason) == (
        "IM0000",
        "3 of 24 slices are missing: only axial slices could be cut (data.plane)",
    )


def test_a_slice_that_cannot_be_decoded_costs_no_other(tmp_path: Path, expected: Any) -> None:
    made = series(codec="JPEG-LS")
    save_all(made, tmp_path)
    content = (tmp_path / "IM0011").read_bytes()
    at = content.rindex(b"\xff\xda")
    (tmp_path / "IM0011").write_bytes(content[: at + 40] + bytes(len(content) - at - 40))
    source = opened(tmp_path)
    reasons = reasons_of(source)
    assert set(reasons) == {"IM0000//0011"}
    assert reasons["IM0000//0011"].startswith("slice 12 of 24: ")
    names = [name for name in source.scan()[0] if name not in reasons]
    assert len(names) == SIDE - 1
    data = DataConfig(source=str(tmp_path), path=str(tmp_path / "d"), format="dicom", image_size=SIDE,
                      splits=(1, 0, 0), max_rejected_fraction=1)  # fmt: skip
    dataset = prepare_dataset(data, serial)
    assert dataset.manifest.num == len(expected()) - 1
    assert [file.reason[:16] for file in dataset.manifest.rejected] == ["slice 12 of 24: "]


def test_series_that_are_no_volume_are_refused_with_the_reason(tmp_path: Path) -> None:
    three_planes = [
        *series(series="1")[:3],
        *series(series="1", orientation=(1, 0, 0, 0, 0, -1))[:3],
        *series(series="1", orientation=(0, 1, 0, 0, 0, -1))[:3],
    ]
    sizes = series(series="2")
    sizes[3:5] = [dataset(np.ones((8, 8), np.uint16), (0, 0, 0), number=1, series="2")] * 2
    uneven = series(series="3")
    for number, each in enumerate(uneven):
        each.ImagePositionPatient = [0, 0, float(2 * number + (number % 3) * 0.5)]
    scattered = [series(series="4")[number] for number in (0, 1, 9)]
    lut = series(series="5")[:1]
    lut[0].ModalityLUTSequence = [Dataset()]
    mosaic = series(series="6", ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])[:1]
    frames = [dataset(np.ones((3, 8, 8), np.uint16), (0, 0, 0), number=1, series="7", NumberOfFrames=3)]
    spacings = series(series="8")
    spacings[4].PixelSpacing = [1, 1]
    placeless = series(series="9")[:1]
    del placeless[0].ImagePositionPatient
    for name, made in {
        "planes": three_planes, "sizes": sizes[:4], "uneven": uneven, "scattered": scattered, "lut": lut,
        "mosaic": mosaic, "frames": frames, "spacings": spacings, "placeless": placeless,
    }.items():  # fmt: skip
        save_all(made, tmp_path / name)
    reasons = {name.partition("/")[0]: reason for name, reason in reasons_of(opened(tmp_path)).items()}
    patterns = {
        "planes": r"mixed orientations: 3 in one series, as in localizers \(9 files of a series\)",
        "sizes": "several sizes",
        "uneven": "uneven distances, 1.00 to 2.50 mm",
        "scattered": "7 of 10 slices are missing",
        "lut": "look-up table",
        "mosaic": "a mosaic: slices side by side in one picture; export",
        "frames": "3 frames without positions",
        "spacings": "several pixel spacings",
        "placeless": "no position or orientation",
    }
    assert reasons.keys() == patterns.keys()
    for name, pattern in patterns.items():
        assert re.search(pattern, reasons[name]), (name, reasons[name])


def test_what_is_no_scan_is_counted_and_listed_by_series(tmp_path: Path) -> None:
    others: dict[str, dict[str, Any]] = {
        "localizers": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "derived pictures (ImageType)": {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
        "secondary captures and screenshots": {"SOPClassUID": uid.SecondaryCaptureImageStorage},
        "pictures with text in them (BurnedInAnnotation)": {"BurnedInAnnotation": "YES"},
        "phase, real and imaginary parts (ImageType)": {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
        "colour pictures": {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
        "objects of another kind than MR images (CT Image Storage)": {"SOPClassUID": uid.CTImageStorage},
    }
    for number, fields in enumerate(others.values()):
        save_all(series(series=f"1.{number}", **fields)[:4], tmp_path / "scans" / f"{number}")
    save_all(series(), tmp_path / "scans" / "head")
    save(series()[0], tmp_path / "scans" / "head" / "sent_again")
    (tmp_path / "scans" / "notes.txt").write_text("no DICOM")
    (tmp_path / "scans" / "empty").write_bytes(b"")
    (tmp_path / "scans" / ".hidden").write_bytes(b"")
    copy = pydicom.dcmread(tmp_path / "scans" / "head" / "IM0000")
    save(copy, tmp_path / "scans" / "head" / "copy")
    source = opened(tmp_path / "scans")
    other = source.not_taken().other
    for reason in others:
        assert other.pop(reason) == 4
    assert other == {
        "copies of files that are there twice (SOPInstanceUID)": 1,
        "files and folders that are hidden, left behind by systems or made by lwddpm": 1,
        "files that are no DICOM": 2,
        "pictures of incomplete volumes": 1,
    }
    listed = source.not_taken().listed
    assert [file.reason for file in listed] == [f"{reason}, 4 files" for reason in others]
    data = DataConfig(
        source=str(tmp_path / "scans"), path=str(tmp_path / "d"), image_size=SIDE, format="dicom", splits=(1, 0, 0)
    )
    manifest = prepare_dataset(data, serial).manifest
    assert sorted(file.reason for file in manifest.not_taken.listed) == sorted(file.reason for file in listed)
    assert not {file.source for file in manifest.not_taken.listed} & {file.source for file in listed}
    assert "not taken: 4 localizers" in remarks(manifest)


def test_series_of_a_subject_stay_in_one_split(tmp_path: Path) -> None:
    """Three series of each of six patients, and one study of a patient whom nobody names."""
    random = np.random.default_rng(0)
    for patient in range(6):
        for number in range(3):
            noisy = (head() + random.integers(0, 900, (SIDE,) * 3)).astype(np.uint16)
            fields = {"SeriesDescription": ("t1", "t2", "flair")[number], "StudyInstanceUID": f"7.{patient}.{number}"}
            made = series(noisy, series=f"1.{patient}.{number}", patient=f"MUELLER{patient}", **fields)
            save_all(made, tmp_path / "scans" / f"{patient}-{number}")
    for number in range(2):
        noisy = (head() + random.integers(0, 900, (SIDE,) * 3)).astype(np.uint16)
        save_all(
            series(noisy, series=f"2.{number}", patient="", StudyInstanceUID="8"), tmp_path / "scans" / f"x-{number}"
        )
    data = DataConfig(source=str(tmp_path / "scans"), path=str(tmp_path / "d"), image_size=SIDE, format="dicom")
    check_source(data)
    dataset = prepare_dataset(data, serial)
    assert dataset.label_names == ("FLAIR", "T1w", "T2w")
    assert dataset.manifest.duplicates.groups == 7
    subjects = {split: {name.split("/")[0] for name in dataset.sources(split)} for split in SPLITS}
    assert sum(map(len, subjects.values())) == len(set.union(*subjects.values())) == 8  # two series have no subject
    assert any("no subject is known of 1 file " in line for line in remarks(dataset.manifest))
    for split in SPLITS:
        for column, name in zip(dataset.scan_columns(split), dataset.sources(split), strict=True):
            assert name.startswith(f"{column.volume}//")
            assert (column.plane, column.spacing_mm) == ("axial", [MM] * 3)
    assert prepare_dataset(data, serial) == dataset
    source = open_source(data)
    assert b"MUELLER" in pickle.dumps(source)
    assert b"MUELLER" not in pickle.dumps(source.portion(source.scan()[0]))  # which workers receive


def test_many_headers_are_read_by_processes_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_all(series(), tmp_path)
    (tmp_path / "z.dcm").write_bytes(b"damaged")
    alone = opened(tmp_path)
    monkeypatch.setattr("lwddpm.data.header_scan.WORTHWHILE", 1)
    monkeypatch.setattr("lwddpm.data.header_scan.BLOCK", 4)
    from lwddpm.data.dicom_folder import _read_folder

    _read_folder.cache_clear()
    assert opened(tmp_path) == alone
    assert len(alone.contents.volumes) == len(alone.contents.refused) == 1


def test_wrong_settings_say_what_to_do(tmp_path: Path) -> None:
    save_all(series(), tmp_path / "a")
    with pytest.raises(DataError, match=r"data\.label: age: of DICOM must be 'sequence'"):
        opened(tmp_path / "a", label="age")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"holds no dicom volumes .*; lwddpm data inspect says"):
        check_source(DataConfig(source=str(tmp_path / "b"), format="dicom"))
    with pytest.raises(DataError, match=r"no such folder; give a folder of DICOM files"):
        check_source(DataConfig(source=str(tmp_path / "c"), format="dicom"))
