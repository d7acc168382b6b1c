"""Pictures that a folder holds twice, a little changed: hashes miss them, correlation does not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lwddpm.audit.canaries import planted
from lwddpm.audit.near_copies import near_copies
from lwddpm.config import DataConfig
from lwddpm.data.phantom import simulate
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.store import SPLITS, Dataset
from lwddpm.errors import DataError

SIZE, NUM = 64, 24
COPIED = {1: "shifted", 5: "rotated", 9: "re-contrasted"}


@pytest.fixture(scope="module")
def slices() -> np.ndarray:
    """24 different slices, and three changed copies behind them."""
    images = np.stack([simulate(0, index, SIZE) for index in range(NUM)])
    copies = [planted(images[row : row + 1], kind, 3)[0] for row, kind in COPIED.items()]
    return np.concatenate([images, np.stack(copies)])


def test_only_changed_copies_are_linked(slices: np.ndarray) -> None:
    assert near_copies(slices).tolist() == [[row, NUM + number] for number, row in enumerate(COPIED)]
    assert near_copies(slices[:NUM]).tolist() == []
    assert near_copies(slices[:1]).shape == (0, 2)


@pytest.fixture
def prepared(slices: np.ndarray, tmp_path: Path) -> Callable[..., Dataset]:
    folder = tmp_path / "scans" / "head"
    folder.mkdir(parents=True)
    for number, image in enumerate(slices):
        Image.fromarray(image).save(folder / f"{number:02d}.png")

    def prepare(name: str, **settings: object) -> Dataset:
        values = {"source": str(tmp_path / "scans"), "path": str(tmp_path / name), "image_size": SIZE}
        data = DataConfig.model_validate(values | {"splits": [0.5, 0.25, 0.25]} | settings)
        return prepare_dataset(data, lambda function, items, **options: map(function, items), alike=near_copies)

    return prepare


def test_copies_that_hashes_miss_stay_in_one_split(prepared: Callable[..., Dataset]) -> None:
    by_hash, by_correlation = prepared("hash"), prepared("correlation", near_duplicates="correlation")
    assert by_hash.manifest.duplicates.near_pairs < len(COPIED)
    assert by_correlation.manifest.duplicates.near_pairs == len(COPIED)
    group = {
        name: int(number)
        for split in SPLITS
        for name, number in zip(by_correlation.sources(split), by_correlation.groups(split), strict=True)
    }
    for number, row in enumerate(COPIED):
        assert group[f"head/{row:02d}.png"] == group[f"head/{NUM + number:02d}.png"]
    assert len(set(group.values())) == NUM
    assert "near_duplicates" not in by_hash.manifest.settings, "the default leaves datasets as they were"
    with pytest.raises(DataError, match=r"data\.near_duplicates = correlation, the job says hash"):
        prepared("correlation")


def test_without_a_search_nothing_is_prepared_as_if_there_were_none(tmp_path: Path) -> None:
    data = DataConfig(source=str(tmp_path), path=str(tmp_path / "out"), near_duplicates="correlation")
    with pytest.raises(ValueError, match="takes a search"):
        prepare_dataset(data, lambda function, items, **options: map(function, items))
