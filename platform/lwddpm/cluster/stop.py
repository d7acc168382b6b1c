"""How a job is stopped: the signals, the file that asks its workers to end, and the end of the process.

The first Ctrl-C or SIGTERM during a training is a request (`StopRequest`): the workers save a checkpoint and end. The
second one, and one at any other time, is a KeyboardInterrupt in the main thread. Python cannot cancel a call in another
thread that it leaves behind (`BackgroundCall`); `run_program` ends the process without waiting for it.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from lwddpm.progress import say

R = TypeVar("R")
_WRITE_AGAIN_AFTER_S = 1.0


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM of a block into a stop file; a second one interrupts.

    A file instead of an exception: an interrupt in the middle of a request to MLflow would lose what it carries. The
    handler only takes note, since it runs between any two instructions of the main thread, where an error of the disk
    would come out of unrelated code. A thread writes the file, and tries again where the disk refuses.

    Attributes:
        file: exists once the workers are to stop.
        requested: whether the user, or the cluster, has asked for it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.requested = False
        self._signals: queue.SimpleQueue[bool] = queue.SimpleQueue()  # whose `put` a signal handler may call
        self._writer = threading.Thread(target=self._write, daemon=True, name="lwddpm-stop")
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        self.file.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._writer.start()
            self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._previous:
            self._signals.put(False)
            self._writer.join()
        with contextlib.suppress(OSError):  # of a disk that fails; the next block removes what is left
            self.file.unlink(missing_ok=True)

    def _note(self, number: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._signals.put(True)

    def _write(self) -> None:
        if not self._signals.get():
            return
        say("stopping: saving a checkpoint (Ctrl-C again: do not wait)")
        refused = False
        while True:
            try:
                self.file.touch()
                return
            except OSError as error:
                if not refused:
                    say(f"{self.file}: cannot be written ({error.strerror}); free some space, or press Ctrl-C again")
                refused = True
            with contextlib.suppress(queue.Empty):
                self._signals.get(timeout=_WRITE_AGAIN_AFTER_S)  # False: the block has ended
                return


class BackgroundCall(threading.Thread, Generic[R]):
    """A call that takes long, beside the main thread, which stays free for events and signals.

    Args:
        function: such as `TorchTrainer.fit`.
        events: a queue that gets None when the function has returned, behind all that it has caused.
    """

    def __init__(self, function: Callable[[], R], events: Any) -> None:
        super().__init__(daemon=True, name=f"lwddpm-{getattr(function, '__qualname__', 'call')}")
        self._function, self._events = function, events
        self._returned: list[R] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._returned.append(self._function())
        except BaseException as error:  # for `result`, in the main thread
            self._error = error
        finally:
            self._events.put(None)

    def result(self) -> R:
        """Wait for the end; what the function returned, or its error."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._returned[0]


def run_program(program: Callable[[], object]) -> None:
    """Run a command-line program, which ends by returning or with SystemExit.

    SIGTERM, by which a cluster asks a process to end, interrupts it as Ctrl-C does.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        program()
    except SystemExit as end:
        if any(isinstance(thread, BackgroundCall) for thread in threading.enumerate()):
            # a thread that computes in torch crashes in the interpreter's teardown: end without one
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Keep this program's way of taking a SIGTERM: Ray, when started, replaces it with one that skips all clean-up."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
