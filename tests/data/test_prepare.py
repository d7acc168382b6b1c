import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pyarrow import fs

import lwddpm.data.prepare
from lwddpm.config import DataConfig
from lwddpm.data.location import Location
from lwddpm.data.prepare import check_source, prepare_dataset
from lwddpm.data.remarks import remarks
from lwddpm.data.shards import ROW_GROUP_BYTES
from lwddpm.data.store import SPLITS, open_dataset
from lwddpm.errors import DataError

RNG = np.random.default_rng(0)
CLASSES = ("glioma", "meningioma", "none")


def serial(function, items, *, description):
    return map(function, items)


def picture(rng):
    """A random smooth picture, unlike any other."""
    return Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8)).resize((90, 80), Image.Resampling.BICUBIC)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LWDDPM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(60):
        path = tmp_path / "scans" / CLASSES[i % 3] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(rng).save(path)
    return tmp_path / "scans"


def config(source, path, **settings):
    return DataConfig(**{"source": str(source), "path": str(path), "image_size": 32} | settings)


def everything(dataset):
    return [(dataset.images(s).tobytes(), dataset.labels(s).tolist(), dataset.sources(s)) for s in SPLITS]


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_a_folder_becomes_a_dataset(source, tmp_path):
    data = config(source, tmp_path / "out" / "data")
    check_source(data)
    dataset = prepare_dataset(data, serial)
    assert dataset == open_dataset(str(tmp_path / "out" / "data"))
    assert {split: dataset.num(split) for split in SPLITS} == {"train": 48, "validation": 6, "test": 6}
    assert dataset.label_names == CLASSES
    assert all(split.counts.keys() == set(CLASSES) for split in dataset.manifest.splits.values())
    for split in SPLITS:
        rows = zip(dataset.images(split), dataset.labels(split), dataset.sources(split), strict=True)
        for image, label, name in rows:
            assert name.startswith(CLASSES[label])
            original = Image.open(source / name).resize((32, 28), Image.Resampling.LANCZOS)
            np.testing.assert_allclose(image[2:30].astype(int), np.asarray(original, dtype=int), atol=12)
            assert not image[:2].any()
    assert leftovers(tmp_path / "out") == []
    assert sorted(path.name for path in (tmp_path / "out" / "data").iterdir()) == [
        "dataset.json", "test-00000.parquet", "train-00000.parquet", "validation-00000.parquet",
    ]  # fmt: skip


def test_no_copy_and_no_subject_straddles(source, tmp_path):
    for i, path in enumerate(sorted(source.rglob("*.png"))[:24]):
        image = Image.open(path)
        target = source / CLASSES[(i + 1) % 3] / f"copy{i}"
        match i % 4:
            case 0:
                image.save(target.with_suffix(".bmp"))  # the same pixels in another file
            case 1:
                image.save(target.with_suffix(".jpg"), quality=60)
            case 2:
                image.resize((180, 160)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target.with_suffix(".png"))
            case 3:
                noisy = np.asarray(image) + RNG.normal(0, 4, (80, 90))
                Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(target.with_suffix(".png"))
    of_tens = {"subject_pattern": r"/(\d)\d\.", "max_unmatched_fraction": 0.3}  # the copies are of no known subject
    data = config(source, tmp_path / "data", splits=(0.5, 0.25, 0.25), **of_tens)
    dataset = prepare_dataset(data, serial)
    summary = dataset.manifest.duplicates
    assert summary.exact_copies == 6
    assert summary.near_pairs == 18
    assert len(summary.label_conflicts) == sum(
        len({name.split("/")[0] for name in names}) > 1 for names in summary.label_conflicts
    )
    assert len(summary.label_conflicts) > 10
    split_of = {name: split for split in SPLITS for name in dataset.sources(split)}
    assert len(split_of) == 84
    for i, path in enumerate(sorted(source.rglob("[0-9]*.png"))[:24]):
        (copy,) = [name for name in split_of if f"/copy{i}." in name]
        assert split_of[copy] == split_of[path.relative_to(source).as_posix()]
    for tens in range(6):
        assert len({split for name, split in split_of.items() if f"/{tens}" in name}) == 1
    assert len(set(split_of.values())) == 3


def test_result_depends_on_neither_workers_nor_place(source, tmp_path, monkeypatch):
    def reversed_map(function, items, *, description):
        results = {i: function(items[i]) for i in reversed(range(len(items)))}
        return (results[i] for i in range(len(items)))

    first = prepare_dataset(config(source, tmp_path / "a"), serial)
    monkeypatch.setattr(lwddpm.data.prepare, "CHUNK", 7)
    second = prepare_dataset(config(source, tmp_path / "b"), reversed_map)
    assert first.version == second.version
    assert everything(first) == everything(second)
    for changed in ({"seed": 1}, {"image_size": 48}, {"fit": "stretch"}):
        other = prepare_dataset(config(source, tmp_path / str(changed), **changed), serial)
        assert other.version != first.version


def forbidden(function, items, *, description):
    raise AssertionError("must not decode anything")


def test_preparing_again_is_a_no_op_until_something_changes(source, tmp_path):
    data = config(source, tmp_path / "data")
    dataset = prepare_dataset(data, serial)
    assert prepare_dataset(data, forbidden) == dataset
    other = data.model_copy(update={"fit": "stretch"})
    for call in (lambda: check_source(other), lambda: prepare_dataset(other, forbidden)):
        with pytest.raises(DataError, match=r"data\.fit = pad, the job says stretch; set another data\.path.*--fresh"):
            call()
    with pytest.raises(DataError, match="the job says phantom"):
        check_source(data.model_copy(update={"source": "phantom"}))
    picture(RNG).save(source / "none" / "new.png")
    with pytest.raises(DataError, match="holds other files now"):
        check_source(data)
    check_source(other, fresh=True)
    replaced = prepare_dataset(data, serial, fresh=True)
    assert replaced.manifest.num == 61
    assert replaced.version != dataset.version
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("fresh_setting", ["max_pixels", "fit"])
def test_a_dataset_from_before_a_setting_existed_is_not_taken_for_another(source, tmp_path, fresh_setting):
    data = config(source, tmp_path / "data")
    prepare_dataset(data, serial)
    file = tmp_path / "data" / "dataset.json"
    manifest = json.loads(file.read_text())
    del manifest["settings"][fresh_setting]
    file.write_text(json.dumps(manifest))
    smaller = data.model_copy(update={"image_size": 16})
    with pytest.raises(DataError, match=r"data\.image_size = 32, the job says 16; .*lwddpm run JOB --fresh"):
        prepare_dataset(smaller, forbidden)
    for call in (check_source, lambda same: prepare_dataset(same, forbidden)):
        with pytest.raises(DataError, match=rf"data\.{fresh_setting} is what .* cannot be known; .*run JOB --fresh"):
            call(data)
    assert prepare_dataset(data, serial, fresh=True) == prepare_dataset(data, forbidden)


def test_a_dataset_with_a_setting_from_the_future_is_not_taken_for_one_without(source, tmp_path):
    data = config(source, tmp_path / "data")
    prepare_dataset(data, serial)
    file = tmp_path / "data" / "dataset.json"
    manifest = json.loads(file.read_text())
    manifest["settings"]["tilt"] = "none"
    file.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"data\.tilt is what the job says cannot be known"):
        check_source(data)


def test_a_prepared_dataset_needs_its_source_no_more(source, tmp_path):
    data = config(source, tmp_path / "data")
    dataset = prepare_dataset(data, serial)
    source.rename(tmp_path / "moved")
    check_source(data)
    assert prepare_dataset(data, forbidden) == dataset
    with pytest.raises(DataError, match="no such folder"):
        check_source(config(tmp_path / "typo", tmp_path / "data"))
    assert prepare_dataset(config(tmp_path / "moved", tmp_path / "data"), forbidden) == dataset


def test_bad_files_are_listed_up_to_a_fraction(source, tmp_path):
    (source / "none" / "empty.jpg").touch()
    (source / "none" / "notes.txt").write_text("hello")
    with open(os.fsencode(source / "none") + b"/\xff.png", "wb") as file:  # noqa: PTH123
        file.write((source / "none" / "02.png").read_bytes())
    dataset = prepare_dataset(config(source, tmp_path / "a"), serial)
    assert {file.source: file.reason for file in dataset.manifest.rejected} == {
        "none/empty.jpg": "empty file",
        "none/notes.txt": "not an image of a known format",
        "none/\\udcff.png": "its name is not valid UTF-8",
    }
    assert json.loads((tmp_path / "a" / "dataset.json").read_text())["rejected"][0]["reason"] == "empty file"
    with pytest.raises(DataError, match=r"3 of 63 .* data\.max_rejected_fraction = 0\.01 .*empty\.jpg: empty file"):
        prepare_dataset(config(source, tmp_path / "b", max_rejected_fraction=0.01), serial)
    assert not (tmp_path / "b").exists()
    assert leftovers(tmp_path) == []


def test_nothing_usable_and_nothing_there(tmp_path):
    (tmp_path / "scans").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        check_source(config(tmp_path / "scans", tmp_path / "data"))
    (tmp_path / "scans" / "a.txt").write_text("x")
    with pytest.raises(DataError, match="1 of 1 files cannot be used"):
        prepare_dataset(config(tmp_path / "scans", tmp_path / "data", max_rejected_fraction=1), serial)
    with pytest.raises(DataError, match=r"data\.subject_pattern: .* matches none of 1 files, such as a\.txt"):
        check_source(config(tmp_path / "scans", tmp_path / "data", subject_pattern="(sub-.)"))


def test_files_that_the_subject_pattern_does_not_match(source, tmp_path):
    for i in range(5):
        (source / "none" / f"sub-{i}").mkdir()
    for i, path in enumerate(sorted(source.glob("none/*.png"))):
        path.rename(source / "none" / f"sub-{i % 5}" / path.name)
    data = config(source, tmp_path / "data", subject_pattern="(sub-[0-9]+|glioma)/")  # 20 of 60 are meningioma
    for call in (lambda: check_source(data), lambda: prepare_dataset(data, forbidden)):
        with pytest.raises(
            DataError,
            match=r"data\.subject_pattern: .* does not match 20 of 60 files, more than data\.max_unmatched_fraction = "
            r"0\.05 allows, such as meningioma/01\.png, .*; widen the pattern, or raise",
        ):
            call()
    allowed = data.model_copy(update={"max_unmatched_fraction": 0.34})
    check_source(allowed)
    dataset = prepare_dataset(allowed, serial)
    assert dataset.manifest.without_subject == 20
    assert [line for line in remarks(dataset.manifest) if line.startswith("20 files do not match data.subject_pattern")]
    assert prepare_dataset(allowed, forbidden) == dataset
    picture(RNG).save(source / "meningioma" / "new.png")  # the source is looked at, whatever its subjects are
    with pytest.raises(DataError, match="holds other files now"):
        prepare_dataset(data, forbidden)


def test_an_empty_subject_is_none(source, tmp_path):
    data = config(source, tmp_path / "data", subject_pattern="(sub-[0-9]+)?")
    with pytest.raises(DataError, match="matches none of 60 files"):
        check_source(data)
    with pytest.raises(DataError, match="matches none of 60 files"):
        check_source(data.model_copy(update={"subject_pattern": "(x*)"}))


def test_targets_that_cannot_be(source, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    for path, message in {
        "file": "must be a folder, got a file",
        "file/data": "not a writable folder",
        "thesis": r"holds 'chapter1\.tex'; set another data\.path",
    }.items():
        for fresh in (False, True):
            with pytest.raises(DataError, match=message):
                check_source(config(source, tmp_path / path), fresh=fresh)
            with pytest.raises(DataError, match=message):
                prepare_dataset(config(source, tmp_path / path), forbidden, fresh=fresh)
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def test_a_failing_worker_leaves_nothing(source, tmp_path):
    def failing(function, items, *, description):
        yield function(items[0])
        raise RuntimeError("worker died")

    with pytest.raises(RuntimeError, match="worker died"):
        prepare_dataset(config(source, tmp_path / "data"), failing)
    assert not (tmp_path / "data").exists()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("moment", ["staging", "writing", "replacing"])
def test_a_killed_preparation_leaves_nothing_half_written(source, tmp_path, moment):
    """SIGKILL while slices are staged, shards are written, or an older dataset is being replaced."""
    if moment == "replacing":
        prepare_dataset(config(source, tmp_path / "data"), serial)
        picture(RNG).save(source / "none" / "new.png")
    code = f"""
import os, signal
from pathlib import Path
from lwddpm.config import DataConfig
from lwddpm.data import prepare
from lwddpm.data.shards import SplitWriter
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
def serial(function, items, *, description):
    for i, item in enumerate(items):
        if "{moment}" == "staging" and i == 1: die()
        yield function(item)
if "{moment}" == "writing": SplitWriter.close = die
if "{moment}" == "replacing":
    rename = Path.rename
    Path.rename = lambda self, target: die() if self.name == "dataset" else rename(self, target)
prepare.prepare_dataset(DataConfig(source={str(source)!r}, path={str(tmp_path / "data")!r}, image_size=32), serial,
    fresh=True)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "data").exists()
    assert leftovers(tmp_path) != []
    dataset = prepare_dataset(config(source, tmp_path / "data"), serial)
    assert dataset.num("train") > 40
    assert leftovers(tmp_path) == []


def test_two_preparations_at_once_do_the_work_once(source, tmp_path):
    code = f"""
import time
from lwddpm.config import DataConfig
from lwddpm.data.prepare import prepare_dataset
def slow(function, items, *, description):
    print("working", flush=True)
    for item in items:
        time.sleep(0.3)
        yield function(item)
print(prepare_dataset(DataConfig(source={str(source)!r}, path={str(tmp_path / "data")!r}, image_size=32), slow).version)
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0].split() for process in both]
    assert sorted(len(output) for output in outputs) == [1, 2]
    assert outputs[0][-1] == outputs[1][-1]


def test_an_object_store_gets_the_manifest_last_and_no_leftovers(source, tmp_path, monkeypatch):
    """A filesystem that is not local: nothing is renamed there."""
    (tmp_path / "bucket").mkdir()
    bucket = fs.SubTreeFileSystem(str(tmp_path / "bucket"), fs.LocalFileSystem())
    for module in ("prepare", "manifest", "store"):
        monkeypatch.setattr(f"lwddpm.data.{module}.locate", lambda path: Location(bucket, path.removeprefix("s3://")))
    data = config(source, "s3://sets/kaggle")
    abandoned = tmp_path / "bucket/sets/kaggle/.preparing-0000/staging"
    abandoned.mkdir(parents=True)
    (abandoned / "chunk-0").touch()
    os.utime(abandoned / "chunk-0", (0, 0))
    for folder in (abandoned, abandoned.parent):
        os.utime(folder, (0, 0))
    dataset = prepare_dataset(data, serial)
    assert prepare_dataset(data, forbidden) == dataset
    folder = tmp_path / "bucket/sets/kaggle"
    assert sorted(path.name for path in folder.iterdir()) == [
        "dataset.json", "test-00000.parquet", "train-00000.parquet", "validation-00000.parquet",
    ]  # fmt: skip
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert max(written, key=written.__getitem__) == "dataset.json"
    assert len(dataset.images("train")) == 48

    def failing(function, items, *, description):
        raise RuntimeError("worker died")

    with pytest.raises(RuntimeError, match="worker died"):
        prepare_dataset(data, failing, fresh=True)
    assert not (folder / "dataset.json").exists()
    assert prepare_dataset(data, serial).version == dataset.version


def test_the_driver_never_holds_all_images(tmp_path):
    """320 slices of 320 x 320 are 33 MB; the driver peaks at about two row groups.

    In a process of its own: allocations are traced in all threads of a process, whatever other tests have left there.
    """
    rng = np.random.default_rng(0)
    for folder, count in (("few", 8), ("all", 320)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            picture(rng).save(tmp_path / folder / f"{i}.png")
    code = f"""
import tracemalloc
from lwddpm.config import DataConfig
from lwddpm.data.prepare import prepare_dataset

def decoded_elsewhere(function, items, *, description):
    for item in items:
        result = function(item)
        tracemalloc.reset_peak()  # what a worker needs is not the driver's
        yield result

def prepare(name):
    data = DataConfig(source={str(tmp_path)!r} + f"/{{name}}", path={str(tmp_path / "data")!r} + f"/{{name}}",
        image_size=320, splits=(1, 0, 0))
    return prepare_dataset(data, decoded_elsewhere).num("train")

tracemalloc.start()
prepare("few")  # imports count as memory, too
before = tracemalloc.get_traced_memory()[0]
tracemalloc.reset_peak()
print(prepare("all"), tracemalloc.get_traced_memory()[1] - before)
"""
    measured = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    slices, peak = map(int, measured.split())
    assert slices * 320**2 > 30e6
    assert peak < 2.2 * ROW_GROUP_BYTES


def test_phantoms_are_labelled_as_simulated(tmp_path):
    data = config("phantom", tmp_path / "data", phantom_count=24, splits=(0.5, 0.25, 0.25))
    check_source(data)
    dataset = prepare_dataset(data, serial)
    assert dataset.manifest.simulated
    assert dataset.manifest.num == 24
    assert len(dataset.label_names) == 4
    assert dataset.manifest.settings.keys() == {"image_size", "splits", "phantom_count", "seed"}
    with pytest.raises(DataError, match=r"data\.phantom_count = 24, the job says 25"):
        check_source(data.model_copy(update={"phantom_count": 25}))


def test_only_what_the_target_refuses_is_said_of_data_path(source, tmp_path):
    def broken(function, items, *, description):
        raise OSError("no room for a socket")

    def without_staging(function, items, *, description):
        (workspace,) = tmp_path.glob(".data.preparing-*")
        (workspace / "staging").rmdir()
        return map(function, items)

    data = config(source, tmp_path / "data")
    with pytest.raises(OSError, match="no room for a socket"):
        prepare_dataset(data, broken)
    with pytest.raises(DataError, match=r"data\.path: .* the dataset cannot be written .*; set another data\.path"):
        prepare_dataset(data, without_staging)
    assert leftovers(tmp_path) == []
