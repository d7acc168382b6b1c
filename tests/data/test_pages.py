"""Files with several pages: stacks of TIFF, animated PNG, GIF and WebP."""

import json
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import tifffile
from PIL import Image

from lwddpm.config import DataConfig
from lwddpm.data.manifest import SPLITS
from lwddpm.data.prepare import check_source, open_source, prepare_dataset
from lwddpm.data.remarks import remarks
from lwddpm.data.sources import UnusableFile
from lwddpm.errors import DataError

SIZE = 32


def serial(function, items, *, description):
    return map(function, items)


def pillow(path, pages, **options):
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=others, **options)


WRITERS: dict[str, Callable[..., None]] = {
    "tif": partial(tifffile.imwrite, photometric="minisblack"),
    "png": pillow,
    "gif": pillow,
    "webp": partial(pillow, lossless=True),
}


@pytest.fixture
def stacks(tmp_path):
    """12 stacks of 20 slices in two classes, as TIFF of 16 bits, and a picture of one page."""
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "scans" / ("glioma", "none")[i % 2] / f"sub-{i // 2}_{i:02d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, rng.integers(0, 4096, (20, SIZE, SIZE), dtype=np.uint16))
    Image.fromarray(rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)).save(
        tmp_path / "scans" / "glioma" / "sub-0_single.png"
    )
    return tmp_path / "scans"


def prepared(source, **settings):
    path = source.parent / f"data-{json.dumps(settings)}"
    return prepare_dataset(DataConfig(source=str(source), path=str(path), image_size=SIZE, **settings), serial)


def test_pages_that_are_not_taken_are_counted_and_said(stacks):
    manifest = prepared(stacks).manifest
    assert manifest.num == 13
    assert manifest.not_taken.counts()["pages"] == 228
    assert manifest.not_taken.pages == {name: 19 for name in open_source_names(stacks) if name.endswith(".tif")}
    assert remarks(manifest)[0] == (
        "not taken: 228 pages after the first of 12 files: glioma/sub-0_00.tif (19), glioma/sub-1_02.tif (19), "
        "glioma/sub-2_04.tif (19), glioma/sub-3_06.tif (19), glioma/sub-4_08.tif (19) and 7 more; "
        "data.pages=all takes every page as a slice"
    )


def open_source_names(source, **settings):
    return open_source(DataConfig(source=str(source), image_size=SIZE, **settings)).scan()[0]


def test_all_pages_are_slices_and_a_file_stays_in_one_split(stacks):
    dataset = prepared(stacks, pages="all")
    assert dataset.manifest.num == 241
    assert dataset.manifest.not_taken.pages == {}
    assert dataset.label_names == ("glioma", "none")
    names = [name for split in SPLITS for name in dataset.sources(split)]
    assert sorted(names) == open_source_names(stacks, pages="all")
    assert {"glioma/sub-0_00.tif//01", "glioma/sub-0_00.tif//20", "glioma/sub-0_single.png"} < set(names)
    split_of: dict[str, set[str]] = {}
    for split in SPLITS:
        for name in dataset.sources(split):
            split_of.setdefault(name.split("//")[0], set()).add(split)
    assert len(split_of) == 13
    assert all(len(splits) == 1 for splits in split_of.values())
    assert all(dataset.num(split) for split in SPLITS)
    (line,) = [line for line in remarks(dataset.manifest) if line.startswith("the largest group")]
    assert line.startswith("the largest group of slices that stay together has 20, of glioma/sub-0_00.tif")


def test_subjects_and_patterns_are_those_of_the_file(stacks):
    dataset = prepared(stacks, pages="all", subject_pattern=r"(sub-\d)_\d\d\.tif$", exclude=["*single*"])
    assert dataset.manifest.duplicates.groups == 6
    assert dataset.manifest.without_subject == 0
    assert dataset.manifest.not_taken.excluded == 1
    data = DataConfig(source=str(stacks), pages="all", subject_pattern=r"(sub-[01])_\d\d\.tif$")
    with pytest.raises(DataError, match="does not match 9 of 13 files"):
        check_source(data)


def test_slices_of_a_stack_share_one_scale(tmp_path):
    rng = np.random.default_rng(0)
    pages = rng.integers(0, 1000, (3, SIZE, SIZE)).astype(np.uint16)
    pages[1] //= 10  # a slice at the rim of the head
    pages[2, 5, 5] = 60_000  # a hot voxel
    (tmp_path / "a").mkdir()
    tifffile.imwrite(tmp_path / "a" / "stack.tif", pages, photometric="minisblack")
    source = open_source(DataConfig(source=str(tmp_path), image_size=SIZE, pages="all"))
    first, rim, hot = (source.read(name).image.astype(float) for name in source.scan()[0])
    np.testing.assert_allclose(first, pages[0] * (255 / 1000), atol=3)
    np.testing.assert_allclose(rim, pages[1] * (255 / 1000), atol=3)
    assert 120 < hot.mean() < 135
    alone = open_source(DataConfig(source=str(tmp_path), image_size=SIZE)).read("a/stack.tif")
    assert alone.pages_left == 2


@pytest.mark.parametrize("suffix", WRITERS)
def test_pages_of_every_format_are_read_in_order(tmp_path, suffix):
    pages = np.random.default_rng(0).integers(0, 256, (11, SIZE, SIZE), dtype=np.uint8)
    WRITERS[suffix](tmp_path / f"a.{suffix}", pages)
    assert open_source(DataConfig(source=str(tmp_path), image_size=SIZE)).read(f"a.{suffix}").pages_left == 10
    source = open_source(DataConfig(source=str(tmp_path), image_size=SIZE, pages="all"))
    names, fingerprint = source.scan()
    assert names == [f"a.{suffix}//{page:02d}" for page in range(1, 12)]
    assert [source.volume(name) for name in names] == [f"a.{suffix}"] * 11
    for name, page in zip(names, pages, strict=True):
        np.testing.assert_array_equal(source.read(name).image, page)
    WRITERS[suffix](tmp_path / f"a.{suffix}", pages[:4])
    assert len(source.scan()[0]) == 4
    assert source.scan()[1] != fingerprint


def test_thumbnails_and_masks_of_pages_are_none(tmp_path):
    picture = np.random.default_rng(0).integers(0, 4096, (SIZE, SIZE), dtype=np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for kind in (0, 1, 0):  # a page, its thumbnail, a page
            tiff.write(picture, subfiletype=kind, metadata=None)
        tiff.write(picture > 99, subfiletype=4, photometric="miniswhite", metadata=None)  # a mask
    assert open_source_names(tmp_path, pages="all") == ["a.tif//1", "a.tif//3"]
    assert open_source(DataConfig(source=str(tmp_path))).read("a.tif").pages_left == 1


def test_slices_behind_one_page_are_counted_and_refused_rather_than_lost(tmp_path):
    stack = np.random.default_rng(0).integers(0, 4096, (20, SIZE, SIZE)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, truncate=True)  # as ImageJ writes more than 4 GiB
    tifffile.imwrite(tmp_path / "b.tif", stack[:16], volumetric=True, tile=(16, 16, 16))
    source = open_source(DataConfig(source=str(tmp_path), image_size=SIZE))
    assert [source.read(name).pages_left for name in ("a.tif", "b.tif")] == [19, 15]
    source = open_source(DataConfig(source=str(tmp_path), image_size=SIZE, pages="all"))
    for name, num in zip(source.scan()[0], (20, 16), strict=True):
        with pytest.raises(UnusableFile, match=f"{num} slices in one page; save each as a page of its own"):
            source.read(name)


def test_what_is_damaged_behind_the_first_page_costs_no_slice(tmp_path):
    page = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    pillow(tmp_path / "a.tif", [page, page])
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        second = tiff.pages[1].offset
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[second : second + 40] = b"\xff" * 40
    (tmp_path / "a.tif").write_bytes(content)
    tifffile.imwrite(tmp_path / "b.tif", page, description="<OME broken", metadata=None)
    for name in ("a.tif", "b.tif"):
        taken = open_source(DataConfig(source=str(tmp_path), image_size=SIZE)).read(name)
        np.testing.assert_array_equal(taken.image, page)
        assert taken.pages_left == 0
    with pytest.raises(UnusableFile, match="damaged or truncated"):
        open_source(DataConfig(source=str(tmp_path), image_size=SIZE, pages="all")).read("a.tif")


def test_damaged_pages_are_rejected_one_by_one(tmp_path):
    stack = np.random.default_rng(0).integers(0, 4096, (20, SIZE, SIZE)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, compression="deflate")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        damaged = tiff.pages[19].aspage().dataoffsets[0]
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[:damaged] + bytes(20) + content[damaged + 20 :])
    (tmp_path / "b.tif").write_bytes(content[:6])
    manifest = prepared(tmp_path, pages="all", max_rejected_fraction=0.2, splits=[1, 0, 0]).manifest
    assert manifest.num == 19
    assert [file.source for file in manifest.rejected] == ["a.tif//20", "b.tif"]
