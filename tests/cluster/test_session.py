import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lwddpm.cluster.session import Session, check_resources, ray_map, serial_map
from lwddpm.config import WorkerRange, WorkersConfig
from lwddpm.errors import ConfigError, DataError


# Local functions: Ray ships them whole. Those of a test module would be looked up by name, and workers do not know it.
def _functions() -> tuple[Callable[[int], int], Callable[[int], int], Callable[[int], int]]:
    def square(value: int) -> int:
        return value * value

    def refuse(value: int) -> int:
        raise DataError(f"no {value}")

    def process(value: int) -> int:
        return os.getpid()

    return square, refuse, process


_square, _refuse, _process = _functions()


def test_one_local_worker_stays_in_this_process() -> None:
    session = Session(WorkersConfig())
    assert session.in_process
    assert list(session.worker_map(_process, [1, 2], description="here")) == [os.getpid()] * 2
    assert not Session(WorkersConfig(count=2)).in_process
    assert not Session(WorkersConfig(), address="somewhere:6379").in_process


def test_serial_map_keeps_the_order() -> None:
    assert list(serial_map(_square, [3, 1, 2], description="squares")) == [9, 1, 4]


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_ray_map_keeps_the_order_and_leaves_the_process() -> None:
    items = list(range(25))
    assert list(ray_map(_square, items, description="squares")) == [value * value for value in items]
    assert os.getpid() not in set(ray_map(_process, items, description="processes"))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_a_tasks_error_arrives_as_itself() -> None:
    with pytest.raises(DataError) as caught:
        list(ray_map(_refuse, [1], description="fails"))
    assert str(caught.value) == "no 1"


def _two_processes(session: Session) -> set[str]:
    return {session.fresh_process(os.path.realpath, "/proc/self") for _ in range(2)}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks Linux for the process")
def test_a_fresh_process_is_a_new_one_each_time() -> None:
    assert len(_two_processes(Session(WorkersConfig())) - {str(Path("/proc/self").resolve())}) == 2


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks Linux for the process")
def test_a_fresh_process_on_ray_is_a_new_one_each_time_and_passes_errors_on() -> None:
    session = Session(WorkersConfig(), address="auto")
    assert len(_two_processes(session) - {str(Path("/proc/self").resolve())}) == 2
    with pytest.raises(DataError, match="no 1"):
        session.fresh_process(_refuse, 1)


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (WorkersConfig(count=2, use_gpu=True), "need one GPU each, the cluster has 1"),
        (WorkersConfig(count=5), "need 5 CPUs, the cluster has 4"),
        (WorkersConfig(count=2, cpus_per_worker=3), "need 6 CPUs, the cluster has 4"),
        (WorkersConfig(count=WorkerRange(min=5, max=9)), "need 5 CPUs, the cluster has 4"),
    ],
)
def test_a_job_too_large_is_refused(workers: WorkersConfig, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_resources(workers, {"CPU": 4.0, "GPU": 1.0}, "the cluster")


def test_a_job_that_fits_passes() -> None:
    check_resources(WorkersConfig(count=2, cpus_per_worker=2, use_gpu="auto"), {"CPU": 4.0}, "the cluster")
    check_resources(WorkersConfig(count=WorkerRange(min=4, max=100)), {"CPU": 4.0}, "the cluster")
