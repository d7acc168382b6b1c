"""`offline: true`: what a job reaches, watched in its driver and in every process that it starts."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lwddpm.config import TrackingConfig
from lwddpm.errors import ConfigError
from lwddpm.evaluation.features import WeightsUnavailable, read_weights
from lwddpm.offline import is_offline, offline
from lwddpm.tracking.store import check_tracking

from .processes import LWDDPM, clean_environment, flags

GUARD = Path(__file__).with_name("offline_guard")


def _guarded(folder: Path, *command: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run a command under the guard; returns also what was tried."""
    own = {socket.gethostname(), *(a.address for addresses in psutil.net_if_addrs().values() for a in addresses)}
    guarded = clean_environment() | {
        "PYTHONPATH": os.pathsep.join([str(GUARD), os.environ.get("PYTHONPATH", "")]),
        "GUARD_OWN": ",".join(own),
        "GUARD_LOG": str(folder / "guard.log"),
        "TORCH_HOME": str(folder / "torch"),  # no weights in it
    }
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=guarded, timeout=280)
    log = folder / "guard.log"
    return done, log.read_text() if log.exists() else ""


def test_the_guard_sees_every_way_out(tmp_path: Path) -> None:
    for code in (
        "import urllib.request; urllib.request.urlopen('http://192.0.2.1')",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))",
        "import socket; socket.getaddrinfo('example.org', 80)",
    ):
        done, tried = _guarded(tmp_path, sys.executable, "-c", code)
        assert done.returncode == 1
        assert "was to be reached" in done.stderr
        assert "192.0.2.1" in tried or "example.org" in tried


@pytest.mark.cluster
def test_an_offline_job_reaches_no_other_machine(tiny_overrides: tuple[str, ...], tmp_path: Path) -> None:
    """The whole path, with Ray processes and with a metric that would be downloaded for."""
    overrides = (*tiny_overrides, "offline=true", "evaluation.metrics=[fid,ssim_pairs]")
    done, tried = _guarded(tmp_path, LWDDPM, "run", "demo", "--json", *flags(overrides))
    assert done.returncode == 0, done.stderr
    assert tried == ""
    assert len((tmp_path / "guard.pids").read_text().split()) > 2, "Ray's processes were not watched"
    summary = json.loads(done.stdout)
    assert "eval/ssim_pairs" in summary["metrics"]
    (missing,) = summary["unavailable"]
    assert "an offline job fetches none" in missing["reason"]


def test_offline_ends_with_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert not is_offline()
    with offline(True):
        assert is_offline()
        with pytest.raises(WeightsUnavailable, match="an offline job fetches none"):
            read_weights("fid")
    with offline(False):
        assert not is_offline()


def test_an_offline_job_does_not_follow_the_environment_to_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org:5000")
    with pytest.raises(ConfigError, match=r"offline: .*mlflow\.example\.org"):
        check_tracking(TrackingConfig(), offline=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert check_tracking(TrackingConfig(), offline=True) == uri
