"""`offline: true`: what a job reaches, watched in its driver and in every process that it starts."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lwddpm.config import TrackingConfig
from lwddpm.errors import ConfigError
from lwddpm.evaluation.features import WeightsUnavailable, read_weights
from lwddpm.offline import is_offline, offline
from lwddpm.tracking.store import check_tracking

from .kinds.compare.test_run import SMALL
from .processes import LWDDPM, clean_environment, flags

GUARD = Path(__file__).with_name("offline_guard")


def _guarded(folder: Path, *command: str, text: str = "") -> tuple[subprocess.CompletedProcess[str], str]:
    """Run a command under the guard; returns also what was tried."""
    own = {socket.gethostname(), *(a.address for addresses in psutil.net_if_addrs().values() for a in addresses)}
    guarded = clean_environment() | {
        "PYTHONPATH": os.pathsep.join([str(GUARD), os.environ.get("PYTHONPATH", "")]),
        "GUARD_OWN": ",".join(own),
        "GUARD_LOG": str(folder / "guard.log"),
        "TORCH_HOME": str(folder / "torch"),  # no weights in it
    }
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=folder, env=guarded, timeout=280)
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


@pytest.fixture
def search(search_overrides: Callable[[str], list[str]]) -> list[str]:
    """Overrides of a search of a grid of two trials."""
    space = search_overrides("training.lr:\n  categorical: [0.001, 0.002]\n")
    return [
        *space,
        "search.sampler=grid",
        "search.num_trials=null",
        "search.max_steps=4",
        "search.grace_steps=2",
        "search.scheduler=none",
    ]


def _offline(folder: Path, job: str, overrides: Iterable[str]) -> dict[str, Any]:
    """The result of an offline job that must have reached no other machine."""
    done, tried = _guarded(folder, LWDDPM, "run", job, "--json", *flags((*overrides, "offline=true")))
    assert done.returncode == 0, done.stderr
    assert tried == ""
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


@pytest.mark.cluster
def test_offline_a_model_is_made_measured_and_sampled(tiny_overrides: tuple[str, ...], tmp_path: Path) -> None:
    """The whole path, with Ray processes and with a metric that would be downloaded for."""
    data = [o for o in tiny_overrides if o.startswith("data.")]
    evaluation = [*(o for o in tiny_overrides if o.startswith("evaluation.")), "evaluation.metrics=[fid,ssim_pairs]"]
    _offline(tmp_path, "prepare", [*data, "data.source=phantom"])
    assert len((tmp_path / "guard.pids").read_text().split()) > 2, "Ray's processes were not watched"
    trained = _offline(tmp_path, "demo", [*tiny_overrides, *evaluation])
    measured = _offline(tmp_path, "evaluate", [*data, *evaluation])
    for summary in (trained, measured):
        assert "eval/ssim_pairs" in summary["metrics"]
        (missing,) = summary["unavailable"]
        assert "an offline job fetches none" in missing["reason"]
    assert _offline(tmp_path, "sample", ["count=3", "sampling.num_inference_steps=2"])["count"] == 3


@pytest.mark.cluster
@pytest.mark.usefixtures("store")
def test_offline_a_search_is_made_or_refused(search: list[str], tmp_path: Path) -> None:
    refused, tried = _guarded(
        tmp_path, LWDDPM, "run", "search_demo", *flags((*search, "offline=true", "search.objectives=[eval/fid]"))
    )
    assert (refused.returncode, tried) == (2, "")
    assert "an offline job fetches none" in refused.stderr
    assert _offline(tmp_path, "search_demo", search)["search"]["counts"] == {"complete": 2}


@pytest.mark.cluster
@pytest.mark.usefixtures("store")
def test_offline_a_comparison_is_made(tiny_data: str, tmp_path: Path) -> None:
    places = [f"data.path={tiny_data}", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"]
    result = _offline(tmp_path, "compare_demo", [*SMALL, *places, "evaluation.metrics=[fid,fd_lite0,ssim_nearest]"])
    assert result["statements"]


@pytest.mark.usefixtures("store")
def test_a_dry_run_fetches_nothing(search: list[str], tmp_path: Path) -> None:
    """Also of jobs that are not offline: the weights for `eval/fid` are downloaded by the run."""
    code = """
import json, sys
from lwddpm.jobfile import load_job
from lwddpm.kinds.dry_run import plan
for name, overrides in json.load(sys.stdin):
    plan(load_job(name, overrides))
    # a training is planned without what takes seconds to import
    assert name not in ("prepare", "demo") or "mlflow" not in sys.modules
"""
    source, fid = "data.source=phantom", "evaluation.metrics=[fid,fd_lite0]"
    jobs = [("prepare", [source]), ("demo", [fid]), ("evaluate", [fid]), ("sample", []), ("compare_demo", [])]
    jobs.append(("search_demo", [*search, "search.objectives=[eval/fid]"]))
    done, tried = _guarded(tmp_path, sys.executable, "-c", code, text=json.dumps(jobs))
    assert done.returncode == 0, done.stderr
    assert tried == ""


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
