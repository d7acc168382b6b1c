"""`lwddpm up` and `down`: a head on this machine, Ray with token auth and MLflow with a password beside it.

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
import shlex
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lwddpm.cluster import service
from lwddpm.cluster.credentials import mlflow_password, ray_token, write_private
from lwddpm.cluster.rundir import read_json
from lwddpm.cluster.service import Process
from lwddpm.errors import ConfigError
from lwddpm.progress import say

USER = "admin"
STOP_TIMEOUT_S = 120  # for a stopped job to save its checkpoint and end its run; Ray gives 3 s
_START_TIMEOUT_S = 180.0


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
        self.folder = Path.home() / ".lwddpm" / "head"
        self.token_file = Path.home() / ".ray" / "auth_token"
        self.host = _own_address() if options.expose else "127.0.0.1"
        self.storage = Path(options.storage or Path.home() / ".lwddpm" / "storage").absolute()
        self.ray_url = f"http://{self.host}:{options.dashboard_port}"
        self.mlflow_url = f"http://{self.host}:{options.mlflow_port}"
        self.processes: dict[str, Process] = {}

    @classmethod
    def running(cls) -> "Head | None":
        """The head that `head.json` describes, where at least one of its servers is alive."""
        head = cls(HeadOptions())
        saved = read_json(head.folder / "head.json")
        if saved is None:
            return None
        head = cls(HeadOptions(**saved["options"]))
        head.processes = {name: Process(**record) for name, record in saved["processes"].items()}
        return head if head.alive() else None

    def alive(self) -> list[str]:
        """Names of the servers that are running."""
        return [name for name, process in self.processes.items() if process.find()]

    def save(self) -> None:
        saved = {
            "options": asdict(self.options),
            "processes": {name: asdict(process) for name, process in self.processes.items()},
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
                    "LWDDPM_STORAGE": str(self.storage),
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


def up(options: HeadOptions) -> dict[str, Any]:
    """Start what is not running yet.

    Returns:
        Addresses, folders, and `started`: the servers that were not running before.

    Raises:
        ConfigError: a port is taken, or --expose without a token or password worth the name; nothing is started.
        JobError: a server did not come up; what was started is ended again.
    """
    head = Head.running() or Head(options)
    if options not in (head.options, HeadOptions()):
        raise ConfigError(f"a head is up already, with {head.options}; run lwddpm down first to change it")
    head.folder.mkdir(parents=True, exist_ok=True)
    head.folder.chmod(0o700)
    head.storage.mkdir(parents=True, exist_ok=True)
    password, token = mlflow_password(head.folder / "mlflow_password"), ray_token(head.token_file)
    servers = head.servers(password, token)
    missing = [name for name in servers if name not in head.alive()]
    for name in missing:
        for flag, port in servers[name].ports.items():
            _check_free(head.host, port, flag)
    users = f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{head.folder}/users.db\n"
    write_private(head.folder / "mlflow.ini", users)
    exports = (f"export {key}={shlex.quote(value)}\n" for key, value in head.client_environment(password).items())
    write_private(head.folder / "environment", "".join(exports))
    try:
        for name in missing:
            say(f"starting {name}")
            inherited = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
            environment = inherited | servers[name].environment
            process = service.start(name, servers[name].command, environment, head.folder, head.log(name))
            head.processes[name] = process
            head.save()
        for name in missing:
            service.wait_until_ready(name, head.processes[name], servers[name].ready, head.log(name), _START_TIMEOUT_S)
    except BaseException:
        for name in set(missing) & set(head.processes):
            service.stop(head.processes[name])
        raise
    return head.summary() | {"started": missing}


def down() -> dict[str, Any]:
    """Stop the jobs of this machine's head, with a checkpoint each, then its servers. Data stay.

    Returns:
        `stopped`: names of the servers; `jobs`: submission ids of the jobs that were stopped.
    """
    head = Head.running()
    if head is None:
        return {"stopped": [], "jobs": []}
    jobs: list[str] = []
    stopped = head.alive()
    if "ray" in stopped:
        from lwddpm.cluster.jobserver import JobServer

        try:
            jobs = JobServer(head.ray_url).stop_all()
        except ConfigError as error:  # it hangs, say: it goes all the same
            say(f"its jobs could not be asked to stop: {error}")
    for name in reversed(stopped):
        say(f"stopping {name}")
        service.stop(head.processes[name])
    (head.folder / "head.json").unlink()
    return {"stopped": stopped, "jobs": jobs}


def _check_free(host: str, port: int, flag: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"{flag}: {host}:{port} cannot be used ({error.strerror}); name another port") from None


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
