"""`lwddpm up` and `down`: start the servers of this machine's head, and stop them."""

import functools
import os
import shlex
import socket
import urllib.parse
from typing import Any

from lwddpm.errors import ConfigError, JobError
from lwddpm.files import make_private_folder, write_private
from lwddpm.head import service
from lwddpm.head.credentials import mlflow_password, ray_token
from lwddpm.head.head import Head, HeadOptions
from lwddpm.head.jobserver import JobServer
from lwddpm.head.monitoring import missing_monitoring, monitoring_commands
from lwddpm.progress import say

_START_TIMEOUT_S = 180.0


def up(options: HeadOptions) -> dict[str, Any]:
    """Start what is not running yet.

    Returns:
        Addresses, folders, and `started`: the servers that were not running before.

    Raises:
        ConfigError: a port is taken, a token or password is too weak, or the folder for Ray is somebody else's; nothing
            is started.
        JobError: a server did not come up; what was started is ended again.
    """
    head = Head.running() or Head(options)
    if options not in (head.options, HeadOptions()):
        raise ConfigError(f"a head is up already, with {head.options}; run lwddpm down first to change it")
    head.folder.mkdir(parents=True, exist_ok=True)
    head.folder.chmod(0o700)
    head.storage.mkdir(parents=True, exist_ok=True)
    make_private_folder(head.private_folder)
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
        if "ray" in missing:
            _start_monitoring(head)
    except BaseException:
        for name in {*missing, *head.monitoring} & set(head.processes):
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
        try:
            jobs = JobServer(head.ray_url).stop_all()
        except (ConfigError, JobError) as error:  # Ray may hang: it is stopped all the same
            say(f"not all of its jobs have stopped: {error}")
    for name in reversed(stopped):
        say(f"stopping {name}")
        service.stop(head.processes[name])
    (head.folder / "head.json").unlink()
    return {"stopped": stopped, "jobs": jobs}


def _start_monitoring(head: Head) -> None:
    """Start Prometheus and Grafana, where installed; jobs need neither, so a failure is only reported."""
    for name in head.monitoring:  # of a Ray that has died: they read its session folder
        service.stop(head.processes.pop(name))
    head.monitoring = {}
    for program in monitoring_commands(head.folder, (head.ray_folder / "session_latest").resolve()):
        say(f"starting {program.name}{f' ({program.note})' if program.note else ''}")
        log = head.log(program.name)
        head.processes[program.name] = service.start(
            program.name, program.argv, os.environ | program.env, head.folder, log
        )
        head.monitoring[program.name] = program.url
        head.save()
        try:
            service.wait_until_ready(
                program.name, head.processes[program.name], functools.partial(_listens, program.url), log, 30
            )
        except JobError as error:
            say(str(error))
    for remedy in missing_monitoring():
        say(remedy)


def _listens(url: str) -> bool:
    parsed = urllib.parse.urlparse(url)
    try:
        socket.create_connection((parsed.hostname or "", parsed.port or 80), timeout=2).close()
    except OSError:
        return False
    return True


def _check_free(host: str, port: int, flag: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"{flag}: {host}:{port} cannot be used ({error.strerror}); name another port") from None
