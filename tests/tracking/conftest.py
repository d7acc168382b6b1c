import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from lwddpm.config import RegistryConfig, TrackingConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.tracking import registration
from lwddpm.tracking.card import model_card
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.tracking.runs import tracked_run
from lwddpm.tracking.store import connect
from lwddpm.training.stored_model import read_saved_model

METRICS = {"eval/fd_lite0": 20.0, "eval/fd_lite0_floor": 10.0}


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
def registered(job: TrainJob, store: str, model_dir: Path, tiny_dataset: Dataset) -> Callable[[str], RegisteredVersion]:
    """Registers `model_dir` under a name, as a training run does."""

    def register(name: str) -> RegisteredVersion:
        with tracked_run(job, store, None, "digest") as run:
            card = model_card(job, read_saved_model(model_dir), tiny_dataset, None, None)
            tags = {"lwddpm.dataset_version": tiny_dataset.version}
            return registration.register(run, model_dir, RegistryConfig(name=name), tags, METRICS, 8, card)

    return register


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
