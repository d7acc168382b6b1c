"""Shared by all tests: an isolated home for caches and stores, small datasets, one Ray cluster for the session."""

import os

# Before torch is imported anywhere, here and in every process that a test starts: one compute thread. On networks this
# small a second one only waits for the first, and where other tests have the CPUs each layer waits for both.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line sets it, for the tests that want more threads
os.environ.setdefault("TQDM_DISABLE", "1")
# Ray gives its workers a niceness of 15, with which they starve beside other tests.
os.environ.setdefault("RAY_worker_niceness", "0")
# Of the processes that tests start, the first one compiles the platform for all others.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import gc
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from lwddpm.config import TrainJob
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.store import Dataset
from lwddpm.jobfile import load_job

# With its own thresholds the collector goes through all objects of torch, MLflow and Ray again and again, which was a
# seventh of this process's CPU time.
gc.set_threshold(20_000, 10, 10)

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "data.phantom_count=60",
    "data.image_size=16",
    "model.dim=8",
    "model.dim_mults=[1,2]",
    "training.max_steps=8",
    "training.precision=fp32",  # parity is judged closely, on any machine
    "training.batch_size=8",
    "training.warmup_steps=0",
    "training.log_every_steps=3",
    "training.checkpoint_every_epochs=0.5",
    "training.snapshot_epochs=[1]",
    "training.validation_samples=6",
    "evaluation.metrics=[ssim_pairs,ssim_reconstruction]",
    "model.patch=1",
    "model.head_skip=false",
    "diffusion.intensity_gamma=1",
    "training.optimizer=adam",
    "training.lr=2.0e-3",
    "training.timestep_sampling=uniform",
    "training.log_sigma_mean=null",
    "training.log_sigma_std=null",
    "training.ema_decay=0.995",
    "training.guide_epoch=null",
    "evaluation.guidance=1",
    "evaluation.num_samples=6",
    "evaluation.sampler=ddim",
    "evaluation.num_inference_steps=3",
    "evaluation.reconstruction_timestep=3",
    "workers.cpus_per_worker=1",  # one thread, as above
)
# instead of the demo's diffusion settings
TINY_GAN = (
    "diffusion=null",
    "evaluation.sampler=null",
    "evaluation.num_inference_steps=null",
    "evaluation.reconstruction_timestep=null",
    "training.validation_samples=null",
    "training.lr=1e-3",
    "training.lr_schedule=constant",
)


@event.listens_for(Engine, "connect")
def _do_not_wait_for_the_disk(connection: object, _: object) -> None:
    """Of the stores that this process writes to; they need not survive a power cut, and a commit waits 20 ms for it."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported by now stays


def serial_map(function: Callable[[Any], Any], items: Sequence[Any], **options: Any) -> Iterator[Any]:
    """A ParallelMap without Ray."""
    return map(function, items)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image caches and feature statistics of the tests stay out of the user's home."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["LWDDPM_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def short_grids() -> Iterator[None]:
    """Grids of snapshots are drawn in 5 steps, not 50, which took a third of a small training's time.

    Where one worker trains, which is in this process. Tests look at which grids there are, not at how good they are.
    """
    from lwddpm.training import denoising

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoising, "GRID_STEPS", 5)
        yield


@pytest.fixture(scope="session")
def tiny_overrides() -> tuple[str, ...]:
    """Overrides of the demo job for the smallest job that has every part."""
    return TINY


@pytest.fixture(scope="session")
def tiny_gan_overrides() -> tuple[str, ...]:
    """Further ones for a GAN; `model.family` is to be given."""
    return TINY_GAN


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a prepared dataset of 60 phantoms, 16x16: the one that `tiny_job` trains on."""
    path = str(tmp_path_factory.mktemp("data") / "phantoms")
    job = load_job("demo", [*TINY, f"data.path={path}"])
    assert isinstance(job, TrainJob)
    prepare_dataset(job.data, serial_map)
    return path


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs, to be copied: creating its tables takes seconds."""
    from lwddpm.tracking.store import connect

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{file}")
    return file


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    """URI of an MLflow store of this test alone: the one that `tiny_job` and `search_overrides` name."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def tiny_job(tiny_data: str, short_grids: None, tmp_path: Path) -> Callable[..., TrainJob]:
    """Builds the smallest job that has every part; arguments are further `key=value` overrides."""

    def build(*overrides: str) -> TrainJob:
        places = (
            f"data.path={tiny_data}",
            f"output={tmp_path / 'runs'}",
            f"tracking.uri=sqlite:///{tmp_path}/mlflow.db",
        )
        job = load_job("demo", [*TINY, *places, *overrides])
        assert isinstance(job, TrainJob)
        return job

    return build


@pytest.fixture
def tiny_gan(tiny_job: Callable[..., TrainJob]) -> Callable[..., TrainJob]:
    """`tiny_job` for GANs; `model.family` is to be given."""
    return lambda *overrides: tiny_job(*TINY_GAN, *overrides)


@pytest.fixture
def search_overrides(tiny_data: str, short_grids: None, tmp_path: Path) -> Callable[[str], list[str]]:
    """Overrides of jobs/search_demo.yaml for the smallest search, given the text of its search space."""

    def overrides(space: str) -> list[str]:
        (tmp_path / "space.yaml").write_text(space)
        places = {
            "data.path": tiny_data,
            "output": tmp_path / "runs",
            "tracking.uri": f"sqlite:///{tmp_path}/mlflow.db",
            "search.storage": f"sqlite:///{tmp_path}/optuna.db",
            "search.space": tmp_path / "space.yaml",
        }
        tiny = [override for override in TINY if "snapshot" not in override]
        return [*tiny, *(f"{key}={value}" for key, value in places.items())]

    return overrides


@pytest.fixture
def tiny_dataset(tiny_data: str) -> Dataset:
    from lwddpm.data.store import open_dataset

    return open_dataset(tiny_data)


@pytest.fixture
def model_dir(tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, tmp_path: Path) -> Path:
    """An untrained network, saved as the training loop saves one."""
    import torch

    from lwddpm.models.build import build_model, count_parameters
    from lwddpm.training.stored_model import SavedModel, save_model

    job = tiny_job()
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
    torch.manual_seed(0)
    return save_model(tmp_path / "model", build_model(job.model), saved)


@pytest.fixture
def conditional_dir(tiny_dataset: Dataset, model_dir: Path, tmp_path: Path) -> Path:
    """An untrained network that is told the class."""
    import torch

    from lwddpm.models.build import build_model
    from lwddpm.training.stored_model import read_saved_model, save_model
    from lwddpm.training.vocabulary import vocabulary_of

    vocabulary = vocabulary_of(tiny_dataset, ("label",), 0.1)
    saved = read_saved_model(model_dir)
    config = saved.model.model_copy(update={"conditions": ("label",)})
    torch.manual_seed(2)
    network = build_model(config, vocabulary=vocabulary)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return save_model(
        tmp_path / "conditional", network, saved.model_copy(update={"model": config, "conditions": vocabulary})
    )


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray for the whole session, started as the platform starts it."""
    import ray

    from lwddpm.cluster.session import Session
    from lwddpm.config import WorkersConfig

    with Session(WorkersConfig()) as session:
        session.connect()
        yield
    assert not ray.is_initialized()
