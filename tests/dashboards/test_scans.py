"""The board's view of a dataset of volumes: by subject, sequence, plane and volume."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from lwddpm.config import DataConfig
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.store import Dataset, open_dataset
from lwddpm_board.stores import Stores

from ..conftest import serial_map
from .browser import IN_BROWSER, photograph
from .conftest import Board, serving

pytestmark = IN_BROWSER


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six simulated heads, six slices each."""
    folder = tmp_path_factory.mktemp("volumes")
    settings = {"source": "phantom", "phantom": "volumes", "phantom_count": 6, "image_size": 32}
    slices = {"range": [0.45, 0.75], "step_mm": 8}
    splits = (0.5, 0.25, 0.25)
    values = settings | {"path": str(folder / "volumes"), "slices": slices, "splits": splits}
    prepare_dataset(DataConfig.model_validate(values), serial_map)
    return open_dataset(str(folder / "volumes"))


@pytest.fixture(scope="module")
def board(volumes: Dataset, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("scans")
    shutil.copy(empty_store, folder / "mlflow.db")
    stores = Stores(f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/optuna.db", (volumes.path,), folder)
    with serving(stores) as started:
        yield started


def test_slices_are_found_by_subject_sequence_plane_and_volume(page: Page, volumes: Dataset) -> None:
    page.goto(f"/datasets/{volumes.version}")
    subjects = page.locator("#subjects tbody tr")
    expect(subjects).to_have_count(6)
    sheet = page.locator("#page .sheet li")
    expect(sheet).to_have_count(volumes.num("train"))
    for label, options in {"Sequence": ["all", "T1w"], "Plane": ["all", "axial"]}.items():
        assert page.get_by_label(label).locator("option").all_inner_texts() == options
    photograph(page, "volumes")

    of_subject = {subject for subject in volumes.subjects("train") if subject}
    subject = sorted(of_subject)[0]
    page.get_by_label("Subject").select_option(subject)
    expect(sheet).to_have_count(volumes.subjects("train").count(subject))
    page.get_by_label("Plane").select_option("axial")
    page.get_by_label("Sequence").select_option("T1w")
    expect(sheet).to_have_count(volumes.subjects("train").count(subject))

    sheet.first.get_by_role("link").click()  # the volume that the first slice is from
    rows = [row for row in volumes.scan_columns("train") if subject in row.volume]
    in_order = [f"{position:g} mm" for position in sorted(row.position_mm for row in rows)]
    expect(sheet).to_have_count(len(rows))
    assert page.locator("#page .sheet small").all_inner_texts() == in_order
    assert page.get_by_label("Volume").input_value() == rows[0].volume
    photograph(page, "volume")

    row = subjects.filter(has_text=volumes.subjects("test")[0] or "")
    expect(row).to_contain_text("test")
    row.get_by_role("link").first.click()  # the other one is of its lineage
    expect(sheet).to_have_count(volumes.subjects("test").count(volumes.subjects("test")[0]))
    page.goto(f"/datasets/{volumes.version}?subject=nobody")
    expect(page.get_by_text("No slice of this split is left by these filters.")).to_be_visible()
