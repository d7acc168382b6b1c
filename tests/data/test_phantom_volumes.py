"""Simulated volumes: from NIfTI files to slices, and to a registered model."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from lwddpm.config import DataConfig, TrainJob
from lwddpm.data.phantom_volumes import FIRST_MM, SPACING_MM, PhantomVolumes, simulate_volume
from lwddpm.data.prepare import prepare_dataset
from lwddpm.jobfile import load_job
from lwddpm.kinds.jobs import run_job
from lwddpm.tracking.registry import find_version
from lwddpm.tracking.store import connect

from ..conftest import TINY, serial_map

SLICES = {"range": [0.45, 0.75], "step_mm": 8}


def _data(folder: Path, **settings: object) -> DataConfig:
    values = {"source": "phantom", "phantom": "volumes", "phantom_count": 6, "image_size": 16, "slices": SLICES}
    return DataConfig.model_validate(values | {"path": str(folder / "dataset")} | settings)


def test_a_head_is_a_function_of_seed_and_number_in_template_space() -> None:
    head = simulate_volume(0, 1)
    assert np.array_equal(head, simulate_volume(0, 1))
    other = simulate_volume(0, 2)
    assert np.corrcoef(head.ravel(), other.ravel())[0, 1] > 0.7
    assert np.abs(head - other).mean() > 20
    centre = tuple(round(-first / SPACING_MM) for first in FIRST_MM)  # the anterior commissure
    assert head[centre] > 200
    for axis in range(3):  # the head lies inside of its volume
        edges = np.moveaxis(head, axis, 0)[[0, -1]]
        assert np.median(edges) < 60
        assert np.percentile(edges, 95) < 100


def test_its_files_are_nifti_and_its_slices_those_of_volumes(tmp_path: Path) -> None:
    data = _data(tmp_path)
    dataset = prepare_dataset(data, serial_map)
    manifest = dataset.manifest
    assert (manifest.simulated, manifest.source, manifest.label_names) == (True, "phantom", ("T1w",))
    assert manifest.settings["phantom"] == "volumes"
    assert manifest.settings["slices"]["step_mm"] == 8
    rows = [row for split in manifest.splits for row in dataset.scan_columns(split)]
    assert {row.plane for row in rows} == {"axial"}
    assert len({row.volume for row in rows}) == 6
    for volume in {row.volume for row in rows}:
        positions = sorted(row.position_mm for row in rows if row.volume == volume)
        assert set(np.diff(positions)) == {8.0}
    folder = PhantomVolumes.of(data).folder.root
    file = nibabel.load(Path(folder, "sub-00003", "anat", "sub-00003_T1w.nii.gz"))
    assert np.array_equal(np.asarray(file.dataobj), simulate_volume(0, 3))
    assert nibabel.aff2axcodes(file.affine) == ("R", "A", "S")
    again = prepare_dataset(_data(tmp_path, path=str(tmp_path / "again")), serial_map)
    assert again.version == manifest.version


def test_other_slices_are_another_dataset_and_the_first_phantom_stays_what_it_was() -> None:
    volumes = DataConfig(source="phantom", phantom="volumes")
    paths = {
        DataConfig(source="phantom").dataset_path,
        volumes.dataset_path,
        volumes.model_copy(update={"plane": "coronal"}).dataset_path,
        volumes.model_copy(update={"seed": 1}).dataset_path,
    }
    assert len(paths) == 4
    assert "phantom" not in DataConfig(source="phantom").content_settings()
    with pytest.raises(ValueError, match="applies to simulated data"):
        DataConfig(source="scans", phantom="volumes")


@pytest.mark.cluster
def test_from_nifti_files_to_a_registered_model(store: str, tmp_path: Path) -> None:
    places = (
        "data.phantom=volumes", "data.phantom_count=6", f"data.path={tmp_path / 'dataset'}",
        "data.slices={range: [0.45, 0.75], step_mm: 4}", f"output={tmp_path / 'runs'}", f"tracking.uri={store}",
    )  # fmt: skip
    job = load_job("demo", [*(o for o in TINY if not o.startswith("data.phantom_count")), *places])
    assert isinstance(job, TrainJob)
    result = run_job(job)
    assert result["dataset"]["simulated"]
    connect(store)
    version = find_version(result["model"]["uri"])
    assert version.tags["lwddpm.dataset_version"] == result["dataset"]["version"]
    assert len(version.tags["lwddpm.weights_sha256"]) == 64
