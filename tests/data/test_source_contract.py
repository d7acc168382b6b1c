"""What preparation relies on, of every source. A new one is a line in SOURCES."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from tests.data.dicom_files import save, series_of

from lwddpm.config import DataConfig
from lwddpm.data.prepare import open_source, prepare_dataset
from lwddpm.data.sources import Source, UnusableFile

SIZE = 24


def _image_folder(folder: Path) -> dict[str, Any]:
    """30 pictures of different sizes in two classes, 3 of each subject; a copy, and two files that are no pictures."""
    random = np.random.default_rng(0)
    for index in range(30):
        file = folder / "scans" / ("glioma", "no_tumor")[index % 2] / f"sub-{index // 3:02d}_{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(256, size=(20 + index, 50), dtype=np.uint8)).save(file)
    (folder / "scans" / "no_tumor" / "copy.png").write_bytes(
        (folder / "scans" / "glioma" / "sub-00_0.png").read_bytes()
    )
    (folder / "scans" / "glioma" / "broken.png").write_text("not a picture")
    (folder / "scans" / "empty.png").touch()
    return {"source": str(folder / "scans"), "subject_pattern": "(sub-[0-9]+)", "max_unmatched_fraction": 0.1}


def _phantoms(folder: Path) -> dict[str, Any]:
    return {"source": "phantom", "phantom_count": 12}


def _phantom_volumes(folder: Path) -> dict[str, Any]:
    slices = {"step_mm": 20, "min_foreground": 0}  # none is left out when it is read
    return {"source": "phantom", "phantom": "volumes", "phantom_count": 5, "slices": slices}


def _stacks(folder: Path) -> dict[str, Any]:
    """Files of 6 pages in two classes, a page of their own in a third."""
    random = np.random.default_rng(0)
    for index in range(8):
        file = folder / "scans" / ("glioma", "no_tumor")[index % 2] / f"{index}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        pages = [Image.fromarray(random.integers(256, size=(40, 50 + index), dtype=np.uint8)) for _ in range(6)]
        pages[0].save(file, save_all=True, append_images=pages[1:])
    (folder / "scans" / "single").mkdir()
    pages[0].rotate(90).save(folder / "scans" / "single" / "0.tif")
    return {"source": str(folder / "scans"), "pages": "all"}


VOLUMES = {"keep_subject_ids": "made by a test", "slices": {"min_foreground": 0}}


def _volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4000, (SIZE, SIZE + 4, 5)).astype(np.int16)


def _nifti(folder: Path) -> dict[str, Any]:
    """Volumes of four subjects, one of which is damaged."""
    (folder / "scans").mkdir()
    for index in range(8):
        image = nibabel.Nifti1Image(_volume(index), np.diag([1.0, 1.0, 4.0, 1.0]))
        nibabel.save(image, folder / "scans" / f"sub-{index // 2}_run-{index}_T1w.nii.gz")
    (folder / "scans" / "sub-9_T1w.nii.gz").write_bytes(b"no volume")
    return {"source": str(folder / "scans"), "format": "nifti"} | VOLUMES


def _dicom(folder: Path) -> dict[str, Any]:
    """Series of four patients, a file that is damaged, and a series that is no volume."""
    for index in range(8):
        for made in series_of(_volume(index), (0, 0, 0), 1.0, series=f"1.{index}", patient=f"P{index // 2}"):
            save(made, folder / "scans" / f"{index}" / f"{made.InstanceNumber}")
    made.ImageType = ["ORIGINAL", "PRIMARY", "MOSAIC"]
    made.SOPInstanceUID = "1.2.9"
    save(made, folder / "scans" / "mosaic")
    (folder / "scans" / "damaged.dcm").write_bytes(b"no picture")
    return {"source": str(folder / "scans"), "format": "dicom"} | VOLUMES


# fills an empty folder and returns the settings of `data` that read it
SOURCES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "image folder": _image_folder,
    "stacks": _stacks,
    "phantoms": _phantoms,
    "NIfTI": _nifti,
    "DICOM": _dicom,
    "phantom volumes": _phantom_volumes,
}


@pytest.fixture(params=SOURCES)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> DataConfig:
    settings = {"path": str(tmp_path / "dataset"), "image_size": SIZE, "max_rejected_fraction": 0.2}
    return DataConfig.model_validate(settings | SOURCES[request.param](tmp_path))


@pytest.fixture
def source(data: DataConfig) -> Source:
    return open_source(data)


def _readable(source: Source) -> tuple[list[str], list[str]]:
    """Names of the slices that can be read, and of those that cannot."""
    readable, unreadable = [], []
    for name in source.scan()[0]:
        try:
            source.read(name)
        except UnusableFile:
            unreadable.append(name)
        else:
            readable.append(name)
    return readable, unreadable


def test_a_scan_finds_the_same_sorted_and_unique_names(source: Source, data: DataConfig) -> None:
    names, fingerprint = source.scan()
    assert names == sorted(set(names))
    assert names
    assert fingerprint
    assert open_source(data).scan() == (names, fingerprint)


def test_slices_are_uint8_of_the_size_asked_for_and_the_same_at_every_read(source: Source) -> None:
    names, _ = _readable(source)
    first = [source.read(name) for name in names]
    for image, pixels_sha256, *_ in first:
        assert (image.shape, image.dtype) == ((SIZE, SIZE), np.uint8)
        assert len(pixels_sha256) == 32
    for name, (image, pixels_sha256, *_) in reversed(list(zip(names, first, strict=True))):
        again = source.read(name)
        assert np.array_equal(again.image, image)
        assert again.pixels_sha256 == pixels_sha256
    assert len({image.tobytes() for image, *_ in first}) == len({sha256 for _, sha256, *_ in first})


def test_another_size_is_the_same_slice(source: Source, data: DataConfig) -> None:
    other = open_source(data.model_copy(update={"image_size": 2 * SIZE}))
    assert other.scan() == source.scan()
    name = _readable(source)[0][0]
    larger = other.read(name).image
    assert larger.shape == (2 * SIZE, 2 * SIZE)
    halved = larger.reshape(SIZE, 2, SIZE, 2).mean((1, 3))
    assert np.corrcoef(halved.ravel(), source.read(name).image.ravel())[0, 1] > 0.8


def test_labels_and_subjects_follow_from_the_name(source: Source, data: DataConfig) -> None:
    names, other = source.scan()[0], open_source(data)
    for name in names:
        assert source.label(name)
        assert source.label(name) == other.label(name)
        assert source.subject_id(name) is None or source.subject_id(name)
        assert source.subject_id(name) == other.subject_id(name)
        assert source.volume(name) is None or source.volume(name)
        assert source.volume(name) == other.volume(name)
    assert source.not_taken() == other.not_taken()


def test_a_worker_receives_a_source_as_a_few_bytes(source: Source) -> None:
    names = _readable(source)[0][-5:]
    pickled = pickle.dumps(source.portion(names))
    assert len(pickled) < 10_000
    received: Source = pickle.loads(pickled)
    for name in names:
        assert np.array_equal(received.read(name).image, source.read(name).image)
        assert received.label(name) == source.label(name)


def test_what_cannot_be_read_says_why_without_naming_the_machines_folders(source: Source, tmp_path: Path) -> None:
    for name in _readable(source)[1]:
        with pytest.raises(UnusableFile) as unusable:
            source.read(name)
        assert str(unusable.value)
        assert str(tmp_path) not in str(unusable.value)


def _serial_map(function: Callable[[Any], Any], items: Sequence[Any], *, description: str) -> Iterator[Any]:
    return map(function, items)


def test_a_dataset_holds_every_readable_slice_once_and_lists_the_others(source: Source, data: DataConfig) -> None:
    dataset = prepare_dataset(data, _serial_map)
    readable, unreadable = _readable(source)
    assert [file.source for file in dataset.manifest.rejected] == unreadable
    assert dataset.manifest.simulated == source.simulated
    held: dict[str, np.ndarray] = {}
    groups: dict[str, int] = {}
    for split in ("train", "validation", "test"):
        rows = dataset.sources(split)
        held |= dict(zip(rows, dataset.images(split), strict=True))
        groups |= dict(zip(rows, dataset.groups(split).tolist(), strict=True))
        assert len(rows) == dataset.num(split)
        assert [dataset.manifest.label_names[i] for i in dataset.labels(split)] == [source.label(r) for r in rows]
        others = {g for name, g in groups.items() if name not in rows}
        assert not others & set(dataset.groups(split).tolist()), "a group straddles two splits"
    assert sorted(held) == readable
    assert sum(dataset.num(split) for split in ("train", "validation", "test")) == len(readable)
    for name in readable:
        assert np.array_equal(held[name], source.read(name).image)
    for kind, owner in {"subject": source.subject_id, "volume": source.volume}.items():
        owned: dict[str, set[int]] = {}
        for name in readable:
            if (of := owner(name)) is not None:
                owned.setdefault(of, set()).add(groups[name])
        assert all(len(numbers) == 1 for numbers in owned.values()), f"a {kind} is in one group"
