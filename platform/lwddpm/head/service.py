"""A server process that outlives the command that starts it: how to start it, find it again, and end it."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from lwddpm.errors import JobError

_TAIL_LINES = 15


@dataclass(frozen=True)
class Process:
    """A process. When it began tells it from a later one with the same number."""

    pid: int
    created: float  # s since the epoch

    def find(self) -> psutil.Process | None:
        """The process, or None where it has ended."""
        try:
            running = psutil.Process(self.pid)
            same = abs(running.create_time() - self.created) < 1 and running.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return running if same else None


def start(name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> Process:
    """Start a server in a session of its own, where a Ctrl-C in this terminal does not reach it.

    Args:
        name: what to call it in messages.
        command: program and arguments; no secrets, since every user of the machine can read them.
        environment: all of it, not additions.
        folder: working folder.
        log: file that its output is appended to.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return Process(child.pid, psutil.Process(child.pid).create_time())
    except psutil.NoSuchProcess:
        raise _ended(name, log) from None


def wait_until_ready(name: str, process: Process, ready: Callable[[], bool], log: Path, timeout_s: float) -> None:
    """Wait for the server's first answer.

    Raises:
        JobError: it ended, or did not answer in time; with the last lines of its log.
    """
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process.find() is None:
            raise _ended(name, log)
        if time.monotonic() > deadline:
            raise JobError(f"{name} did not answer within {timeout_s:.0f} s; its log ({log}) ends:\n{_tail(log)}")
        time.sleep(0.5)


def stop(process: Process, timeout_s: float = 30) -> None:
    """End a server and all its children: SIGTERM, then SIGKILL for what is left after `timeout_s` seconds."""
    server = process.find()
    if server is None:
        return
    family = [*server.children(recursive=True), server]
    server.terminate()
    _, left = psutil.wait_procs(family, timeout=timeout_s)
    for child in left:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=5)
    if server.is_running() and os.getpid() == server.ppid():  # our own child: reap it
        os.waitpid(server.pid, os.WNOHANG)


def _ended(name: str, log: Path) -> JobError:
    return JobError(f"{name} ended at once; its log ({log}) ends:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
