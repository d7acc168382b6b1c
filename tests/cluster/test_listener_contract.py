"""What `run_workers` relies on, of every listener. A new one is a line in LISTENERS."""

import math
import queue
from collections.abc import Callable

import pytest

from lwddpm.cluster import train, trial
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.listener import Listener, deliver
from lwddpm.cluster.session import Session
from lwddpm.config import WorkersConfig
from lwddpm.progress import Bar

ROW = {"train/loss": 0.5, "train/images_per_s": 9.0, "train/peak_memory_mib": 70.0}


def _training(workers: int) -> Listener:
    session = Session(WorkersConfig(count=workers, cpus_per_worker=1, use_gpu=False))
    return train.TrainingProgress(Bar("training", 100, None), session, ExportedSeries("job", "run"))


LISTENERS: dict[str, Callable[[], Listener]] = {
    "training in the driver's process": lambda: _training(1),
    "training on workers": lambda: _training(2),
    "trial": lambda: trial.TrialListener(3, queue.Queue()),
}


@pytest.fixture(params=LISTENERS)
def listener(request: pytest.FixtureRequest) -> Listener:
    return LISTENERS[request.param]()


def test_numbers_may_come_before_the_worker_that_reports_them(listener: Listener) -> None:
    listener.metrics({1: ROW})
    listener.worker_started(0, 1, None, "")


def test_workers_start_again_in_any_number(listener: Listener) -> None:
    for world in (2, 2, 4, 1):
        for rank in reversed(range(world)):
            listener.worker_started(rank, world, 90, "NVIDIA H100 80GB HBM3")
        listener.metrics({7: ROW})
    listener.worker_started(0, 1, None, "")


def test_rows_may_be_empty_unsorted_and_without_what_is_shown(listener: Listener) -> None:
    listener.metrics({9: {}})
    listener.metrics({9: {"val/loss": 0.25}})
    listener.metrics({9: {"train/diversity": 0.0}})
    listener.metrics({9: ROW, 7: {"train/loss": 0.75}, 8: {}})
    listener.metrics({3: ROW})  # after a restart, from an earlier checkpoint


def test_a_warning_may_come_before_anything_else(listener: Listener) -> None:
    listener.warning(7, "[bold] a checkpoint is damaged")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_taken(value: float, listener: Listener) -> None:
    listener.metrics({1: dict.fromkeys(ROW, value) | {"val/loss": value}})


def test_what_comes_is_not_changed(listener: Listener) -> None:
    rows = {1: {"train/loss": 0.5}, 2: dict(ROW)}
    listener.metrics(rows)
    assert rows == {1: {"train/loss": 0.5}, 2: ROW}


def test_events_reach_it_by_name_until_none(listener: Listener) -> None:
    events: queue.Queue[object] = queue.Queue()
    for event in (("metrics", ({1: ROW},)), ("worker_started", (0, 1, None, "")), None, "left for the next"):
        events.put(event)
    deliver(events, listener)
    assert events.get_nowait() == "left for the next"
