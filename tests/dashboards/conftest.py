"""The board of a small world in a process of its own, boards of other stores in this one, and a browser."""

import logging
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from playwright.sync_api import Browser, Page

from lwddpm_board.access import Access
from lwddpm_board.app import create_app
from lwddpm_board.stores import Stores

from ..processes import answers, clean_environment, wait_until
from .browser import launched, visited
from .world import World, build_world


@pytest.fixture(scope="session")
def world(empty_store: Path, short_grids: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("board")
    shutil.copy(empty_store, folder / "mlflow.db")
    return build_world(folder)


@pytest.fixture(scope="module")  # no longer: while it runs, nothing else of this thread may use an event loop
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture
def page(browser: Browser, board: "Board") -> Iterator[Page]:
    """A page of the board; a module may have a `board` of its own."""
    with visited(browser, board.url) as found:
        yield found


@dataclass(frozen=True)
class Board:
    """A running board, in a process of its own where it has one."""

    url: str
    process: subprocess.Popen[str] | None = None


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


@contextmanager
def serving(stores: Stores) -> Iterator[Board]:
    """The board in a thread of this process, which has imported already what takes a new one ten seconds.

    Raises:
        AssertionError: it has logged an error.
    """
    said: list[str] = []
    listening = logging.Handler(logging.ERROR)
    listening.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    app = create_app(stores, Access.of("127.0.0.1", ["127.0.0.1"]))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    logging.getLogger().addHandler(listening)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Board(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(30)
        logging.getLogger().removeHandler(listening)
    assert not said, said


@pytest.fixture
def visitor(board: Board) -> Iterator[httpx2.Client]:
    """Asks the board what a page would."""
    with httpx2.Client(base_url=board.url, timeout=60) as client:
        yield client


def drawn(visitor: httpx2.Client, address: str, wanted: dict[str, Any]) -> Any:
    """A drawing that was asked for, once it is done."""
    drawing = visitor.post(address, json=wanted).json()
    until = time.monotonic() + 300
    while drawing["state"] == "running" and time.monotonic() < until:
        time.sleep(0.1)
        drawing = visitor.get(f"/api/drawings/{drawing['id']}").json()
    assert drawing["state"] == "done", drawing
    return drawing


def stop(board: Board) -> str:
    """End a board as Ctrl-C does; what it has said since."""
    assert board.process is not None
    board.process.terminate()
    _, said = board.process.communicate(timeout=30)
    return said


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Below which the board of the world keeps its drawings."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="session")
def board(world: World, workspace: Path) -> Iterator[Board]:
    stores = ("--tracking-uri", world.tracking, "--storage", world.storage)
    found = start_board(world.folder, *stores, environment={"TMPDIR": str(workspace)})
    yield found
    said = stop(found)
    assert "Traceback" not in said, said
