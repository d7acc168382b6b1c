import numpy as np
from PIL import Image

from lwddpm.cluster.session import Session
from lwddpm.config import DataConfig
from lwddpm.config.job import WorkersConfig
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
