"""A small training, ways to disturb it at a given moment, and a check that it ends as an undisturbed one does."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from lwddpm.tracking.store import connect

from ..processes import LWDDPM, clean_environment, flags, free_port

INTERVAL = 6  # steps from one checkpoint to the next
STEPS = 90
JOB = (
    f"training.max_steps={STEPS}",
    "training.log_every_steps=2",
    "training.checkpoint_every_epochs=1",
    "training.snapshot_epochs=[4]",
    "evaluation.metrics=[ssim_pairs]",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.chaos)
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(900))


@dataclass
class Training:
    """One job in a folder of its own, run by as many processes as it takes."""

    folder: Path
    flags: list[str]
    uri: str
    environment: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = (LWDDPM,)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *further: str) -> subprocess.Popen[bytes]:
        """The command, always the same one."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*self.command, "run", "demo", *self.flags, *further],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=clean_environment() | self.environment,
            )
        self.processes.append(process)
        return process

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def run_dir(self) -> Path | None:
        return next((self.folder / "runs").glob("*"), None)

    def checkpoints(self) -> list[int]:
        """Steps of the complete ones."""
        files = self.folder.glob("runs/*/checkpoints/step_*/state.json")
        return sorted(int(path.parent.name.removeprefix("step_")) for path in files)

    def newest(self) -> int:
        return max(self.checkpoints(), default=0)

    def half_written(self) -> bool:
        return any(self.folder.glob("runs/*/checkpoints/.step_*"))

    def wait_for(self, condition: Callable[[], object], what: str, timeout_s: float = 240) -> None:
        """Look as often as one can: the moments are short."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            ended = self.processes[-1].poll()
            assert ended is None, f"ended with {ended} before: {what}\n{self.log}"
            assert time.monotonic() < deadline, f"never came: {what}\n{self.log}"
            time.sleep(0.0005)

    def stop_while_writing(self, processes: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
        """Freeze these processes in the middle of writing a checkpoint; the caller kills, and lets the rest go on."""
        while True:
            self.wait_for(self.half_written, "a checkpoint being written")
            frozen = processes()
            for process in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            if frozen and self.half_written():
                return frozen
            for process in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def finish(self, timeout_s: float = 400) -> None:
        """The process that runs now, or else one more of the same command, ends the job."""
        if not self.processes or self.processes[-1].poll() is not None:
            self.start()
        assert self.processes[-1].wait(timeout=timeout_s) == 0, self.log

    def workers(self) -> list[psutil.Process]:
        """Ray Train's, of the running driver or of the cluster that this test has started."""
        workers = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
                ours = process.environ().get("CHAOS") == self.environment["CHAOS"]
                if ours and "RayTrainWorker" in "".join(process.cmdline()):
                    workers.append(process)
        return workers

    def run(self) -> Any:
        """The only MLflow run that there may be."""
        client = connect(self.uri)
        (run,) = client.search_runs([client.get_experiment_by_name("lw-ddpm").experiment_id])
        return run

    def history(self, key: str) -> list[tuple[int, float]]:
        return sorted((m.step, m.value) for m in connect(self.uri).get_metric_history(self.run().info.run_id, key))

    def close(self) -> None:
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def make(
    tiny_data: str, tiny_overrides: tuple[str, ...], empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Training]]:
    made: list[Training] = []

    def build(*overrides: str, uri: str = "") -> Training:
        folder = tmp_path_factory.mktemp("chaos")
        if not uri:
            shutil.copy(empty_store, folder / "mlflow.db")
            uri = f"sqlite:///{folder}/mlflow.db"
        tiny = [override for override in tiny_overrides if "snapshot" not in override]
        settings = [*tiny, *JOB, f"data.path={tiny_data}", f"tracking.uri={uri}", *overrides]
        made.append(Training(folder, flags(settings), uri, {"CHAOS": folder.name}))
        return made[-1]

    yield build
    for training in made:
        training.close()


@pytest.fixture
def training(make: Callable[..., Training]) -> Iterator[Callable[..., Training]]:
    """Builds trainings that do not outlive their test."""
    made: list[Training] = []

    def build(*overrides: str, uri: str = "") -> Training:
        made.append(make(*overrides, uri=uri))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def reference(make: Callable[..., Training]) -> Callable[..., Training]:
    """An undisturbed training with this many workers, run once; further arguments are overrides."""
    done: dict[tuple[int, tuple[str, ...]], Training] = {}

    def get(workers: int, *overrides: str) -> Training:
        key = workers, overrides
        if key not in done:
            done[key] = make(f"workers.count={workers}", *overrides)
            done[key].finish()
        return done[key]

    return get


@pytest.fixture
def assert_same_outcome() -> Callable[[Training, Training], None]:
    """Compares the weights, losses, MLflow run and registered version of two trainings."""

    def check(training: Training, expected: Training) -> None:
        run_dir, expected_dir = training.run_dir, expected.run_dir
        assert run_dir is not None
        assert expected_dir is not None
        result = json.loads((run_dir / "result.json").read_text())
        assert result["step"] == STEPS
        a, b = (load_file(folder / "model" / "model.safetensors") for folder in (run_dir, expected_dir))
        assert all(torch.equal(a[name], b[name]) for name in b), "other weights"
        run = training.run()
        assert (run.info.status, run.info.run_id) == ("FINISHED", result["run_id"])
        for key in ("train/loss", "val/loss"):
            assert training.history(key) == expected.history(key), f"{key}: a step is missing, doubled or different"
        assert not list((run_dir / "outbox").glob("[0-9]*")), "reports are left"
        assert not training.half_written()
        assert len(connect(training.uri).search_model_versions("name='lw-ddpm-demo'")) == 1

    return check


@pytest.fixture
def tracking_server(tmp_path: Path, empty_store: Path) -> Iterator["TrackingServer"]:
    server = TrackingServer(tmp_path, empty_store)
    yield server
    server.kill()


class TrackingServer:
    """A real MLflow server that can be killed and started again at its address."""

    def __init__(self, folder: Path, store: Path) -> None:
        self._folder = folder
        shutil.copy(store, folder / "server.db")
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("mlflow")), "server", "--port", str(self._port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return
            time.sleep(0.2)
        raise AssertionError((self._folder / "server.log").read_text())

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def ray_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """Starts clusters of several raylets on this machine: a head without CPUs, nodes as the test adds them."""
    from ray.cluster_utils import Cluster

    folder = Path(tempfile.mkdtemp(prefix="lw-", dir="/tmp"))  # short: sockets lie in it
    (folder / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # of nodes and driver alike, whatever token the user has
    clusters: list[Any] = []

    def start(chaos: str, head_cpus: int = 0) -> Any:
        monkeypatch.setenv("CHAOS", chaos)  # tells the workers of this test from others
        arguments = {"num_cpus": head_cpus, "include_dashboard": False}
        clusters.append(Cluster(initialize_head=True, connect=False, head_node_args=arguments))
        return clusters[-1]

    yield start
    for cluster in clusters:
        with contextlib.suppress(Exception):
            cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
