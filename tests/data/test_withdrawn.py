"""Withdrawal lists: who is on one is in no dataset that is prepared afterwards, and nobody is named."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from lwddpm.config import DataConfig
from lwddpm.data.manifest import SPLITS
from lwddpm.data.prepare import check_source, prepare_dataset
from lwddpm.data.pseudonyms import pseudonyms_of
from lwddpm.data.remarks import remarks
from lwddpm.errors import DataError

SIDE = 24


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", "a key of these tests alone")


def serial(function: Any, items: Any, *, description: str) -> Any:
    return map(function, items)


def volumes(folder: Path) -> DataConfig:
    """Two volumes of each of five subjects."""
    for subject in range(5):
        for run in range(2):
            values = np.random.default_rng((subject, run)).integers(0, 4000, (SIDE, SIDE, 4)).astype(np.int16)
            file = folder / "scans" / f"sub-MUELLER{subject}" / f"sub-MUELLER{subject}_run-{run}_T1w.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), file)
    return DataConfig.model_validate(
        {
            "source": str(folder / "scans"), "path": str(folder / "d"), "image_size": SIDE, "format": "nifti",
            "slices": {"min_foreground": 0}, "withdrawn": str(folder / "withdrawn.txt"), "splits": [0.6, 0.2, 0.2],
        }
    )  # fmt: skip


def held(data: DataConfig, *, fresh: bool = False) -> tuple[Any, set[str]]:
    dataset = prepare_dataset(data, serial, fresh=fresh)
    return dataset.manifest, {name for split in SPLITS for name in dataset.sources(split)}


def test_subjects_files_and_hashes_are_left_out(tmp_path: Path) -> None:
    data = volumes(tmp_path)
    pseudonyms = pseudonyms_of(data)
    whole, everything = held(data.model_copy(update={"withdrawn": None, "path": str(tmp_path / "whole")}))
    assert len(everything) == 5 * 2 * 4
    file = "sub-MUELLER2/sub-MUELLER2_run-1_T1w.nii.gz"
    (tmp_path / "withdrawn.txt").write_text(
        "# asked in writing\n\nsub-MUELLER0\n"
        f"{pseudonyms.subject('sub-MUELLER1')}  # by the hash\n{pseudonyms.file(file)}\n"
        "sub-NOBODY\nsub-MUELLER\n"
    )
    check_source(data)
    manifest, names = held(data)
    gone = {
        name
        for name in everything
        if name.split("/")[0] in {pseudonyms.subject(f"sub-MUELLER{i}") for i in (0, 1)}
        or name.split("//")[0] == pseudonyms.name(file, "sub-MUELLER2")
    }
    assert len(gone) == (2 * 2 + 1) * 4
    assert names == everything - gone
    assert manifest.version != whole.version
    assert manifest.not_taken.withdrawn == len(gone)
    said = remarks(manifest)
    assert "not taken: 20 slices that data.withdrawn leaves out" in said
    assert "2 of 5 entries of data.withdrawn match nothing in this source (lines 6 and 7)" in said
    assert "MUELLER" not in manifest.model_dump_json()


def test_a_longer_list_is_another_dataset_where_it_matters(tmp_path: Path) -> None:
    data = volumes(tmp_path)
    (tmp_path / "withdrawn.txt").write_text("sub-MUELLER0\n")
    first, _ = held(data)
    with (tmp_path / "withdrawn.txt").open("a") as file:
        file.write("somebody-elsewhere\n")
    assert held(data)[0] == first
    with (tmp_path / "withdrawn.txt").open("a") as file:
        file.write("sub-MUELLER3\n")
    with pytest.raises(DataError, match=r"other files now .*, or data\.withdrawn leaves out others\); .*--fresh"):
        check_source(data)
    again, names = held(data, fresh=True)
    assert (again.version != first.version, len(names)) == (True, 3 * 2 * 4)


def test_lists_apply_to_images_too(tmp_path: Path) -> None:
    for number in range(6):
        Image.fromarray(np.random.default_rng(number).integers(256, size=(30, 30), dtype=np.uint8)).save(
            tmp_path / f"sub-{number // 2}_{number}.png"
        )
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "withdrawn.txt").write_text("sub-1\nsub-0_0.png\n")
    data = DataConfig.model_validate(
        {
            "source": str(tmp_path), "path": str(tmp_path / "list" / "d"), "image_size": SIDE, "exclude": ["list/*"],
            "subject_pattern": "(sub-[0-9])", "withdrawn": str(tmp_path / "list" / "withdrawn.txt"),
            "splits": [1, 0, 0],
        }
    )  # fmt: skip
    assert held(data)[1] == {"sub-0_1.png", "sub-2_4.png", "sub-2_5.png"}


def test_lists_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    data = volumes(tmp_path)
    with pytest.raises(DataError, match=r"data\.withdrawn: .*: no such file; give a list of subjects"):
        check_source(data)
    (tmp_path / "withdrawn.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"cannot be read \(it is no UTF-8 text\)"):
        check_source(data)
    (tmp_path / "withdrawn.txt").write_text("\n".join(f"sub-MUELLER{i}" for i in range(5)))
    with pytest.raises(DataError, match=r"leaves none of 40 slices in; check the list") as error:
        check_source(data)
    assert "MUELLER" not in str(error.value)
    (tmp_path / "withdrawn.txt").write_text("# nobody yet\n")
    assert held(data)[0].not_taken.unmatched == ""
