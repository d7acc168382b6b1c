"""The head that `lwddpm up` starts on this machine: Ray with token auth and MLflow with a password beside it.

~/.lwddpm/head/              for its owner alone
    head.json                options and processes
    environment              what a shell needs to reach both: `source` it
    mlflow_password          generated, unless MLFLOW_AUTH_ADMIN_PASSWORD is given
    mlflow.db users.db artifacts/ logs/
~/.ray/auth_token            where Ray looks for its token
"""

import json
import os
import secrets
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lwddpm.cluster.settings import SOCKETS_BELOW
from lwddpm.files import read_json, socket_folder, state_folder, write_private
from lwddpm.head.service import Process

USER = "admin"
QUEUE_TIMEOUT_S = 7 * 24 * 3600  # for a job to find room on the head; Ray gives up after a quarter of an hour
STOP_TIMEOUT_S = 120  # for a stopped job to save its checkpoint and end its run; Ray gives 3 s


@dataclass(frozen=True)
class HeadOptions:
    """What `lwddpm up` is asked for."""

    cpus: int | None = None
    gpus: int | None = None
    expose: bool = False
    storage: str | None = None
    ray_port: int = 6379
    dashboard_port: int = 8265
    mlflow_port: int = 5000


@dataclass(frozen=True)
class _Server:
    command: list[str]
    environment: dict[str, str]
    ports: dict[str, int]  # by the flag that changes them
    ready: Callable[[], bool]


class Head:
    """The head of this user on this machine, running or not."""

    def __init__(self, options: HeadOptions) -> None:
        self.options = options
        self.folder = state_folder() / "head"
        self.token_file = Path.home() / ".ray" / "auth_token"
        self.host = _own_address() if options.expose else "127.0.0.1"
        self.storage = Path(options.storage or state_folder() / "storage").absolute()
        self.ray_url = f"http://{self.host}:{options.dashboard_port}"
        self.mlflow_url = f"http://{self.host}:{options.mlflow_port}"
        # Ray's own, so that its `session_latest` is this head's. Ray lets everybody write to its folder, so it lies in
        # one that only this user can enter.
        self.private_folder = socket_folder(len("/ray") + SOCKETS_BELOW)
        self.ray_folder = self.private_folder / "ray"
        self.processes: dict[str, Process] = {}
        self.monitoring: dict[str, str] = {}  # name: where it answers

    @classmethod
    def running(cls) -> "Head | None":
        """The head that `head.json` describes, where at least one of its servers is alive."""
        head = cls(HeadOptions())
        saved = read_json(head.folder / "head.json")
        if saved is None:
            return None
        head = cls(HeadOptions(**saved["options"]))
        head.processes = {name: Process(**record) for name, record in saved["processes"].items()}
        head.monitoring = saved["monitoring"]
        return head if head.alive() else None

    def alive(self) -> list[str]:
        """Names of the servers that are running."""
        return [name for name, process in self.processes.items() if process.find()]

    def save(self) -> None:
        saved = {
            "options": asdict(self.options),
            "processes": {name: asdict(process) for name, process in self.processes.items()},
            "monitoring": self.monitoring,
        }
        write_private(self.folder / "head.json", json.dumps(saved, indent=2))

    def log(self, server: str) -> Path:
        return self.folder / "logs" / f"{server}.log"

    def summary(self) -> dict[str, Any]:
        return {
            "ray": self.ray_url,
            "mlflow": self.mlflow_url,
            "mlflow_user": USER,
            "storage": str(self.storage),
            "environment": str(self.folder / "environment"),
            "logs": str(self.folder / "logs"),
            "exposed": self.options.expose,
            "monitoring": self.monitoring,
            "join": f"RAY_AUTH_MODE=token ray start --address={self.host}:{self.options.ray_port}",
        }

    def client_environment(self, password: str) -> dict[str, str]:
        """What reaches Ray and MLflow."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": password,
        }

    def servers(self, password: str, token: str) -> dict[str, _Server]:
        """MLflow first: Ray's jobs talk to it."""
        options, quiet = self.options, {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}
        return {
            "mlflow": _Server(
                self._mlflow_command(),
                quiet
                | {
                    "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "mlflow.ini"),
                    "MLFLOW_AUTH_ADMIN_USERNAME": USER,
                    "MLFLOW_AUTH_ADMIN_PASSWORD": password,
                    "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
                },
                {"--mlflow-port": options.mlflow_port},
                lambda: _answers(f"{self.mlflow_url}/health"),
            ),
            "ray": _Server(
                self._ray_command(),
                quiet
                | self.client_environment(password)
                | {
                    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
                    "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_TIMEOUT_S),
                    "RAY_JOB_START_TIMEOUT_SECONDS": str(QUEUE_TIMEOUT_S),
                    "LWDDPM_STORAGE": str(self.storage),
                    # processes of its dashboard talk over sockets there, which a long path has no room for
                    "TMPDIR": str(self.private_folder.parent),
                    # jobs are started as `python`: this one
                    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
                },
                {"--ray-port": options.ray_port, "--dashboard-port": options.dashboard_port},
                lambda: _answers(f"{self.ray_url}/api/version", token),
            ),
        }

    def _ray_command(self) -> list[str]:
        options = self.options
        counts = {"--num-cpus": options.cpus, "--num-gpus": options.gpus}
        return [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
            f"--node-ip-address={self.host}",
            f"--port={options.ray_port}",
            f"--dashboard-host={self.host}",
            f"--dashboard-port={options.dashboard_port}",
            f"--temp-dir={self.ray_folder}",
            # Any free one. A port that something else has taken leaves Ray unable to start jobs, without a word; the
            # default would be that of another Ray on this machine.
            "--dashboard-agent-listen-port=0",
            *(f"{flag}={count}" for flag, count in counts.items() if count is not None),
        ]

    def _mlflow_command(self) -> list[str]:
        names = {"localhost", "127.0.0.1", self.host, *([socket.getfqdn()] if self.options.expose else [])}
        return [
            *(sys.executable, "-m", "mlflow", "server", "--app-name=basic-auth", "--workers=2"),
            f"--host={self.host}",
            f"--port={self.options.mlflow_port}",
            f"--backend-store-uri=sqlite:///{self.folder}/mlflow.db",
            f"--artifacts-destination={self.folder}/artifacts",
            f"--allowed-hosts={','.join(sorted(names | {f'{name}:*' for name in names}))}",
        ]


def _answers(url: str, token: str | None = None) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
    try:
        with opener.open(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _own_address() -> str:
    """The address by which other machines reach this one: that of its default route. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation
        except OSError:
            return socket.gethostbyname(socket.gethostname())
        address: str = probe.getsockname()[0]
        return address
