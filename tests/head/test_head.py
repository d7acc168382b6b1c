"""A real head: started by `lwddpm up`, used by submitted jobs, stopped by `lwddpm down`."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from ..processes import LWDDPM, flags, free_port, wait_until

STEPS = 600
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@dataclass
class RunningHead:
    """A user's home, in which a head runs."""

    home: Path
    environment: dict[str, str]
    ports: dict[str, int]
    up: dict[str, Any]

    def call(self, *arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | variables
        command = [LWDDPM, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.home, env=environment, timeout=400)
        assert done.returncode == code, done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.call(*arguments, "--json").stdout)

    @property
    def secrets(self) -> list[str]:
        return [
            (self.home / ".lwddpm" / "head" / "mlflow_password").read_text(),
            (self.home / ".ray" / "auth_token").read_text(),
        ]

    @property
    def processes(self) -> list[psutil.Process]:
        saved = json.loads((self.home / ".lwddpm" / "head" / "head.json").read_text())
        roots = [psutil.Process(record["pid"]) for record in saved["processes"].values()]
        return [process for root in roots for process in (root, *root.children(recursive=True))]

    @property
    def storage(self) -> Path:
        return Path(self.up["storage"])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHead]:
    home = tmp_path_factory.mktemp("home")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "RAY_"))}
    temporary = tmp_path_factory.mktemp("too_long_for_sockets" * 4)
    environment = kept | {"HOME": str(home), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    environment |= {"RAY_worker_niceness": "0"}
    ports = {flag: free_port() for flag in ("--ray-port", "--dashboard-port", "--mlflow-port")}
    head = RunningHead(home, environment, ports, {})
    head.up = head.json("up", "--cpus=2", *(f"{flag}={port}" for flag, port in ports.items()))
    processes = head.processes
    yield head
    stopped = head.json("down")
    assert set(stopped["stopped"]) >= {"mlflow", "ray"}
    _, left = psutil.wait_procs(processes, timeout=20)
    assert not left, left
    assert "no head is running" in head.call("down").stdout


def _status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _get(head: RunningHead, path: str) -> str:
    """What the head's Ray answers to whoever has its token."""
    request = urllib.request.Request(f"{head.up['ray']}/{path}", headers={"Authorization": f"Bearer {head.secrets[1]}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.read().decode())


def _nodes(head: RunningHead) -> list[dict[str, Any]]:
    """Those that are alive."""
    listed = json.loads(_get(head, "api/v0/nodes"))["data"]["result"]["result"]
    return [node for node in listed if node["state"] == "ALIVE"]


def test_it_lets_in_only_who_has_the_secrets(head: RunningHead) -> None:
    assert head.up["started"] == ["mlflow", "ray"]
    ray, mlflow = head.up["ray"], head.up["mlflow"]
    experiments = f"{mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    assert _status(f"{ray}/api/jobs/") == 401
    assert _status(f"{ray}/api/jobs/", Authorization=f"Bearer {'0' * 64}") == 403
    assert _status(experiments) == 401
    assert _status(f"{mlflow}/health", Host="evil.example") in (200, 403)
    assert _status(experiments, Host="evil.example") == 403
    shown = " ".join(part for process in head.processes for part in process.cmdline())
    assert not [secret for secret in head.secrets if secret in shown]
    (ray_folder,) = {
        part.partition("=")[2]
        for process in head.processes
        for part in process.cmdline()
        if part.startswith("--temp-dir=")
    }
    private = Path(ray_folder).parent  # Ray's own folder is open to all
    for file in (head.home / ".lwddpm" / "head" / "environment", head.home / ".ray" / "auth_token", private):
        assert file.stat().st_mode & 0o077 == 0


def test_up_again_starts_nothing_and_a_taken_port_is_exit_2(head: RunningHead, tmp_path: Path) -> None:
    assert head.json("up")["started"] == []
    assert "lwddpm down first" in head.call("up", "--cpus=1", code=2).stderr
    port = head.ports["--mlflow-port"]
    other = head.call("up", f"--mlflow-port={port}", code=2, HOME=str(tmp_path))
    assert f"--mlflow-port: 127.0.0.1:{port} cannot be used" in other.stderr
    assert not (tmp_path / ".lwddpm" / "head" / "head.json").exists()


def test_the_doctor_asks_every_node_and_finds_the_one_without_a_password(head: RunningHead) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=0"]
    address = f"127.0.0.1:{head.ports['--ray-port']}"
    token = {"RAY_AUTH_MODE": "token", "LWDDPM_STORAGE": str(head.storage)}
    worker = subprocess.Popen(
        [*command, f"--address={address}", "--node-ip-address=127.0.0.1"],
        env=head.environment | token,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: len(_nodes(head)) == 2, process=worker)
        report = json.loads(head.call("doctor", "--address", head.up["ray"], "--json", code=1).stdout)
        first, second = [check for check in report["checks"] if check["name"].startswith("node ")]
        assert (first["status"], second["status"]) == ("ok", "broken")
        assert "storage and tracking work" in first["found"]
        assert "401" in second["found"]
        assert "storage" not in second["found"]  # which it shares
        assert not list(head.storage.glob(".lwddpm-doctor-*"))
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    refused = head.call("doctor", "--address", head.up["ray"], code=2, RAY_AUTH_TOKEN="0" * 64)
    assert "token is missing or wrong" in refused.stderr


def test_what_only_the_cluster_can_know_is_wrong_is_exit_2(head: RunningHead) -> None:
    failed = head.call("submit", "demo", "--set", "data.source=/no/such/folder", "--set", "name=wrong", code=2)
    assert "data.source" in failed.stderr
    assert "which job server" in head.call("jobs", "list", code=2, HOME="/nonexistent").stderr
    assert "no Ray job server answers" in head.call("jobs", "list", "--address=http://127.0.0.1:1", code=2).stderr
    assert "no such job" in head.call("jobs", "status", "nothing", code=2).stderr


def test_a_job_is_submitted_stopped_and_continued(head: RunningHead, tiny_overrides: tuple[str, ...]) -> None:
    further = (f"training.max_steps={STEPS}", "training.checkpoint_every_epochs=5", "workers.use_gpu=false")
    settings = flags([*tiny_overrides, *further])
    begun = head.json("submit", "demo", *settings)
    assert begun["submitted"]
    assert begun["run"] is not None, head.call("jobs", "logs", "demo").stdout
    client, run_id = _client(head), begun["run"]["run_id"]
    assert begun["run"]["url"].startswith(head.up["mlflow"])
    assert client.get_run(run_id).info.status == "RUNNING"

    again = head.json("submit", "demo", *settings)
    assert (again["submitted"], again["id"]) == (False, begun["id"])
    different = head.call("submit", "demo", *settings, "--set", "training.lr=1e-3", code=2)
    assert begun["id"] in different.stderr

    wait_until(lambda: list(head.storage.glob("runs/demo-*/checkpoints/step_*")))
    stopped = head.json("jobs", "stop", "demo")
    assert stopped["state"] == "STOPPED"
    assert client.get_run(run_id).info.status == "KILLED"
    (newest, *_) = sorted(head.storage.glob("runs/demo-*/checkpoints/step_*"), reverse=True)
    assert 0 < json.loads((newest / "state.json").read_text())["step"] < STEPS

    done = head.json("submit", "demo", *settings, "--wait")
    assert (done["state"], done["run"]["run_id"]) == ("SUCCEEDED", run_id)
    assert done["id"] != begun["id"]
    assert client.get_run(run_id).info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(run_id, "train/loss")]
    assert sorted(steps) == list(range(1, STEPS + 1))
    assert [job["state"] for job in head.json("jobs", "list") if job["name"] == "demo"] == [
        "SUCCEEDED",
        "STOPPED",
    ]


def test_no_secret_is_left_where_others_read(head: RunningHead) -> None:
    client = _client(head)
    public = [_get(head, "api/jobs/")]  # metadata and runtime_env of every job
    public += [head.call("jobs", "logs", job["id"]).stdout for job in head.json("jobs", "list")]
    for experiment in client.search_experiments():
        public += [str(run.to_dictionary()) for run in client.search_runs([experiment.experiment_id])]
    files = [*head.storage.rglob("*"), *(head.home / ".lwddpm" / "head" / "artifacts").rglob("*")]
    public += [file.read_bytes().decode(errors="replace") for file in files if file.is_file()]
    assert len(public) > 20
    assert not [secret for secret in head.secrets if any(secret in text for text in public)]


def _client(head: RunningHead) -> MlflowClient:
    return MlflowClient(head.up["mlflow"].replace("//", f"//admin:{head.secrets[0]}@"))
