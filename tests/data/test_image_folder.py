import json
import os
from collections import Counter
from functools import partial

import numpy as np
import pytest
from PIL import Image

from lwddpm.config import DataConfig, SamplingConfig
from lwddpm.config.data import OPTIONAL
from lwddpm.data.class_folders import describe_classes
from lwddpm.data.image_folder import open_image_folder
from lwddpm.data.manifest import NotTaken
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.remarks import describe_not_taken, remarks
from lwddpm.data.sources import UnusableFile
from lwddpm.errors import DataError
from lwddpm.marks.mark import Mark, now
from lwddpm.marks.png import encode
from lwddpm.tracking.rundir import write_run_id

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


BESIDE_SPLITS = ["__MACOSX/Training/glioma/1.png", "@eaDir/1.png", "$RECYCLE.BIN/x/1.png", "lost+found/1.png"]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["Training/glioma/1.png", "Testing/no_tumor/1.png", *BESIDE_SPLITS], {"glioma": 1, "no_tumor": 1}),
        (["Training/glioma/1.png", "Testing/no_tumor/1.png", "docs/"], {"glioma": 1, "no_tumor": 1}),
        (["Training/a/1.png", "Testing/b/1.png", "docs/readme.txt"], {"a": 1, "b": 1, "unlabelled": 1}),
        (["archive/brain/Training/a/1.png", "archive/brain/Testing/b/1.png", "archive/docs/"], {"a": 1, "b": 1}),
        (["train/a/1.png", "valid/a/2.png", "test_images/b/3.png"], {"a": 2, "b": 1}),
        (["Train Data/a/1.png", "Test Data/b/3.png"], {"a": 1, "b": 1}),
        (["only/deep/1.png", "only/deeper/2.png"], {"only": 2}),
        (["testis/1.png", "training_wheel/2.png"], {"testis": 1, "training_wheel": 1}),
    ],
)
def test_classes_are_found_beside_and_below_other_folders(tmp_path, names, classes):
    make(tmp_path, *[name for name in names if name.endswith(".png")])
    for name in names:
        if name.endswith("/"):
            (tmp_path / name).mkdir(parents=True)
        elif name.endswith(".txt"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text("x")
    assert Counter(names_and_labels(tmp_path).values()) == classes


def test_excluded_folders_hide_no_split(tmp_path):
    make(tmp_path, "Training/a/1.png", "Testing/b/1.png", "masks/1.png")
    assert set(names_and_labels(tmp_path).values()) == {"Training", "Testing", "masks"}
    assert set(names_and_labels(tmp_path, exclude=["masks/*"]).values()) == {"a", "b"}


def test_label_from_settles_what_the_classes_are(tmp_path):
    make(tmp_path, "site/glioma/sub-1/1.png", "site/no_tumor/sub-2/2.png", "3.png")
    for label_from, labels in {
        "auto": ["unlabelled", "site", "site"],
        1: ["unlabelled", "site", "site"],
        2: ["unlabelled", "glioma", "no_tumor"],
        4: ["unlabelled"] * 3,
        "parent": ["unlabelled", "sub-1", "sub-2"],
        "none": ["unlabelled"] * 3,
    }.items():
        assert list(names_and_labels(tmp_path, label_from=label_from).values()) == labels


def test_a_dataset_whose_classes_are_found_elsewhere_now_is_not_taken(tmp_path):
    """Version 0.1 took Training and Testing for the classes where another folder stood beside them."""
    make(tmp_path, "Training/a/1.png", "Testing/b/1.png")
    open_source = partial(open_image_folder, DataConfig(source=str(tmp_path)))
    before = open_source().scan()
    (tmp_path / "docs").mkdir()
    names, fingerprint = open_source().scan()
    assert names == before[0]
    assert fingerprint != before[1]


def test_names_and_sizes_of_classes_are_said_and_that_two_are_alike():
    lines = describe_classes({"Glioma": 2, "glioma": 1_300, "no tumor": 3, "no_tumor": 4, "pituitary": 5})
    assert lines[0].startswith("5 classes: Glioma 2, glioma 1,300, no tumor 3, no_tumor 4, pituitary 5 (data.label_fr")
    assert lines[1].startswith("Glioma and glioma are 2 classes")
    assert lines[2].startswith("no tumor and no_tumor are 2 classes")
    assert len(lines) == 3
    assert describe_classes({"a": 1, "b": 2}) == [lines[0].replace(lines[0].split(" (")[0], "2 classes: a 1, b 2")]


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


def mark(folder, **marks):
    for file, content in marks.items():
        (folder / f"{file}.json").write_text(json.dumps(content))


def test_what_the_platform_has_made_is_no_source(tmp_path):
    """A job on the folder that it is started in finds its dataset, its run and MLflow's files there the next time."""
    make(tmp_path, "glioma/1.png", "datasets/d/1.png", "runs/r/figures/1.png", "report/1.png", "mlruns/1/figure.png")
    scanned = open_image_folder(DataConfig(source=str(tmp_path))).scan()
    mark(tmp_path / "datasets" / "d", dataset={"schema_version": 1, "source_fingerprint": "0"})
    write_run_id(tmp_path / "runs" / "r", "0", "sqlite:///mlflow.db")
    mark(tmp_path / "report", report={"schema_version": 1, "simulated": False})
    (tmp_path / "mlflow.db").touch()
    assert scanned[0] == ["datasets/d/1.png", "glioma/1.png", "report/1.png", "runs/r/figures/1.png"]
    assert set(names_and_labels(tmp_path)) == {"glioma/1.png"}
    with pytest.raises(DataError, match=r"got a prepared dataset of lwddpm; name it in data\.path instead"):
        open_image_folder(DataConfig(source=str(tmp_path / "datasets" / "d")))
    with pytest.raises(DataError, match="got a run folder of lwddpm"):
        open_image_folder(DataConfig(source=str(tmp_path / "runs" / "r")))


def test_marks_of_others_are_none(tmp_path):
    make(tmp_path, "a/1.png", "b/1.png")
    mark(tmp_path / "a", dataset={"name": "ours"}, run={"date": "today"}, samples=[1, 2])
    (tmp_path / "b" / "report.json").write_text("{")
    assert {"a/1.png", "b/1.png"} < set(names_and_labels(tmp_path))


@pytest.mark.parametrize("below", ["", "glioma/generated"])
def test_generated_samples_are_refused_or_taken_as_synthetic(tmp_path, below):
    make(tmp_path / below, "0.png", "1.png", "grid.png")
    make(tmp_path, "no_tumor/real.png")
    mark(tmp_path / below, samples={"synthetic": True, "count": 2})
    source = open_image_folder(DataConfig(source=str(tmp_path)))
    with pytest.raises(DataError, match=r"was generated by a model .*; name it in data\.exclude, or .*synthetic=true"):
        source.scan()
    synthetic = open_image_folder(DataConfig(source=str(tmp_path), synthetic=True))
    assert synthetic.simulated
    assert not source.simulated
    prefix = f"{below}/" if below else ""
    assert synthetic.scan()[0] == sorted([f"{prefix}0.png", f"{prefix}1.png", "no_tumor/real.png"])
    excluded = DataConfig(source=str(tmp_path), exclude=(f"{prefix}[0-9].png",))
    assert open_image_folder(excluded).scan()[0] == ["no_tumor/real.png"]


def test_include_and_exclude_patterns(tmp_path):
    make(tmp_path, "a/1.tif", "a/1_mask.tif", "a/deep/2.tif", "a/deep/2_mask.tif", "b/3.png", "masks/4.png")
    assert set(names_and_labels(tmp_path, exclude=["*_mask.tif", "masks/*"])) == {"a/1.tif", "a/deep/2.tif", "b/3.png"}
    assert set(names_and_labels(tmp_path, include=["*.tif"], exclude=["*_mask.*"])) == {"a/1.tif", "a/deep/2.tif"}
    assert set(names_and_labels(tmp_path, include=["b/*", "masks/*"])) == {"b/3.png", "masks/4.png"}


def test_a_folder_or_link_that_cannot_be_looked_at_is_a_file_that_cannot_be_read(tmp_path):
    make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    (tmp_path / "a" / "itself").symlink_to("itself")
    (tmp_path / "b" / "one").symlink_to("two")
    (tmp_path / "b" / "two").symlink_to("one")
    folder = os.open(tmp_path / "b", os.O_RDONLY)
    for _ in range(17):  # deeper than a path may be long: not even root can list it
        os.mkdir("x" * 250, dir_fd=folder)
        deeper = os.open("x" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.close(folder)
    source = open_image_folder(DataConfig(source=str(tmp_path)))
    names, fingerprint = source.scan()
    assert source.scan() == (names, fingerprint)
    (too_deep,) = [name for name in names if "xxx" in name]
    assert set(names) == {"a/1.png", "b/2.png", "itself", "a/itself", "b/one", "b/two", too_deep}
    for name in ("itself", "a/itself", "b/one", "b/two", too_deep):
        with pytest.raises(UnusableFile, match=r"unreadable: (Too many levels|File name too long)"):
            source.read(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can list every folder")
def test_a_folder_without_access_is_listed(tmp_path):
    make(tmp_path, "a/1.png", "a/locked/2.png")
    (tmp_path / "a" / "locked").chmod(0)
    source = open_image_folder(DataConfig(source=str(tmp_path)))
    assert source.scan()[0] == ["a/1.png", "a/locked"]
    with pytest.raises(UnusableFile, match="a folder that cannot be listed"):
        source.read("a/locked")
    (tmp_path / "a" / "locked").chmod(0o700)


def test_settings_that_a_job_does_not_use_change_no_digest():
    """Datasets, run folders and studies from before these settings existed stay those of the same jobs."""
    data = DataConfig(source="scans")
    plain = {"image_size", "fit", "crop_background", "splits", "subject_pattern", "max_pixels", "seed"}
    assert plain == data.content_settings().keys()
    assert not data.model_dump().keys() & set(OPTIONAL)
    assert DataConfig(source="scans", exclude=["x"]).dataset_path != data.dataset_path
    assert not DataConfig(source="phantom", exclude=["x"]).content_settings().keys() & set(OPTIONAL)


def serial(function, items, *, description):
    return map(function, items)


def varied(root, *names):
    for name in names:
        make(root, name)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (40, 40), dtype=np.uint8)).save(root / name)


def test_the_folder_that_holds_its_own_dataset_can_be_prepared_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    varied(tmp_path, "a/1.png", "a/12.png", "b/123.png", "b/1234_mask.png")
    data = DataConfig(source=".", path="datasets/d", image_size=16)
    dataset = prepare_dataset(data, serial)
    assert prepare_dataset(data, None) == dataset
    for setting in ({"exclude": ("*_mask.png",)}, {"synthetic": True}):
        with pytest.raises(
            DataError, match=rf"data\.{next(iter(setting))} = .*, the job says .*; set another data\.path"
        ):
            prepare_dataset(data.model_copy(update=setting), None)
    synthetic = prepare_dataset(DataConfig(source=".", path="datasets/s", image_size=16, synthetic=True), serial)
    assert synthetic.manifest.simulated
    assert not dataset.manifest.simulated
    with pytest.raises(DataError, match=r"data\.synthetic = True, the job says False"):
        prepare_dataset(data.model_copy(update={"path": "datasets/s"}), None)


def test_intensity_of_deep_files_and_a_nearly_empty_slice(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(10):
        values = rng.integers(0, 4096, (40, 40), dtype=np.uint16)
        values[0, 0] = 65535 if i == 3 else 4095  # a hot pixel
        path = tmp_path / "scans" / "a" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)

    def prepared(**settings):
        data = DataConfig(source=str(tmp_path / "scans"), path=str(tmp_path / json.dumps(settings)), **settings)
        return prepare_dataset(data, serial)

    assert prepared(image_size=16).manifest.nearly_empty == ()
    full = prepared(image_size=16, intensity="full")
    assert full.manifest.nearly_empty == ("a/3.png",)
    assert full.manifest.settings["intensity"] == "full"
    lines = [line for line in remarks(full.manifest) if "nearly empty" in line]
    assert lines == [
        "1 of 10 slices are nearly empty (98 % of their pixels within 24 of 255 grey levels), such as a/3.png"
    ]
    window = prepared(image_size=16, intensity=(0, 4095)).images("train")
    assert window.max() > 200
    other = DataConfig(source=str(tmp_path / "scans"), path=full.path, image_size=16)
    with pytest.raises(DataError, match=r"data\.intensity = full, the job says percentiles"):
        prepare_dataset(other, None)


def test_what_is_not_taken_is_counted(tmp_path):
    make(tmp_path, "a/1.png", "a/1_mask.png", "b/2.png", "b/2_mask.png", "out/d/3.png", "shown/4.png", "shown/grid.png")
    make(tmp_path, "__MACOSX/a/1.png", "a/@eaDir/1.png", ".git/1.png", "b/.hidden.png", "b/Thumbs.db.png")
    (tmp_path / "b" / "Thumbs.db.png").rename(tmp_path / "b" / "Thumbs.db")
    mark(tmp_path / "out" / "d", dataset={"schema_version": 1, "source_fingerprint": "0"})
    mark(tmp_path / "shown", samples={"synthetic": True})
    data = DataConfig(source=str(tmp_path), exclude=("*_mask.png",), synthetic=True, path=str(tmp_path / "out" / "e"))
    source = open_image_folder(data)
    assert source.scan()[0] == ["a/1.png", "b/2.png", "shown/4.png"]
    not_taken = source.not_taken()
    assert not_taken.excluded == 2
    assert not_taken.system_folders == (".git", "__MACOSX", "a/@eaDir")
    assert not_taken.system_files == 2
    assert not_taken.outputs == ("out/d", "shown/grid.png", "shown/samples.json")
    assert list(describe_not_taken(not_taken)) == [
        "not taken: 2 files that data.include and data.exclude leave out",
        "not taken, as hidden or left behind by systems: 2 files and what is in .git, __MACOSX and a/@eaDir",
        "not taken, as made by lwddpm: out/d, shown/grid.png and shown/samples.json",
    ]


def test_nothing_is_said_where_all_is_taken(tmp_path):
    make(tmp_path, "a/1.png", "b/2.png")
    not_taken = open_image_folder(DataConfig(source=str(tmp_path))).not_taken()
    assert not_taken == NotTaken()
    assert list(describe_not_taken(not_taken)) == []


def test_datasets_of_deep_files_by_version_0_1_are_not_taken(tmp_path):
    """It took other values for black and white, and the upper 8 bits of colour."""
    for folder, dtype in (("deep", np.uint16), ("shallow", np.uint8)):
        for i in range(4):
            values = np.random.default_rng(i).integers(0, 256, (40, 40)).astype(dtype)
            (tmp_path / folder / "a").mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / folder / "a" / f"{i}.png")
        data = DataConfig(source=str(tmp_path / folder), path=str(tmp_path / f"{folder}.data"), image_size=16)
        path = tmp_path / f"{folder}.data" / "dataset.json"
        prepare_dataset(data, serial)
        path.write_text(path.read_text().replace('"schema_version": 3', '"schema_version": 1'))
    assert prepare_dataset(data, None).manifest.schema_version == 1
    assert prepare_dataset(data.model_copy(update={"intensity": "full"}), None).manifest.schema_version == 1
    deep = DataConfig(source=str(tmp_path / "deep"), path=str(tmp_path / "deep.data"), image_size=16)
    with pytest.raises(DataError, match=r"read files of more than 8 bits, such as a/0\.png, otherwise; set another"):
        prepare_dataset(deep, None)
    assert prepare_dataset(deep, serial, fresh=True).manifest.schema_version == 3


def test_a_slice_that_says_it_was_generated_is_no_scan(tmp_path):
    """Copied away from its folder it still bears its mark."""
    mark = Mark(
        model_uri="models:/m/1",
        weights_sha256="ab" * 32,
        sampling=SamplingConfig(start="noise"),
        index=0,
        count=1,
        drawn_at=now(),
    )
    (tmp_path / "copied.png").write_bytes(encode(np.zeros((20, 20), np.uint8), mark))
    make(tmp_path, "real.png")
    settings = {"source": str(tmp_path), "image_size": 16}
    with pytest.raises(UnusableFile, match="a synthetic slice of model models:/m/1"):
        open_image_folder(DataConfig.model_validate(settings)).read("copied.png")
    taken = open_image_folder(DataConfig.model_validate(settings | {"synthetic": True}))
    assert taken.read("copied.png").image.shape == (16, 16)
    assert open_image_folder(DataConfig.model_validate(settings)).read("real.png").image.shape == (16, 16)
