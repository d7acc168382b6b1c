"""Nothing that identifies a person is written: identifiers are planted wherever a NIfTI source can carry one."""

import json
import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from nibabel.nifti1 import Nifti1Extension
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from tests.data.dicom_files import dataset, save

from lwddpm.config import DataConfig, PrepareJob, TrainJob
from lwddpm.data.inspection import inspect_folder
from lwddpm.data.prepare import check_source, prepare_dataset
from lwddpm.data.pseudonyms import key_file, pseudonyms_of
from lwddpm.data.remarks import remarks
from lwddpm.data.store import SPLITS
from lwddpm.data.store import Dataset as PreparedDataset
from lwddpm.errors import ConfigError, DataError
from lwddpm.jobfile import load_job
from lwddpm.kinds.dry_run import plan
from lwddpm.tracking.earlier_runs import parameters_of
from lwddpm.tracking.notes import run_note
from lwddpm.tracking.rundir import job_yaml

PLANTED = "MUELLER"
SECRET = "a key of this test alone"


def serial(function, items, *, description):
    return map(function, items)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LWDDPM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", SECRET)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def volume(seed: int) -> nibabel.Nifti1Image:
    """A volume with the planted name in every text of its header and in an extension of each common kind."""
    values = np.zeros((16, 16, 6), np.int16)
    values[3:13, 3:13] = np.random.default_rng(seed).integers(100, 999, (10, 10, 6))
    image = nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 4.0, 1.0]))
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = f"{PLANTED}{seed}".encode()
    for code in (2, 4, 6):  # DICOM, AFNI, comment
        image.header.extensions.append(Nifti1Extension(code, f"PatientName={PLANTED}".encode()))
    return image


def planted_source(root: Path, num: int = 6) -> Path:
    """A BIDS folder below a folder of that name, with the name in folders, files, sessions, suffixes and tables."""
    lines = ["participant_id\tname\tgroup"]
    for i in range(num):
        subject = f"sub-{PLANTED}{i}"
        folder = root / PLANTED / subject / f"ses-{PLANTED}" / "anat"
        folder.mkdir(parents=True)
        nibabel.save(volume(i), folder / f"{subject}_acq-{PLANTED}_T1w.nii.gz")
        nibabel.save(volume(100 + i), folder / f"{subject}_{PLANTED}.nii")
        lines.append(f"{subject}\t{PLANTED}\t{i % 2}")
    (root / PLANTED / f"{PLANTED}_broken.nii.gz").write_bytes(PLANTED.encode() * 50)
    (root / PLANTED / f"{PLANTED}.json").write_text(json.dumps({"PatientName": PLANTED}))
    (root / PLANTED / f".{PLANTED}").mkdir()
    (root / PLANTED / "participants.tsv").write_text("\n".join(lines))
    return root / PLANTED


PLANTED_UID, PLANTED_DATE = "2.25.471147114711", "19470811"
TEXTS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
# what decides whether a file is taken and how it is shown
TECHNICAL = {
    "BurnedInAnnotation", "ImageType", "PhotometricInterpretation", "SOPClassUID", "AcquisitionContrast",
    "ScanningSequence", "SpecificCharacterSet",
}  # fmt: skip


def planted_slice(patient: int, position: int) -> Dataset:
    """A picture with the name in every element of the data dictionary that can hold a text, which are more than those
    of the basic profile (PS3.15 E.1), in private ones, in sequences, overlays and curves; and dates and UIDs."""
    random = np.random.default_rng((patient, position))
    made = dataset(random.integers(100, 999, (16, 16), np.uint16), (0, 0, 4.0 * position), number=position)
    nested = Dataset()
    nested.PatientName = nested.PatientID = nested.PatientComments = nested.InstitutionAddress = f"{PLANTED}{patient}"
    for tag, (vr, _, name, _, keyword) in (
        DicomDictionary.items() if position == 0 else ()
    ):  # of a series one file has all
        if keyword in TECHNICAL or tag in made or tag >> 16 < 8 or "Command" in name:
            continue
        value = {"UI": PLANTED_UID, "DA": PLANTED_DATE, "DT": PLANTED_DATE, "TM": "080808.47"}.get(vr)
        value = f"{PLANTED}{patient}" if vr in TEXTS else value
        if value:
            made.add_new(tag, vr, value)
        if vr == "SQ" and "FunctionalGroups" not in keyword and "LUT" not in keyword:
            made.add_new(tag, vr, [nested])
    block = made.private_block(0x29, f"{PLANTED} CSA", create=True)
    block.add_new(0x10, "OB", f"PatientName={PLANTED}".encode())
    block.add_new(0x11, "LO", PLANTED)
    for group in (0x6000, 0x6002, 0x5000):
        made.add_new((group << 16) + 0x22, "LO", PLANTED)
        made.add_new((group << 16) + 0x3000, "OB", f"{PLANTED} ".encode() * 5)
    made.PatientID, made.StudyInstanceUID = f"{PLANTED}{patient}", f"{PLANTED_UID}.{patient}"
    made.SeriesInstanceUID = f"{PLANTED_UID}.{patient}.{patient}"
    made.SOPInstanceUID = f"{PLANTED_UID}.{patient}.{position}"
    made.SeriesDescription = f"{PLANTED} t1 mprage"
    return made


def planted_series(root: Path, num: int = 6) -> Path:
    """DICOM series below folders of that name, one of them refused, one passed over, and files that are damaged."""
    with pydicom.config.disable_value_validation():
        for patient in range(num + 2):
            for position in range(6):
                made = planted_slice(patient, position)
                if patient == num:
                    made.ImageType = ["DERIVED", "SECONDARY", PLANTED]
                if patient == num + 1:
                    made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0] if position % 2 else [1, 0, 0, 0, 0, -1]
                save(made, root / PLANTED / f"{PLANTED}{patient}" / PLANTED / f"{PLANTED}.{position}")
    content = (root / PLANTED / f"{PLANTED}0" / PLANTED / f"{PLANTED}.0").read_bytes()
    (root / PLANTED / f"{PLANTED}_cut").write_bytes(content[: len(content) // 2])
    (root / PLANTED / f"{PLANTED}_broken.dcm").write_bytes(PLANTED.encode() * 50)
    (root / PLANTED / f"{PLANTED}.txt").write_text(PLANTED)
    return root / PLANTED


def config(source: Path, path: Path, **settings: Any) -> DataConfig:
    places = {"source": str(source), "path": str(path), "format": "nifti", "image_size": 16, "splits": (0.6, 0.2, 0.2)}
    return DataConfig.model_validate(places | {"max_rejected_fraction": 0.2} | settings)


def written(*folders: Path) -> str:
    """Everything in all files of some folders, with their names; what is compressed is read as well."""
    texts = []
    for path in (path for folder in folders for path in folder.rglob("*")):
        texts.append(path.name)
        if path.is_file():
            texts.append(path.read_bytes().decode("latin-1"))
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            texts += [str(table.schema), str(table.drop_columns(["image"]).to_pylist())]
    return "\n".join(texts)


def test_planted_identifiers_are_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    data = config(planted_source(tmp_path / "in"), tmp_path / "out" / "d", label="group")
    check_source(data)
    dataset = prepare_dataset(data, serial)
    for split in SPLITS:
        assert len(dataset.images(split))
    assert len(dataset.manifest.rejected) == 1
    kept = [written(tmp_path / "out", tmp_path / "cache"), *remarks(dataset.manifest), dataset.manifest.source]
    messages = []
    for changed in (
        {"max_rejected_fraction": 0.0, "path": str(tmp_path / "other")},
        {"subject_pattern": "(nobody)", "path": str(tmp_path / "other")},
        {"subject_pattern": "(sub-[A-Z]+0)", "path": str(tmp_path / "other")},
        {"splits": (0.5, 0.2, 0.3)},
        {"slices": {"min_foreground": 1}, "path": str(tmp_path / "other")},
    ):
        with pytest.raises(DataError) as refused:
            prepare_dataset(DataConfig.model_validate(data.model_dump() | changed), serial)
        messages.append(str(refused.value))
    (Path(data.source) / f"sub-{PLANTED}9_T1w.nii").write_bytes(b"")
    with pytest.raises(DataError, match="holds other files now") as refused:
        prepare_dataset(data, serial)
    output = "".join(capfd.readouterr()) + caplog.text
    for text in (*kept, *messages, str(refused.value), output):
        assert PLANTED.lower() not in text.lower()
        assert SECRET not in text
    assert dataset.label_names == ("0", "1")


def test_identifiers_in_every_element_of_dicom_files_are_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    source = planted_series(tmp_path / "in")
    first = pydicom.dcmread(source / f"{PLANTED}0" / PLANTED / f"{PLANTED}.0")
    assert len(first) > 3000
    assert (first.PatientName, first.InstitutionName, first.PatientBirthDate) == (
        f"{PLANTED}0", f"{PLANTED}0", PLANTED_DATE,
    )  # fmt: skip
    data = config(source, tmp_path / "out" / "d", format="dicom", max_rejected_fraction=0.5)
    check_source(data)
    dataset = prepare_dataset(data, serial)
    for split in SPLITS:
        assert len(dataset.images(split))
    assert len(dataset.manifest.rejected) == 3
    assert [file.reason for file in dataset.manifest.not_taken.listed] == ["derived pictures (ImageType), 6 files"]
    kept = [written(tmp_path / "out", tmp_path / "cache"), *remarks(dataset.manifest), dataset.manifest.source]
    kept.append(json.dumps(inspect_folder(str(source))))
    kept.append(str(plan(PrepareJob(kind="prepare", name="p", data=data.model_copy(update={"path": "other"})))))
    kept[-1] = kept[-1].replace(str(source), "")  # the job as its owner has written it
    for changed in (
        {"max_rejected_fraction": 0.0, "path": str(tmp_path / "other")},
        {"subject_pattern": "(nobody)", "path": str(tmp_path / "other")},
        {"splits": (0.5, 0.2, 0.3)},
        {"label": PLANTED, "path": str(tmp_path / "other")},
    ):
        with pytest.raises(DataError) as refused:
            prepare_dataset(DataConfig.model_validate(data.model_dump() | changed), serial)
        kept.append(str(refused.value).replace(f"data.label: {PLANTED}", ""))  # so too
    output = "".join(capfd.readouterr()) + caplog.text
    for text in (*kept, output):
        for planted in (PLANTED.lower(), PLANTED_UID, PLANTED_DATE, "080808", SECRET):
            assert planted not in text.lower()
    assert dataset.label_names == ("T1w",)


def test_what_mlflow_and_run_folders_get_of_a_job_names_no_source(tmp_path: Path) -> None:
    job = load_job("kaggle_small", [f"data.source={tmp_path}/{PLANTED}", "data.format=nifti"])
    assert isinstance(job, TrainJob)
    assert job.data.source == f"{tmp_path}/{PLANTED}"
    for text in (job_yaml(job), str(parameters_of(job)), run_note(job), job.data.dataset_path):
        assert PLANTED.lower() not in text.lower()
    assert "nifti volumes" in parameters_of(job)["data.source"]
    kept = load_job(
        "kaggle_small", [f"data.source={PLANTED}", "data.format=nifti", "data.keep_subject_ids=public data"]
    )
    images = load_job("kaggle_small", [f"data.source={PLANTED}"])
    for open_ in (kept, images):
        assert parameters_of(open_)["data.source"] == PLANTED


def _subjects(dataset: PreparedDataset) -> set[str]:
    return {name.partition("/")[0] for split in SPLITS for name in dataset.sources(split)}


def test_the_same_key_gives_the_same_dataset_and_another_one_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = planted_source(tmp_path / "in")
    one, two = (prepare_dataset(config(source, tmp_path / name), serial) for name in "ab")
    assert one.version == two.version
    assert len(_subjects(one)) == 6
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", "another key of this test")
    other = prepare_dataset(config(source, tmp_path / "c"), serial)
    assert not _subjects(one) & _subjects(other)
    assert prepare_dataset(config(source, tmp_path / "a"), serial).version == one.version  # it is there already
    kept = prepare_dataset(config(source, tmp_path / "e", keep_subject_ids="public data set"), serial)
    assert _subjects(kept) == {f"sub-{PLANTED}{i}" for i in range(6)}


def test_without_a_key_a_private_one_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LWDDPM_SUBJECT_KEY")
    data = config(tmp_path, tmp_path / "d")
    first = pseudonyms_of(data)
    assert key_file() == tmp_path / "home" / ".lwddpm" / "subject_key"
    assert key_file().stat().st_mode & 0o077 == 0
    assert pseudonyms_of(data) == first
    assert first.key is not None
    assert len(first.key) == 64
    assert pseudonyms_of(DataConfig(source=str(tmp_path))).subject("sub-1") == "sub-1"


def test_a_short_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", "1234")
    with pytest.raises(ConfigError, match=r"LWDDPM_SUBJECT_KEY: must have at least 16 characters, got 4: .*token_hex"):
        pseudonyms_of(config(tmp_path, tmp_path / "d"))
