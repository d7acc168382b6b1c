import numpy as np
import pytest
from PIL import Image

from lwddpm.config import DataConfig
from lwddpm.data.duplicates import are_blank
from lwddpm.data.phantom import simulate
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.remarks import remarks
from lwddpm.data.store import SPLITS
from lwddpm.errors import DataError

SIZE = 32
SUBJECTS = [f"sub-{i:02d}" for i in range(15)]


def serial(function, items, *, description):
    return map(function, items)


@pytest.fixture
def scans(tmp_path):
    """15 subjects of 3 slices each, all different."""
    for i, subject in enumerate(SUBJECTS):
        for j in range(3):
            save(tmp_path / "scans" / "head" / subject / f"{j}.png", simulate(0, 3 * i + j, SIZE))
    return tmp_path / "scans"


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def prepared(scans, **settings):
    values = {"source": str(scans), "path": f"{scans}-data", "image_size": SIZE, "subject_pattern": "(sub-[0-9]+)/"}
    return prepare_dataset(DataConfig(**values | settings), serial)


def lettered(letter_side):
    """Black but for a burnt-in letter."""
    image = np.zeros((256, 256), np.uint8)
    image[8 : 8 + letter_side, 8 : 8 + letter_side] = 255
    return image


def test_what_is_blank():
    rng = np.random.default_rng(0)
    flat = [np.full((256, 256), level, np.uint8) for level in (0, 90, 255)]
    compressed = np.clip(rng.normal(1, 1, (256, 256)), 0, 255).astype(np.uint8)
    head = simulate(0, 0, 256)
    assert are_blank(np.stack([*flat, compressed, lettered(20)])).all()
    assert not are_blank(
        np.stack([head, head // 8, lettered(40), np.tile(np.arange(256, dtype=np.uint8), (256, 1))])
    ).any()


@pytest.mark.parametrize("blank", [np.zeros((64, 64), np.uint8), np.full((40, 40), 255, np.uint8), lettered(16)])
def test_blank_slices_tie_no_subjects_together(scans, blank):
    for subject in SUBJECTS:
        save(scans / "head" / subject / "top.png", blank)
    dataset = prepared(scans)
    summary = dataset.manifest.duplicates
    assert (summary.groups, summary.largest_group, summary.blank) == (15, 4, 15)
    assert (summary.exact_copies, summary.near_pairs, summary.subject_links) == (0, 0, ())
    assert [dataset.manifest.splits[split].groups for split in SPLITS] in ([12, 1, 2], [12, 2, 1])
    assert "15 of 60 slices are blank (nearly one grey value)" in remarks(dataset.manifest)


def test_only_blank_slices(tmp_path):
    for i in range(10):
        save(tmp_path / "scans" / "a" / f"{i}.png", np.zeros((32, 32), np.uint8))
    dataset = prepared(tmp_path / "scans", subject_pattern=None)
    assert (dataset.manifest.duplicates.groups, dataset.manifest.duplicates.blank) == (10, 10)


def test_links_between_subjects_are_listed_and_the_largest_group_says_why(scans):
    shared = simulate(1, 0, SIZE)
    for i in range(4):  # slices of four subjects are nearly one picture, those of two of them exactly
        noise = np.random.default_rng(max(i, 1)).integers(0, 3, shared.shape, dtype=np.uint8)
        save(scans / "head" / SUBJECTS[i] / "shared.png", np.minimum(shared, 250) + noise)
    manifest = prepared(scans).manifest
    links = {link.subjects: link for link in manifest.duplicates.subject_links}
    assert links["sub-00", "sub-01"].exact
    assert links["sub-00", "sub-01"].sources == ("head/sub-00/shared.png", "head/sub-01/shared.png")
    assert not links["sub-02", "sub-03"].exact
    assert manifest.duplicates.largest_group == 16
    assert manifest.duplicates.largest.subjects == tuple(SUBJECTS[:4])
    lines = remarks(manifest)
    (largest,) = [line for line in lines if "largest group" in line]
    assert "has 16, of 4 subjects, with 1 exact copies and " in largest
    assert largest.endswith("such as head/sub-00/shared.png and head/sub-01/shared.png")
    pictures = "head/sub-00/shared.png and head/sub-01/shared.png"
    assert f"subjects sub-00 and sub-01 stay together: {pictures} are the same picture" in lines


def test_a_largest_group_of_one_subject_names_it(scans):
    save(scans / "head" / "sub-07" / "more.png", simulate(2, 0, SIZE))
    assert "the largest group of slices that stay together has 4, of subject sub-07" in remarks(
        prepared(scans).manifest
    )


def test_subjects_that_copies_make_one_are_refused_with_the_reason(scans):
    shared = simulate(1, 0, SIZE)
    for subject in SUBJECTS:
        save(scans / "head" / subject / "shared.png", shared)
    with pytest.raises(DataError, match=r"got 1 \(60 slices.*of 15 subjects, with 14 exact copies.*shared\.png"):
        prepared(scans)


def test_a_picture_that_fills_a_split_is_said(tmp_path):
    for i in range(100):
        image = np.zeros((SIZE, SIZE), np.uint8) if i < 60 else simulate(0, i, SIZE)
        save(tmp_path / "blank" / "a" / f"{i:02d}.png", image)
        image = simulate(0, 0, SIZE) if i < 30 else simulate(0, i, SIZE)
        save(tmp_path / "copies" / "a" / f"{i:02d}.png", image)
    lines = remarks(prepared(tmp_path / "blank", subject_pattern=None).manifest)
    assert [line for line in lines if "of train show one picture" in line]
    lines = remarks(prepared(tmp_path / "copies", subject_pattern=None).manifest)
    (line,) = [line for line in lines if "show one picture" in line]
    assert line.startswith("30 of 80 slices of train show one picture, such as a/00.png")
    assert "30, with 29 exact copies and 0 near-duplicate pairs" in "".join(lines)


@pytest.mark.parametrize("pattern", ["(sub-[0-9]+)/", "sub-([0-9]+)/"])
def test_a_folder_that_is_a_subject_is_not_a_class(tmp_path, pattern):
    for i in range(60):
        for j in range(2):
            save(tmp_path / "scans" / f"sub-{i:03d}" / f"{j}.png", simulate(0, 2 * i + j, SIZE))
    dataset = prepared(tmp_path / "scans", subject_pattern=pattern)
    assert dataset.label_names == ("unlabelled",)
    assert {split: summary.groups for split, summary in dataset.manifest.splits.items()} == {
        "train": 48, "validation": 6, "test": 6,
    }  # fmt: skip
    assert remarks(dataset.manifest) == [line for line in remarks(dataset.manifest) if "largest group" in line]


def test_a_class_of_one_subject_stays_a_class(tmp_path):
    for i, label in enumerate(("glioma", "none", "none")):
        for j in range(4):
            save(tmp_path / "scans" / label / f"sub-{i}" / f"{j}.png", simulate(0, 4 * i + j, SIZE))
    assert prepared(tmp_path / "scans").label_names == ("glioma", "none")
