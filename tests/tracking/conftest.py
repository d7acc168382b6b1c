import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from lwddpm.config import TrackingConfig, TrainJob
from lwddpm.tracking.store import connect


@pytest.fixture(scope="session")
def store(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real MLflow store on SQLite that the tests here share, each with its names."""
    folder = tmp_path_factory.mktemp("mlflow")
    shutil.copy(empty_store, folder / "mlflow.db")
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


@pytest.fixture(autouse=True)
def no_run_left_open() -> Iterator[None]:
    yield
    assert mlflow.active_run() is None
