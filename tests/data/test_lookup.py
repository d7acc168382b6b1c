"""Slices of a dataset are found by subject, by file and by picture, whether names are hashed or not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from tests.data.test_withdrawn import volumes

from lwddpm.config import DataConfig
from lwddpm.data import lookup
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.pseudonyms import existing_pseudonyms
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError

SECRET = "a key of these tests alone"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", SECRET)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def serial(function: Any, items: Any, *, description: str) -> Any:
    return map(function, items)


@pytest.fixture
def hashed(tmp_path: Path) -> Dataset:
    """Two volumes of four slices of each of five subjects."""
    return prepare_dataset(volumes(tmp_path).model_copy(update={"withdrawn": None}), serial)


def test_a_subject_is_found_by_id_and_by_hash(hashed: Dataset) -> None:
    pseudonyms = existing_pseudonyms()
    by_id = list(lookup.find_subject(hashed, "sub-MUELLER3", pseudonyms))
    assert len(by_id) == 8
    assert len({slice_.split for slice_ in by_id}) == 1
    assert {slice_.subject for slice_ in by_id} == {pseudonyms.subject("sub-MUELLER3")}
    assert list(lookup.find_subject(hashed, pseudonyms.subject("sub-MUELLER3") or "", pseudonyms)) == by_id
    assert not list(lookup.find_subject(hashed, "sub-MUELLER", pseudonyms))
    assert lookup.is_hashed(hashed.manifest)


def test_another_key_finds_nobody(hashed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("another key of these tests")
    assert not list(lookup.find_subject(hashed, "sub-MUELLER3", existing_pseudonyms(tmp_path / "key")))
    (tmp_path / "key").write_text(f"{SECRET}\n")
    assert list(lookup.find_subject(hashed, "sub-MUELLER3", existing_pseudonyms(tmp_path / "key")))
    monkeypatch.delenv("LWDDPM_SUBJECT_KEY")
    assert existing_pseudonyms().key is None
    assert not (tmp_path / "home").exists()  # no key is made by looking
    (tmp_path / "key").write_text("short")
    with pytest.raises(ConfigError, match="must have at least 16 characters"):
        existing_pseudonyms(tmp_path / "key")


def test_a_file_is_found_by_name_slice_and_hash(hashed: Dataset) -> None:
    pseudonyms = existing_pseudonyms()
    file = "sub-MUELLER2/sub-MUELLER2_run-1_T1w.nii.gz"
    found = list(lookup.find_file(hashed, file, pseudonyms))
    assert len(found) == 4
    assert {slice_.source.partition("//")[0] for slice_ in found} == {pseudonyms.name(file, "sub-MUELLER2")}
    assert list(lookup.find_file(hashed, found[0].source.partition("//")[0], pseudonyms)) == found
    assert list(lookup.find_file(hashed, pseudonyms.file(file), pseudonyms)) == found
    (one,) = lookup.find_file(hashed, f"{file}//0002", pseudonyms)
    assert one.source.endswith("//0002")
    assert not list(lookup.find_file(hashed, "sub-MUELLER2_run-1_T1w.nii.gz", pseudonyms))


def test_entries_of_a_list_are_known_by_name_and_hash(hashed: Dataset) -> None:
    pseudonyms = existing_pseudonyms()
    file = "sub-MUELLER2/sub-MUELLER2_run-1_T1w.nii.gz"
    there = ["sub-MUELLER0", pseudonyms.subject("sub-MUELLER1") or "", file, pseudonyms.file(file)]
    assert lookup.entries_held(hashed, [*there, "sub-9", "MUELLER", "T1w"], pseudonyms) == set(there)


def _pictures(folder: Path) -> DataConfig:
    random = np.random.default_rng(0)
    for number in range(12):
        coarse = Image.fromarray(random.integers(20, 255, (9, 7), dtype=np.uint8))
        file = folder / "scans" / "glioma" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((90, 120), Image.Resampling.BICUBIC).save(file)
    return DataConfig(source=str(folder / "scans"), path=str(folder / "d"), image_size=48)


def test_a_picture_is_found_as_it_is_resized_mirrored_and_changed(tmp_path: Path) -> None:
    dataset = prepare_dataset(_pictures(tmp_path), serial)
    original = tmp_path / "scans" / "glioma" / "5.png"
    picture = Image.open(original)
    prepared = next(
        image
        for split in ("train", "validation", "test")
        for name, image in zip(dataset.sources(split), dataset.images(split), strict=True)
        if name == "glioma/5.png"
    )
    changed = {
        "exact": picture,
        "near": ImageEnhance.Brightness(picture.resize((180, 240))).enhance(0.8),
        "mirrored": picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "exact, of the dataset's size": Image.fromarray(np.asarray(prepared)),
    }
    for match, image in changed.items():
        image.save(tmp_path / "asked.png")
        (found,) = lookup.find_image(dataset, tmp_path / "asked.png")
        assert (found.source, found.match) == ("glioma/5.png", match.partition(",")[0])
        assert (found.correlation or 0) > 0.9
    Image.fromarray(np.random.default_rng(9).integers(0, 255, (48, 48), dtype=np.uint8)).save(tmp_path / "asked.png")
    assert not list(lookup.find_image(dataset, tmp_path / "asked.png"))
    (tmp_path / "asked.png").write_text("no picture")
    with pytest.raises(ConfigError, match=r"--image .*asked\.png: .*; give a picture"):
        list(lookup.find_image(dataset, tmp_path / "asked.png"))


def test_subjects_of_images_are_found_by_their_id(tmp_path: Path) -> None:
    data = _pictures(tmp_path).model_copy(update={"subject_pattern": r"/(\d+)\.png"})
    dataset = prepare_dataset(data, serial)
    (found,) = lookup.find_subject(dataset, "5", existing_pseudonyms())
    assert (found.source, found.match) == ("glioma/5.png", "subject")
    (found,) = lookup.find_file(dataset, "glioma/5.png", existing_pseudonyms())
    assert found.subject == "5"
