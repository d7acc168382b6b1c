import numpy as np
from PIL import Image

from lwddpm.cluster.session import Session
from lwddpm.config import DataConfig
from lwddpm.config.training import WorkersConfig
from lwddpm.data.phantom import simulate
from lwddpm.data.prepare import prepare_dataset
from lwddpm.kinds.prepare import prepare, summary_of


def serial(function, items, *, description):
    return map(function, items)


def test_what_stands_out_in_a_dataset_is_said_also_when_it_lies_there_already(tmp_path, capfd):
    for i in range(40):
        image = np.zeros((32, 32), np.uint8) if i < 20 else simulate(0, i, 32)
        path = tmp_path / "scans" / "head" / f"sub-{i // 2:02d}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    data = DataConfig(
        source=str(tmp_path / "scans"), path=str(tmp_path / "data"), image_size=32, subject_pattern="(sub-[0-9]+)"
    )
    prepare_dataset(data, serial)
    with Session(WorkersConfig()) as session:
        dataset = prepare(data, session, fresh=False)
    said = capfd.readouterr().err
    assert "20 of 40 slices are blank" in said
    assert "slices of train show one picture" in said
    assert "the largest group of slices that stay together has 2, of subject sub-00" in said
    assert summary_of(dataset)["duplicates"]["blank"] == 20


def test_what_is_not_taken_is_said_and_stands_in_the_summary(tmp_path, capfd):
    rng = np.random.default_rng(0)
    for i in range(10):
        stack = [Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)) for _ in range(3)]
        (tmp_path / "scans" / "a").mkdir(parents=True, exist_ok=True)
        stack[0].save(tmp_path / "scans" / "a" / f"{i}.tif", save_all=True, append_images=stack[1:])
        stack[0].save(tmp_path / "scans" / "a" / f"{i}_mask.tif")
    data = DataConfig(
        source=str(tmp_path / "scans"), path=str(tmp_path / "data"), image_size=32, exclude=("*_mask.tif",)
    )
    prepare_dataset(data, serial)
    with Session(WorkersConfig()) as session:
        dataset = prepare(data, session, fresh=False)
    said = capfd.readouterr().err
    assert "not taken: 20 pages after the first of 10 files: a/0.tif (2)" in said
    assert "not taken: 10 files that data.include and data.exclude leave out" in said
    not_taken = summary_of(dataset)["not_taken"]
    assert (not_taken["pages"], not_taken["files_with_pages"], not_taken["excluded"]) == (20, 10, 10)
