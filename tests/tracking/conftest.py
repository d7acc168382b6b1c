from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from lwddpm.config import TrackingConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.models.build import build_model, count_parameters
from lwddpm.tracking.store import connect
from lwddpm.training.checkpoint import SavedModel, save_model


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real MLflow store on SQLite. Creating its tables takes seconds, so the tests share it, each with its names."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = connect(uri)
    client.create_experiment("lw-ddpm", artifact_location=str(folder / "artifacts"))
    return uri


@pytest.fixture
def job(tiny_job: Callable[..., TrainJob], store: str) -> TrainJob:
    return tiny_job().model_copy(update={"tracking": TrackingConfig(uri=store)})


@pytest.fixture
def open_run(store: str) -> Iterator[str]:
    """Id of a run that is RUNNING."""
    client = connect(store)
    run_id = client.create_run(client.get_experiment_by_name("lw-ddpm").experiment_id).info.run_id
    yield run_id
    if client.get_run(run_id).info.status == "RUNNING":
        client.set_terminated(run_id)


@pytest.fixture
def model_dir(job: TrainJob, tiny_dataset: Dataset, tmp_path: Path) -> Path:
    """An untrained network, saved as the training loop saves one."""
    saved = SavedModel(
        model=job.model,
        diffusion=job.diffusion,
        image_size=16,
        dataset_version=tiny_dataset.version,
        dataset_simulated=True,
        training_digest=job.training_digest(),
        step=8,
        epoch=1.0,
        parameters=count_parameters(job.model),
    )
    return save_model(tmp_path / "model", build_model(job.model), saved)


@pytest.fixture(autouse=True)
def no_run_left_open() -> Iterator[None]:
    yield
    assert mlflow.active_run() is None
