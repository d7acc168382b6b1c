"""The platform's command line and other programs as processes beside a test, and waiting for what they do."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
LWDDPM = str(PROGRAMS / "lwddpm")


def clean_environment() -> dict[str, str]:
    """That of this process without what tests have set in it: MLflow exports its tracking URI, Ray its address."""
    return {key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")}


def flags(overrides: Iterable[str]) -> list[str]:
    """`--set key=value` for each override."""
    return [part for override in overrides for part in ("--set", override)]


def lwddpm(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a verb of the command line in a folder, to its end."""
    command = [LWDDPM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=clean_environment(), timeout=200)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a server answers there, with whatever status below 400."""
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except OSError:
        return False
    return True


def wait_until(
    condition: Callable[[], object],
    timeout_s: float = 240,
    process: subprocess.Popen[bytes] | subprocess.Popen[str] | None = None,
    log: Path | None = None,
    every_s: float = 0.05,
) -> None:
    """Poll until a condition holds; fail at the deadline, or once the process that should bring it about has ended.

    Args:
        log: file whose text is shown with the failure.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        said = log.read_text() if log is not None else ""
        assert process is None or process.poll() is None, f"ended too early\n{said}"
        assert time.monotonic() < deadline, f"not within {timeout_s} s\n{said}"
        time.sleep(every_s)
