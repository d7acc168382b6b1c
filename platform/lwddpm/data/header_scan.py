"""Reading the headers of many files, in processes where it is worthwhile; without Ray, as no worker runs yet."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from lwddpm.progress import bar

R = TypeVar("R")
WORTHWHILE = 2000  # files: a process takes a second to start
BLOCK = 100  # files that a process reads at a time


def read_headers(read: Callable[[Path], R], root: str, names: Sequence[str], description: str) -> Iterator[R]:
    """`read` of every file, in their order.

    Args:
        read: a function of a module, so that processes can import it; does not raise.
        root, names: the files below a folder.
        description: for the progress bar, which small folders do without.
    """
    if len(names) < WORTHWHILE:
        for name in names:
            yield read(Path(root, name))
        return
    blocks = [names[start : start + BLOCK] for start in range(0, len(names), BLOCK)]
    with bar(description, len(names)) as progress, _pool() as pool:
        futures: list[Future[list[R]]] = [pool.submit(_read_block, read, root, block) for block in blocks]
        done = 0
        try:
            for block, future in zip(blocks, futures, strict=True):
                try:
                    yield from future.result()
                except BrokenProcessPool:  # killed, or a script that cannot be imported: read here what is left
                    yield from _read_block(read, root, block)
                done += len(block)
                progress.advance_to(done)
        finally:
            pool.shutdown(cancel_futures=True)


def num_processes() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pool() -> ProcessPoolExecutor:
    # not forked: Ray and compute libraries have threads in this process
    return ProcessPoolExecutor(
        num_processes(), mp_context=multiprocessing.get_context("spawn"), initializer=_leave_signals_to_the_parent
    )


def _leave_signals_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _read_block(read: Callable[[Path], R], root: str, names: Sequence[str]) -> list[R]:
    return [read(Path(root, name)) for name in names]
