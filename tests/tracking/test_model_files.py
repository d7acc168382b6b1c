import http.server
import json
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from lwddpm.errors import CheckpointError
from lwddpm.tracking import model_files
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.tracking.store import connect


def test_files_that_are_not_where_mlflow_remembers_them_are_said(
    registered: Callable[[str], RegisteredVersion], tmp_path: Path
) -> None:
    registered("moved")
    artifacts = Path(MlflowClient().get_model_version_download_uri("moved", "1"))
    artifacts.rename(tmp_path / "now")
    with pytest.raises(CheckpointError, match=rf"models:/moved/1: .*they were in {artifacts}, .* ln -s WHERE"):
        model_files.fetch_model("models:/moved/1")
    artifacts.symlink_to(tmp_path / "now")
    assert (model_files.fetch_model("models:/moved/1") / "config.json").exists()


def _version_at(store: str, name: str, source: str) -> str:
    client = connect(store)
    client.create_registered_model(name)
    return f"models:/{name}/{client.create_model_version(name, source).version}"


def test_a_registry_that_points_outside_the_models_folder_is_refused(
    store: str, model_dir: Path, tmp_path: Path
) -> None:
    source = tmp_path / "crafted"
    (source / "artifacts" / "model").mkdir(parents=True)
    shutil.copy(model_dir / "config.json", source / "artifacts" / "model")
    (source / "artifacts" / "model" / "model.safetensors").symlink_to(model_dir / "model.safetensors")
    uri = _version_at(store, "symlinked", source.as_uri())
    with pytest.raises(CheckpointError, match=r"model\.safetensors lies outside the model's folder"):
        model_files.fetch_model(uri)


def test_a_server_that_hands_out_paths_outside_the_folder_is_refused(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a zip slip: the listing of a model names files above the folder that they are fetched into."""

    class Crafted(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listing = "path=" in self.path or self.path.endswith("/artifacts")
            files = [{"path": "../../../escaped", "is_dir": False, "file_size": 4}]
            body = json.dumps({"files": files}).encode() if listing else b"evil"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    temporary = tmp_path / "one" / "two" / "three" / "four"  # so deep that what escapes stays in the test's folder
    temporary.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Crafted) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = f"http://127.0.0.1:{server.server_port}/api/2.0/mlflow-artifacts/artifacts/crafted"
        uri = _version_at(store, "crafted", source)
        with pytest.raises(CheckpointError, match="cannot be fetched"):
            model_files.fetch_model(uri)
        server.shutdown()
    assert not list(tmp_path.rglob("escaped"))
