"""Processes that take turns at computing, so that their times compare where a machine's speed changes by the minute."""

import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

TURN_S = 2.0
WARMUP_ROUNDS = 1
Step = Callable[[], Any]


def median_steps(
    makers: Mapping[str, Callable[[], tuple[Step, Any]]], rounds: int, threads: int, turn_s: float = TURN_S
) -> dict[str, Any]:
    """Median wall time of a step of each, in seconds, and what its maker told beside.

    Each has a process of its own, for settings that act on a whole process. A turn is `turn_s` or one step long.

    Args:
        makers: called in its process; makes the step. Spawned processes are sent it: a function of a module, or a
            functools.partial of one.
        rounds: turns of each that count; one before is for warming up.
        threads: of PyTorch, in each process.
        turn_s: seconds.
    """
    context = multiprocessing.get_context("spawn")
    connections: dict[str, Connection] = {}
    for name, make in makers.items():
        connections[name], remote = context.Pipe()
        context.Process(target=_serve, args=(remote, make, threads, turn_s), daemon=True).start()
    told = {name: connection.recv() for name, connection in connections.items()}
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for number in range(WARMUP_ROUNDS + rounds):
        for name, connection in connections.items():
            connection.send(True)
            turn = connection.recv()
            if number >= WARMUP_ROUNDS:
                seconds[name] += turn
    for connection in connections.values():
        connection.send(False)
    return {name: (statistics.median(values), told[name]) for name, values in seconds.items()}


def _serve(connection: Connection, make: Callable[[], tuple[Step, Any]], threads: int, turn_s: float) -> None:
    import torch

    torch.set_num_threads(threads)
    step, told = make()
    connection.send(told)
    while connection.recv():
        times = [time.perf_counter()]
        while len(times) == 1 or times[-1] - times[0] < turn_s:
            step()
            times.append(time.perf_counter())
        connection.send([end - start for start, end in itertools.pairwise(times)])
