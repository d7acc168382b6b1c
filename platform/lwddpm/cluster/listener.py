"""What the workers of a training tell the process that has started them, while they train."""

from pathlib import Path
from typing import Any, Protocol

from lwddpm.tracking.outbox import Outbox

Rows = dict[int, dict[str, float]]  # values by name, by optimizer step


class Listener(Protocol):
    """Hears the workers of one training; called in the thread that waits for it (`train.run_workers`)."""

    def metrics(self, rows: Rows) -> None:
        """Rank 0 reports the values of one or several steps, as `Reporter.metrics`."""

    def worker_started(self, rank: int, world_size: int, until: int | None, gpu: str) -> None:
        """A worker is about to train. After a loss, all workers of the group start once more.

        Args:
            until: the optimizer step that the training pauses at; None: its end.
            gpu: NVML's name of the worker's GPU, empty on a CPU.
        """

    def warning(self, step: int, message: str) -> None:
        """As `Reporter.warning`."""


class WorkerReporter(Outbox):
    """Rank 0's reports: into the run folder, for MLflow; the values also to the listener."""

    def __init__(self, folder: Path, events: Any) -> None:
        super().__init__(folder)
        self._events = events

    def metrics(self, rows: Rows) -> None:
        super().metrics(rows)
        self._events.put(("metrics", (rows,)))

    def warning(self, step: int, message: str) -> None:
        super().warning(step, message)
        self._events.put(("warning", (step, message)))


def deliver(events: Any, listener: Listener) -> None:
    """Call the listener with all that comes: (name of its method, arguments), until None."""
    for method, arguments in iter(events.get, None):
        getattr(listener, method)(*arguments)
