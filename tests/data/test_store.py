import ast
import multiprocessing
import operator

import numpy as np
import pyarrow.parquet as pq
import pytest

from lwddpm.data.location import locate
from lwddpm.data.manifest import SCHEMA_VERSION, DuplicatesSummary, Manifest
from lwddpm.data.shards import Row, SplitWriter
from lwddpm.data.store import open_dataset, read_manifest
from lwddpm.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 16, 16), dtype=np.uint8)
ROWS = [Row("ab"[i % 2], i // 2, None if i % 3 else f"sub-{i}", f"{'ab'[i % 2]}/{i}.png") for i in range(30)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LWDDPM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def dataset(tmp_path):
    folder = locate(str(tmp_path / "data"))
    folder.filesystem.create_dir(folder.path)
    splits = {}
    for name, where in {"train": slice(0, 20), "validation": slice(20, 30), "test": slice(30, 30)}.items():
        writer = SplitWriter(folder, name, 16)
        for image, row in zip(IMAGES[where], ROWS[where], strict=True):
            writer.append(image, row)
        splits[name] = writer.close()
    duplicates = DuplicatesSummary(exact_copies=0, near_pairs=0, groups=15, largest_group=2, label_conflicts=())
    manifest = Manifest(
        schema_version=SCHEMA_VERSION, version="v", simulated=False, source="s", source_fingerprint="f", image_size=16,
        label_names=("a", "b"), settings={}, splits=splits, rejected=(), duplicates=duplicates,
    )  # fmt: skip
    (folder / "dataset.json").write_bytes(manifest.model_dump_json().encode())
    return open_dataset(str(tmp_path / "data"))


def test_round_trip(dataset):
    images = dataset.images("train")
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    np.testing.assert_array_equal(images, IMAGES[:20])
    np.testing.assert_array_equal(dataset.labels("validation"), np.arange(20, 30) % 2)
    np.testing.assert_array_equal(dataset.groups("validation"), np.arange(20, 30) // 2)
    assert dataset.sources("train") == [row.source for row in ROWS[:20]]
    assert dataset.label_names == ("a", "b")
    assert dataset.manifest.splits["train"].counts == {"a": 10, "b": 10}
    assert dataset.num("test") == len(dataset.images("test")) == len(dataset.labels("test")) == 0
    with pytest.raises(ValueError, match="split must be one of"):
        dataset.images("training")


def test_shards_are_plain_parquet_and_roll_over(tmp_path, monkeypatch):
    monkeypatch.setattr("lwddpm.data.shards.ROW_GROUP_BYTES", 4 * 256)
    monkeypatch.setattr("lwddpm.data.shards.SHARD_BYTES", 8 * 256)
    writer = SplitWriter(locate(str(tmp_path)), "train", 16)
    for image, row in zip(IMAGES, ROWS, strict=True):
        writer.append(image, row)
    summary = writer.close()
    assert summary.shards == tuple(f"train-{i:05d}.parquet" for i in range(4))
    tables = [pq.read_table(tmp_path / shard) for shard in summary.shards]
    assert tables[0].column_names == ["image", "label", "split", "group", "subject_id", "source"]
    assert sum(len(table) for table in tables) == summary.num == 30
    last = tables[-1].to_pylist()[-1]
    np.testing.assert_array_equal(np.frombuffer(last["image"], np.uint8).reshape(16, 16), IMAGES[29])
    assert last["split"] == "train"
    assert last["source"] == ROWS[29].source


def test_missing_damaged_and_foreign_datasets(dataset, tmp_path):
    with pytest.raises(DataError, match="no prepared dataset here"):
        open_dataset(str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match="not a usable filesystem URI"):
        open_dataset("nonsense://bucket/data")
    manifest = tmp_path / "data" / "dataset.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"schema_version":3', '"schema_version":99'))
    with pytest.raises(DataError, match=r"schema version must be 1 to 3, got 99.*lwddpm run JOB --fresh"):
        read_manifest(dataset.path)
    manifest.write_text(text[:100])
    with pytest.raises(DataError, match="damaged"):
        read_manifest(dataset.path)


def test_damaged_shards_never_reach_training(dataset, tmp_path, cache):
    shard = tmp_path / "data" / "train-00000.parquet"
    writer = SplitWriter(locate(str(tmp_path / "data")), "train", 16)  # same rows, one pixel differs
    for image, row in zip(IMAGES[:20] ^ (np.arange(20) == 7)[:, None, None].astype(np.uint8), ROWS, strict=False):
        writer.append(image, row)
    writer.close()
    with pytest.raises(DataError, match=r"shards are not those of dataset\.json"):
        dataset.images("train")
    shard.write_bytes(shard.read_bytes()[:300])
    with pytest.raises(DataError, match="missing or damaged"):
        dataset.images("train")
    shard.unlink()
    with pytest.raises(DataError, match="missing or damaged"):
        dataset.images("train")
    assert not list(cache.iterdir())


def test_a_cache_file_that_is_not_whole_is_not_read(dataset, cache):
    dataset.images("train")
    (cached,) = cache.glob("*-train.npy")
    np.testing.assert_array_equal(np.load(cached), IMAGES[:20])  # a plain array of numpy's
    for content in (cached.read_bytes()[:-1], cached.read_bytes() + b"0", b""):
        cached.write_bytes(content)
        with pytest.raises(DataError, match="remove it, and it is made again"):
            dataset.images("train")
    cached.unlink()
    np.testing.assert_array_equal(dataset.images("train"), IMAGES[:20])


def test_images_are_opened_without_a_parser_that_threads_share(dataset, monkeypatch):
    dataset.images("train")
    monkeypatch.setattr(ast, "literal_eval", lambda source: pytest.fail(f"parsed {source}"))
    np.testing.assert_array_equal(dataset.images("train"), IMAGES[:20])


def test_unwritable_cache_names_the_remedy(dataset, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LWDDPM_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set LWDDPM_CACHE"):
        dataset.images("train")


def test_racing_processes_share_one_cache_file(dataset, cache):
    cache.mkdir()
    (cache / "v-train.0000.partial").touch()  # of a killed process
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        for images in pool.map(operator.methodcaller("images", "train"), [dataset] * 6):
            np.testing.assert_array_equal(images, IMAGES[:20])
    assert [path.name for path in cache.iterdir()] == ["v-train.npy"]
