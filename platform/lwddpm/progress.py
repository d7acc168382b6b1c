"""What a person sees while a job runs: bars on a terminal, plain lines elsewhere. Always on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_EVERY_S = 10.0
console = Console(stderr=True, highlight=False, soft_wrap=True)


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
