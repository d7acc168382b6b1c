"""What a person sees while a job runs: bars on a terminal, plain lines elsewhere. Always on stderr."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lwddpm import wording

_LINE_EVERY_S = 10.0
console = Console(stderr=True, highlight=False, soft_wrap=True)
# Called with (stage, done, total) as bars advance; only the newest one is.
observers: list[Callable[[str, int, int], None]] = []


def say(message: str) -> None:
    """One line for the person at the terminal."""
    console.print(message, markup=False)


class Bar:
    """Progress of one stage. `advance_to` may be called as often as one likes."""

    def __init__(self, description: str, total: int, progress: Progress | None) -> None:
        self.description, self.total, self._progress = description, total, progress
        self._task = progress.add_task(description, total=total, note="") if progress else None
        self._start = self._last_line = time.monotonic()
        self._completed = 0

    def advance_to(self, completed: int, note: str = "") -> None:
        """Set the absolute progress, with an optional remark such as the current loss."""
        self._completed = completed
        if observers:
            observers[-1](self.description, completed, self.total)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=completed, note=note)
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            say(f"{self.description}: {completed}/{self.total} {note}".rstrip())

    def close(self) -> None:
        if self._progress is None:
            say(f"{self.description}: {self._completed}/{self.total} in {time.monotonic() - self._start:.1f} s")


@contextmanager
def bar(description: str, total: int) -> Iterator[Bar]:
    """Show progress of `total` units while the block runs."""
    if not (sys.stderr.isatty() and console.is_terminal):
        lines = Bar(description, total, None)
        yield lines
        lines.close()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(description, total, progress)


@dataclass(frozen=True)
class _Row:
    """A trial in the table."""

    values: str
    state: str = "running"
    step: int = 0
    measured: str = ""


def _settings(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {wording.number(value, 3)}" for key, value in values.items())


class TrialTable:
    """Live table of a search: a table that is redrawn on a terminal, a line for each beginning and end elsewhere.

    The terminal is redrawn from a thread of its own, which sees one finished mapping of rows or the next: a row that
    changes is replaced, and so are the rows.
    """

    _MAX_ROWS = 12

    def __init__(self, num_trials: int, max_steps: int, measure: str) -> None:
        self._num_trials, self._max_steps, self._measure = num_trials, max_steps, measure
        self._rows: Mapping[int, _Row] = {}
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=2)

    def __enter__(self) -> "TrialTable":
        self._on_terminal = sys.stderr.isatty() and console.is_terminal
        if self._on_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._on_terminal:
            self._live.stop()

    def begin(self, number: int, values: Mapping[str, object]) -> None:
        row = _Row(_settings(values))
        self._put(number, row)
        if not self._on_terminal:
            say(f"trial {number}: {row.values}")

    def advance(self, number: int, step: int) -> None:
        self._put(number, replace(self._rows[number], step=step))

    def rung(self, number: int, step: int, value: float) -> None:
        self._put(number, replace(self._rows[number], step=step, measured=wording.number(value)))

    def end(self, number: int, state: str, reason: str) -> None:
        row = replace(self._rows[number], state=state)
        self._put(number, row)
        if not self._on_terminal:
            measured = f", {self._measure} {row.measured}" if row.measured else ""
            why = f": {reason}" if reason else ""
            say(f"trial {number}: {state} at step {row.step} of {self._max_steps}{measured}{why}")

    def repeated(self, number: int, values: Mapping[str, object], earlier: int) -> None:
        """A trial that has the settings of an earlier one, and its outcome."""
        row = _Row(_settings(values), "repeated", measured=f"as trial {earlier}")
        self._put(number, row)
        if not self._on_terminal:
            say(f"trial {number}: {row.values}: repeats trial {earlier}, whose outcome it takes over")

    def _put(self, number: int, row: _Row) -> None:
        self._rows = {**self._rows, number: row}

    def render(self) -> Table:
        """The running trials, and above them as many of those that ended last as there is room for."""
        rows = self._rows
        counts = Counter(row.state for row in rows.values())
        title = ", ".join(f"{count} {state}" for state, count in counts.items())
        table = Table("trial", "state", "step", self._measure, "values", title=title, title_justify="left")
        running = [number for number, row in rows.items() if row.state == "running"]
        ended = [number for number, row in rows.items() if row.state != "running"]
        room = max(0, self._MAX_ROWS - len(running))
        for number in [*ended[max(0, len(ended) - room) :], *running]:
            row = rows[number]
            step = f"{row.step}/{self._max_steps}"
            table.add_row(f"{number} of {self._num_trials}", row.state, step, row.measured, row.values)
        return table
