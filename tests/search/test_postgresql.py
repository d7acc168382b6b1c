"""A study in a real PostgreSQL, as several machines share it; skipped where no PostgreSQL is installed."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lwddpm.errors import ConfigError, JobError
from lwddpm.search.definition import Definition, open_study
from lwddpm.search.ownership import lock_study
from lwddpm.search.storage import check_storage, delete_study, find_study
from lwddpm.search.trials import records, report

from ..processes import free_port, wait_until
from .test_ownership import HOLD

DEFINITION = Definition({}, "tpe", 0, ("val/loss",), "asha", "val/loss", 90, 30, 3, "j", "p")
PROGRAMS = Path(shutil.which("initdb") or "/none").resolve().parent
pytestmark = pytest.mark.skipif(not (PROGRAMS / "pg_ctl").exists(), reason="PostgreSQL is not installed here")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """`host:port` of a server that lets user `postgres` in."""
    folder = Path(tempfile.mkdtemp(prefix="lwddpm-postgresql-"))
    root = os.geteuid() == 0  # as which PostgreSQL refuses to run
    user = "nobody" if root else None
    if root:
        shutil.chown(folder, "nobody")
    port = free_port()

    def call(program: str, *arguments: str) -> None:
        command = [str(PROGRAMS / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)

    call("initdb", "--username=postgres", "--auth=trust", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    call("pg_ctl", "start", "--wait", "-l", str(folder / "log"), "-o", options)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        call("pg_ctl", "stop", "--mode=immediate")
        shutil.rmtree(folder)


def test_a_study_is_written_and_continued(server: str) -> None:
    url = f"postgresql://postgres@{server}/postgres"
    check_storage(url)
    study = open_study(url, "shared", DEFINITION)
    study.tell(study.ask(), 0.5)
    running = study.ask()
    report(running, 30, 0.7, {"val/loss": 0.7}, 1.5, single=True)
    again = open_study(url, "shared", DEFINITION)
    assert [(trial.state, trial.step, trial.last) for trial in records(again)] == [
        ("complete", 0, None),
        ("running", 30, 0.7),
    ]
    with pytest.raises(ConfigError, match=r"search\.sampler was tpe, is random"):
        open_study(url, "shared", replace(DEFINITION, sampler="random"))
    delete_study(url, "shared")
    with pytest.raises(ConfigError, match="no such study"):
        find_study(url, "shared")


def test_a_study_is_run_by_one_process_until_it_ends_or_its_connection_is_lost(server: str) -> None:
    url = f"postgresql://postgres@{server}/postgres"
    with subprocess.Popen([sys.executable, "-c", HOLD, url, "s"], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(JobError, match="another process runs it"), lock_study(url, "s"):
            pass
        with lock_study(url, "another"):
            pass
        holder.kill()
    wait_until(lambda: _can_be_locked(url), 30)
    with pytest.raises(ConfigError, match="cannot be used"), lock_study(f"{url}-absent", "s"):
        pass


def _can_be_locked(url: str) -> bool:
    try:
        with lock_study(url, "s"):
            return True
    except JobError:
        return False


def test_a_wrong_database_is_one_clear_error_without_the_password(server: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        open_study(f"postgresql://postgres:hunter2@{server}/absent", "shared", DEFINITION)
    assert "absent" in str(caught.value)
    assert "hunter2" not in str(caught.value)
