import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from lwddpm.config import RegistryConfig, TrainJob
from lwddpm.tracking import registration, registry
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.tracking.runs import tracked_run

from ..processes import free_port
from .conftest import METRICS


def test_a_registration_cut_off_is_completed_and_not_doubled(
    job: TrainJob, store: str, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = (model_dir, RegistryConfig(name="once"), {"lwddpm.digest": "d"}, METRICS, 8, "card")
    with tracked_run(job, store, None, "digest") as run:
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "update_model_version", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                registration.register(run, *args)
        made = registration.register(run, *args)
        assert registry.list_versions("once") == [made]
        assert (made.aliases, made.card) == (["candidate"], "card")
        assert [m.value for m in run.client.get_metric_history(run.run_id, "eval/fd_lite0")] == [20.0]
        other = registration.register(run, *args[:2], {"lwddpm.digest": "other"}, *args[3:])
    assert (made.version, other.version) == (1, 2)


def _interrupt(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def test_nothing_that_is_stored_is_a_pickle(registered: Callable[[str], RegisteredVersion], tmp_path: Path) -> None:
    made = registered("files")
    local = Path(mlflow.artifacts.download_artifacts(f"models:/files/{made.version}", dst_path=str(tmp_path / "all")))
    files = [path for path in local.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    text = {"", ".html", ".json", ".md", ".py", ".txt", ".typed", ".yaml"}
    assert {path.suffix for path in files} <= text | {".safetensors"}
    assert not any(path.read_bytes().startswith(b"\x80") for path in files)


def test_the_stored_model_serves_images(
    registered: Callable[[str], RegisteredVersion], store: str, tmp_path: Path
) -> None:
    registered("served")
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
