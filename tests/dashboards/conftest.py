"""The board of a small world, in a process of its own."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..processes import answers, clean_environment, wait_until
from .world import World, build_world


@pytest.fixture(scope="session")
def world(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("board")
    shutil.copy(empty_store, folder / "mlflow.db")
    return build_world(folder)


@dataclass(frozen=True)
class Board:
    """A running board."""

    url: str
    process: subprocess.Popen[str]


def start_board(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> Board:
    """`lwddpm dashboard` on a free port, answering."""
    command = [sys.executable, "-m", "lwddpm", "dashboard", "--port", "0", *arguments]
    known = {key: value for key, value in clean_environment().items() if key != "LWDDPM_BOARD_TOKEN"}
    process = subprocess.Popen(
        command, cwd=folder, env=known | (environment or {}), stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if found := re.search(r"(http://\S+)", line):
            return Board(found[1].replace("0.0.0.0", "127.0.0.1"), process)
    raise AssertionError(said)


@contextmanager
def running(*command: str, address: str) -> Iterator[None]:
    """A server for the length of a block, from its first answer on."""
    alone = clean_environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # MLflow would start 8 more processes
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=alone)
    try:
        wait_until(lambda: answers(address), process=process)
        yield
    finally:
        process.terminate()
        process.wait(30)


def stop(board: Board) -> str:
    """End a board as Ctrl-C does; what it has said since."""
    board.process.terminate()
    _, said = board.process.communicate(timeout=30)
    return said


@pytest.fixture(scope="session")
def board(world: World) -> Iterator[Board]:
    found = start_board(world.folder, "--tracking-uri", world.tracking, "--storage", world.storage)
    yield found
    said = stop(found)
    assert "Traceback" not in said, said
