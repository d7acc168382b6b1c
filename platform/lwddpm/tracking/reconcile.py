"""Closes what an earlier crash left open: runs that are RUNNING in MLflow while their process is dead."""

import functools
import hashlib
import os
import platform
import uuid
from pathlib import Path

import psutil
from mlflow.tracking import MlflowClient

from lwddpm.progress import say

_MACHINE, _PROCESS = "lwddpm.machine", "lwddpm.process"
_CLOCK_S = 10.0  # by how much the start of one process may seem to move when the clock is set


def identity() -> dict[str, str]:
    """Tags that say which process keeps a run."""
    return {_MACHINE: _machine(), _PROCESS: f"{os.getpid()}@{psutil.Process().create_time():.0f}"}


def close_dead_runs(client: MlflowClient, experiment_id: str, continued: str | None = None) -> list[str]:
    """End as KILLED the runs of this machine whose process is gone; one query. Other machines' are left alone.

    Args:
        client: of the store.
        experiment_id: where to look.
        continued: a run that is opened again next.

    Returns:
        Their ids.
    """
    query = f"attributes.status = 'RUNNING' and tags.`{_MACHINE}` = '{_machine()}'"
    running = client.search_runs([experiment_id], query, max_results=5000)
    dead = [run.info.run_id for run in running if not _lives(run.data.tags.get(_PROCESS, ""))]
    dead = [run_id for run_id in dead if run_id != continued]
    for run_id in dead:
        client.set_terminated(run_id, "KILLED")
    if dead:
        say(f"closed {len(dead)} MLflow run(s) that a crash had left open: {', '.join(dead[:3])}")
    return dead


def _lives(process: str) -> bool:
    pid, _, started = process.partition("@")
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(started)) < _CLOCK_S
    except (psutil.NoSuchProcess, ValueError):
        return False
    except psutil.AccessDenied:
        return True


@functools.cache
def _machine() -> str:
    """12 hex digits for whoever shares this table of processes: many machines are called localhost, and containers of
    one machine may share its name and network card."""
    try:
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        processes = ""
    return hashlib.sha256(f"{platform.node()} {uuid.getnode()} {processes}".encode()).hexdigest()[:12]
