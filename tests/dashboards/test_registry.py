"""What the registry's pages say of versions that are not to be used as they are."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from starlette.testclient import TestClient

from lwddpm.tracking.registry import WITHDRAWN
from lwddpm.tracking.store import connect
from lwddpm_board.access import Access
from lwddpm_board.app import create_app
from lwddpm_board.stores import Stores


@pytest.fixture
def visitor(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client: MlflowClient = connect(uri)
    client.create_registered_model("heads")
    run = client.create_run(client.create_experiment("e", artifact_location=str(tmp_path / "artifacts")))
    warned = {"lwddpm.warning": "too few modes"}
    for tags in ({}, {WITHDRAWN: json.dumps({"entries": 3})}, warned):
        client.create_model_version("heads", str(tmp_path), run.info.run_id, tags=tags)
    stores = Stores(uri, f"sqlite:///{tmp_path}/optuna.db", (), tmp_path)
    return TestClient(create_app(stores, Access.of("127.0.0.1", ["127.0.0.1"])), base_url="http://127.0.0.1:8050")


def test_withdrawn_versions_and_warnings_stand_in_the_list_and_on_the_page(visitor: TestClient) -> None:
    listed = visitor.get("/registry").text
    rows = {number: listed.split(f"version {number}</a>")[1].split("</tr>")[0] for number in (1, 2, 3)}
    assert ["withdrawn" in rows[number] for number in (1, 2, 3)] == [False, True, False]
    assert ["too few modes" in rows[number] for number in (1, 2, 3)] == [False, False, True]
    assert "holds slices of 3 withdrawn subjects or files" in visitor.get("/registry/heads/2").text
    assert "withdrawn" not in visitor.get("/registry/heads/1").text
