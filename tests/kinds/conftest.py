import pytest


@pytest.fixture(autouse=True)
def store_is_there(store: str) -> None:
    """The MLflow store that `tiny_job` and the searches name."""
