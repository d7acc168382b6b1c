import shutil
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def store(empty_store: Path, tmp_path: Path) -> None:
    """The MLflow store that `tiny_job` and the searches name is there."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
