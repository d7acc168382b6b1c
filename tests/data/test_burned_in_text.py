"""Letters in the corners of slices are found, heads without them are none, and what `data.text` does about them."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from lwddpm.config import DataConfig
from lwddpm.data.burned_in_text import STROKE, _opening, find_text
from lwddpm.data.phantom import simulate
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.remarks import remarks
from lwddpm.data.staging import TEXT
from lwddpm.data.store import Dataset
from lwddpm.errors import DataError

from ..conftest import serial_map

SIDE = 128
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def written(image: np.ndarray, text: str, at: tuple[int, int], size: int = 10, level: int = 200) -> np.ndarray:
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).text(at, text, fill=level, font=ImageFont.truetype(FONT, size))
    return np.asarray(picture)


@pytest.fixture(scope="module")
def heads() -> list[np.ndarray]:
    """Phantom slices with a black border, where text would be."""
    return [np.pad(simulate(0, index, SIDE - 32), 16) for index in range(24)]


def test_opening_is_scipys() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    inside = slice(STROKE, -STROKE)
    expected = ndimage.grey_opening(image, size=STROKE)
    assert np.array_equal(_opening(image)[inside, inside], expected[inside, inside])
    assert np.array_equal(_opening(np.full((20, 20), 7, np.uint8)), np.full((20, 20), 7, np.uint8))


def test_heads_are_no_text_and_names_in_any_corner_are(heads: list[np.ndarray]) -> None:
    corners = [(2, 2), (2, SIDE - 14), (70, 2), (70, SIDE - 14)]
    assert sum(bool(find_text(head)) for head in heads) <= 1
    found = [bool(find_text(written(head, "DOE^JANE", corner))) for head in heads for corner in corners]
    assert np.mean(found) >= 0.95


@pytest.mark.parametrize("size", [8, 10, 12, 16])
@pytest.mark.parametrize("level", [80, 160, 255])
def test_sizes_and_contrasts(heads: list[np.ndarray], size: int, level: int) -> None:
    found = [bool(find_text(written(head, "ID 4711", (3, 2), size, level))) for head in heads]
    assert np.mean(found) >= 0.9


def test_a_row_says_where_it_is() -> None:
    line = find_text(written(np.zeros((SIDE, SIDE), np.uint8), "SMITH", (5, 3), 12))[0]
    assert line.letters in (4, 5), "two letters may touch"
    assert 4 <= line.left <= 8
    assert 3 <= line.top <= 8
    assert 38 <= line.right <= 60


def test_what_is_too_small_to_be_read_or_in_the_middle_is_not_looked_for() -> None:
    black = np.zeros((SIDE, SIDE), np.uint8)
    assert not find_text(written(black, "SMITH", (45, 58), 10))
    assert not find_text(black[:4, :4])
    assert not find_text(black)


@pytest.fixture
def scans(tmp_path: Path, heads: list[np.ndarray]) -> DataConfig:
    folder = tmp_path / "scans"
    folder.mkdir()
    for index, head in enumerate(heads):
        head = written(head, "DOE^JANE", (2, 2)) if index < 3 else head
        Image.fromarray(head).save(folder / f"{index:02d}.png")
    path = str(tmp_path / "dataset")
    return DataConfig(source=str(folder), image_size=SIDE, path=path, max_rejected_fraction=0.3)


def test_text_is_listed_refused_or_accepted(scans: DataConfig, tmp_path: Path) -> None:
    def prepared(name: str, **settings: object) -> Dataset:
        return prepare_dataset(scans.model_copy(update={"path": str(tmp_path / name), **settings}), serial_map)

    warned = prepared("warned")
    assert {"00.png", "01.png", "02.png"} <= set(warned.manifest.with_text)
    num = len(warned.manifest.with_text)
    assert num <= 4
    said = "\n".join(remarks(warned.manifest))
    assert f"text seems to stand near the borders of {num} slices, such as 00.png" in said
    refused = prepared("refused", text="refuse").manifest
    assert {file.source for file in refused.rejected} == set(warned.manifest.with_text)
    assert {file.reason for file in refused.rejected} == {TEXT}
    assert refused.num == warned.manifest.num - num
    with pytest.raises(DataError, match=r"data\.text"):
        prepared("few", text="refuse", max_rejected_fraction=0.1)
    silent = prepared("accepted", text="accept")
    assert silent.manifest.with_text == ()
    assert silent.version == warned.version, "looking changes nothing that training sees"


def test_jobs_that_say_nothing_keep_their_datasets() -> None:
    plain = DataConfig(source="scans")
    assert "text" not in plain.content_settings()
    assert plain.dataset_path == DataConfig(source="scans", text="warn").dataset_path
    assert plain.dataset_path != DataConfig(source="scans", text="refuse").dataset_path
