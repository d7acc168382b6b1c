"""A server process that outlives the command that starts it: started once, found again, ended with all its children."""

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
    """A process, told from a later one with the same number by when it began."""

    pid: int
    created: float  # s since the epoch

    def find(self) -> psutil.Process | None:
        """The process, or None where it has ended."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.created) < 1 and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return found if same else None


def start(name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> Process:
    """Start a server in a session of its own, so that a Ctrl-C in this terminal is not meant for it.

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
    """End a server and all its children: politely, and after `timeout_s` seconds by force."""
    found = process.find()
    if found is None:
        return
    family = [*found.children(recursive=True), found]
    found.terminate()
    _, left = psutil.wait_procs(family, timeout=timeout_s)
    for child in left:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=5)
    if found.is_running() and os.getpid() == found.ppid():  # our own child: let the kernel forget it
        os.waitpid(found.pid, os.WNOHANG)


def _ended(name: str, log: Path) -> JobError:
    return JobError(f"{name} ended at once; its log ({log}) ends:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
