"""What a person sees of a search while it runs."""

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from lwddpm.progress import TrialTable

from .processes import clean_environment


@pytest.fixture
def switching_often() -> Iterator[None]:
    """Threads take turns after microseconds, so that what two of them must not do at once happens."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching_often")
def test_the_table_is_drawn_while_trials_begin_and_end() -> None:
    with TrialTable(1000, 90, "val/loss") as table:
        errors: list[BaseException] = []
        done = threading.Event()

        def draw() -> None:
            while not done.is_set():
                try:
                    table.render()
                except BaseException as error:
                    errors.append(error)
                    return

        thread = threading.Thread(target=draw)
        thread.start()
        try:
            for number in range(1000):
                table.begin(number, {"training.lr": 1e-3})
                table.rung(number, 30, 0.5)
                if number % 3:
                    table.end(number, "pruned", "")
        finally:
            done.set()
            thread.join()
    assert errors == []


def test_the_table_shows_what_runs_and_what_ended_last() -> None:
    with TrialTable(40, 90, "val/loss") as table:
        for number in range(20):
            table.begin(number, {"training.lr": 1e-3, "model.dim": 8})
            table.rung(number, 30, 0.5 + number)
        for number in range(15):
            table.end(number, "pruned", "")
        table.advance(19, 33)
        console = Console(width=120)
        with console.capture() as capture:
            console.print(table.render())
    lines = capture.get().splitlines()
    assert "15 pruned, 5 running" in lines[0]
    shown = [int(line.split()[1]) for line in lines if " of 40 " in line]
    assert shown == list(range(8, 20))
    assert "33/90" in next(line for line in lines if " 19 of 40 " in line)
    assert "lr 0.001, dim 8" in lines[-2]


def test_a_repetition_is_shown_and_said_with_the_trial_that_it_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    with TrialTable(4, 90, "val/loss") as table:
        table.repeated(3, {"training.lr": 1e-3}, 1)
        console = Console(width=120)
        with console.capture() as capture:
            console.print(table.render())
    assert "1 repeated" in capture.get()
    assert "as trial 1" in capture.get()
    assert "trial 3: lr 0.001: repeats trial 1, whose outcome it takes over" in capsys.readouterr().err


def test_where_many_run_none_of_those_that_ended_is_shown() -> None:
    with TrialTable(40, 90, "val/loss") as table:
        for number in range(20):
            table.begin(number, {"training.lr": 1e-3})
        for number in range(5):
            table.end(number, "pruned", "")
        console = Console(width=120)
        with console.capture() as capture:
            console.print(table.render())
    shown = [int(line.split()[1]) for line in capture.get().splitlines() if " of 40 " in line]
    assert shown == list(range(5, 20))


LIVE = """
import time
from lwddpm.progress import TrialTable
with TrialTable(40, 90, "val/loss (n = 6)") as table:
    for number in range(2):
        table.begin(number, {"training.lr": 1e-3})
    time.sleep(2)
    table.rung(0, 30, 0.25)
    table.end(0, "pruned", "ended by asha")
    time.sleep(2)
    table.advance(1, 60)
"""


def test_on_a_terminal_the_table_is_redrawn_in_place_while_the_search_goes_on() -> None:
    terminal, screen = os.openpty()
    environment = clean_environment() | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    with subprocess.Popen([sys.executable, "-c", LIVE], stderr=screen, env=environment) as process:
        os.close(screen)
        sent = b""
        with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
            while chunk := os.read(terminal, 65536):
                sent += chunk
    os.close(terminal)
    assert process.returncode == 0
    drawn = sent.decode()
    frames = re.split(r"(?:\r?\x1b\[(?:1A|2K))+", drawn)
    texts = [" ".join(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame).split()) for frame in frames]
    texts = [text for text in texts if " of 40 " in text]
    assert len(texts) >= 6, "drawn twice a second, from a thread of its own"
    assert "2 running" in texts[1]
    middle = next(text for text in texts if "1 pruned" in text)
    assert "1 pruned, 1 running" in middle or "1 running, 1 pruned" in middle
    assert "│ 0 of 40 │ pruned │ 30/90 │ 0.25 │ lr 0.001 │" in middle
    assert "│ 1 of 40 │ running │ 60/90 │" in texts[-1]
    assert "trial 0:" not in "".join(texts), "lines are for where there is no terminal"
