import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from lwddpm.config import RegistryConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import CheckpointError, ConfigError
from lwddpm.tracking import registry
from lwddpm.tracking.card import model_card
from lwddpm.tracking.runs import tracked_run
from lwddpm.tracking.store import connect
from lwddpm.training.checkpoint import load_model, read_saved_model

from ..processes import free_port

METRICS = {"eval/fd_lite0": 20.0, "eval/fd_lite0_floor": 10.0}


def _register(job: TrainJob, store: str, model_dir: Path, name: str, dataset: Dataset) -> registry.RegisteredVersion:
    with tracked_run(job, store, None, "digest") as run:
        card = model_card(job, read_saved_model(model_dir), dataset, None, None)
        tags = {"lwddpm.dataset_version": dataset.version}
        return registry.register(run, model_dir, RegistryConfig(name=name), tags, METRICS, 8, card)


def test_registered_found_listed_and_fetched(job: TrainJob, store: str, model_dir: Path, tiny_dataset: Dataset) -> None:
    made = _register(job, store, model_dir, "found", tiny_dataset)
    assert (made.version, made.aliases, made.metrics) == (1, ["candidate"], METRICS)
    assert made.tags["lwddpm.dataset_version"] == tiny_dataset.version
    assert "Not for diagnosis" in made.card
    assert "simulated" in made.card
    assert registry.find_version("models:/found@candidate") == made == registry.find_version("found/1")
    second = _register(job, store, model_dir, "found", tiny_dataset)
    assert registry.find_version("models:/found@candidate") == second
    assert [(v.version, v.aliases) for v in registry.list_versions("found")] == [(2, ["candidate"]), (1, [])]
    folder = Path(store.removeprefix("sqlite:///")).parent / "kept"
    kept = registry.fetch_model("models:/found/1", folder)
    assert registry.fetch_model("models:/found/1", folder) == kept
    assert [path.name for path in sorted(kept.iterdir())] == ["config.json", "model.safetensors"]
    assert registry.fetch_model("models:/found/2", folder) != kept
    assert (kept / "model.safetensors").read_bytes() == (model_dir / "model.safetensors").read_bytes()
    fetched, saved = load_model(registry.fetch_model("models:/found/1"))
    original, _ = load_model(model_dir)
    assert saved == read_saved_model(model_dir)
    assert all(bool((a == b).all()) for a, b in zip(fetched.parameters(), original.parameters(), strict=True))


def test_files_that_are_not_where_mlflow_remembers_them_are_said(
    job: TrainJob, store: str, model_dir: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    _register(job, store, model_dir, "moved", tiny_dataset)
    artifacts = Path(MlflowClient().get_model_version_download_uri("moved", "1"))
    artifacts.rename(tmp_path / "now")
    with pytest.raises(CheckpointError, match=rf"models:/moved/1: .*they were in {artifacts}, .* ln -s WHERE"):
        registry.fetch_model("models:/moved/1")
    artifacts.symlink_to(tmp_path / "now")
    assert (registry.fetch_model("models:/moved/1") / "config.json").exists()


def test_a_registration_cut_off_is_completed_and_not_doubled(
    job: TrainJob, store: str, model_dir: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = (model_dir, RegistryConfig(name="once"), {"lwddpm.digest": "d"}, METRICS, 8, "card")
    with tracked_run(job, store, None, "digest") as run:
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "update_model_version", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                registry.register(run, *args)
        made = registry.register(run, *args)
        assert registry.list_versions("once") == [made]
        assert (made.aliases, made.card) == (["candidate"], "card")
        assert [m.value for m in run.client.get_metric_history(run.run_id, "eval/fd_lite0")] == [20.0]
        other = registry.register(run, *args[:2], {"lwddpm.digest": "other"}, *args[3:])
    assert (made.version, other.version) == (1, 2)


def _interrupt(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def test_promotion_moves_the_champion_and_keeps_every_record(
    job: TrainJob, store: str, model_dir: Path, tiny_dataset: Dataset
) -> None:
    for _ in range(2):
        _register(job, store, model_dir, "promoted", tiny_dataset)
    first = registry.promote("models:/promoted/1", "best so far")
    second = registry.promote("models:/promoted@candidate", "better")
    assert (first["from"], first["to"], second["from"], second["to"]) == (None, 1, 1, 2)
    assert second["metrics"] == METRICS
    assert second["by"]
    assert second["at"] > first["at"]
    assert registry.promotions("promoted") == [first, second]
    assert registry.find_version("models:/promoted@champion").version == 2


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
        registry.fetch_model(uri)


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
            registry.fetch_model(uri)
        server.shutdown()
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("uri", ["models:/none@candidate", "models:/none/3", "nothing", "models:/x"])
def test_an_unknown_model_is_refused(uri: str, store: str) -> None:
    connect(store)
    with pytest.raises(ConfigError, match=r"models:/|no such model"):
        registry.fetch_model(uri)


def test_nothing_that_is_stored_is_a_pickle(
    job: TrainJob, store: str, model_dir: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    made = _register(job, store, model_dir, "files", tiny_dataset)
    local = Path(mlflow.artifacts.download_artifacts(f"models:/files/{made.version}", dst_path=str(tmp_path / "all")))
    files = [path for path in local.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    text = {"", ".html", ".json", ".md", ".py", ".txt", ".typed", ".yaml"}
    assert {path.suffix for path in files} <= text | {".safetensors"}
    assert not any(path.read_bytes().startswith(b"\x80") for path in files)


def test_the_stored_model_serves_images(
    job: TrainJob, store: str, model_dir: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    _register(job, store, model_dir, "served", tiny_dataset)
    port = free_port()
    command = [Path(sys.executable).with_name("mlflow"), "models", "serve", "--env-manager", "local"]
    command += ["--model-uri", "models:/served@candidate", "--port", str(port), "--workers", "1"]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": store,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        first = _invoke(port, server, {"count": 3, "seed": 1, "steps": 2})
        again = _invoke(port, server, {"count": 2, "seed": 1, "steps": 2})
        other = _invoke(port, server, {"count": 2, "seed": 2, "steps": 2})
    finally:
        os.killpg(server.pid, 15)
        server.wait()
    assert first.shape == (3, 16, 16)
    assert (first.min() >= 0, first.max() <= 255) == (True, True)
    assert np.array_equal(first[:2], again)
    assert not np.array_equal(again, other)


def _invoke(port: int, server: subprocess.Popen[bytes], row: dict[str, int]) -> np.ndarray:
    """POST one row, waiting for the server to come up."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        data=json.dumps({"dataframe_records": [row]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return np.array(json.load(answer)["predictions"])
        except (ConnectionError, urllib.error.URLError):
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline
            time.sleep(0.5)
