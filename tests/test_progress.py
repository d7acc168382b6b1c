"""What a person sees of a search while it runs."""

import sys
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from lwddpm.progress import TrialTable


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
