import os

import numpy as np
import pytest
from PIL import Image

from lwddpm.config import DataConfig
from lwddpm.data.image_folder import open_image_folder
from lwddpm.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(path)


def names_and_labels(root, **settings):
    source = open_image_folder(DataConfig(source=str(root), **settings))
    names, _ = source.scan()
    return {name: source.label(name) for name in names}


def test_layouts(tmp_path):
    make(tmp_path / "a", "glioma/1.png", "no tumor/deep/er/2.png")
    assert names_and_labels(tmp_path / "a") == {"glioma/1.png": "glioma", "no tumor/deep/er/2.png": "no tumor"}
    make(tmp_path / "b", "Training/glioma_tumor/1.png", "Testing/no_tumor/1.png")
    assert set(names_and_labels(tmp_path / "b").values()) == {"glioma_tumor", "no_tumor"}
    make(tmp_path / "c", "1.png", "2.png")
    assert set(names_and_labels(tmp_path / "c").values()) == {"unlabelled"}
    make(tmp_path / "d", "test/1.png", "other/2.png")  # not a shipped split: a class that happens to be called test
    assert set(names_and_labels(tmp_path / "d").values()) == {"test", "other"}


def test_clutter_is_skipped_and_links_are_followed_once(tmp_path):
    make(tmp_path, "a/1.png", ".hidden/2.png", "a/.3.png")
    for clutter in (".DS_Store", "a/Thumbs.db", "dataset.json"):
        (tmp_path / clutter).write_text("x")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "a" / "pipe")
    found = names_and_labels(tmp_path)
    assert set(found) == {"a/1.png", "a/notes.txt", "b/1.png", "b/notes.txt"}


def test_fingerprint_follows_names_sizes_and_times(tmp_path):
    make(tmp_path, "a/1.png", "a/2.png")
    source = open_image_folder(DataConfig(source=str(tmp_path)))
    before = source.scan()[1]
    assert source.scan()[1] == before
    os.utime(tmp_path / "a/1.png", ns=(0, 1))
    touched = source.scan()[1]
    (tmp_path / "a/2.png").rename(tmp_path / "a/3.png")
    assert len({before, touched, source.scan()[1]}) == 3


def test_subject_pattern(tmp_path):
    source = open_image_folder(DataConfig(source=str(tmp_path), subject_pattern=r"(sub-\d+)"))
    assert source.subject_id("glioma/sub-07_slice3.png") == "sub-07"
    assert source.subject_id("glioma/other.png") is None


def test_missing_source_and_file_as_source(tmp_path):
    with pytest.raises(DataError, match=r"data\.source: .*no such folder; give a folder"):
        open_image_folder(DataConfig(source=str(tmp_path / "none")))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="must be a folder"):
        open_image_folder(DataConfig(source=str(tmp_path / "file")))
