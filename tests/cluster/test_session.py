import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lwddpm import progress
from lwddpm.cluster.session import Session, check_resources, ray_map, serial_map
from lwddpm.config import WorkerRange, WorkersConfig
from lwddpm.errors import ConfigError, DataError, JobError

from ..processes import LWDDPM, clean_environment, flags


# Local functions: Ray ships them whole. Those of a test module would be looked up by name, and workers do not know it.
def _functions() -> tuple[Callable[[int], int], ...]:
    def square(value: int) -> int:
        return value * value

    def refuse(value: int) -> int:
        raise DataError(f"no {value}")

    def process(value: int) -> int:
        return os.getpid()

    def die(value: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return value

    return square, refuse, process, die


_square, _refuse, _process, _die = _functions()


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
def test_a_process_that_dies_is_not_said_to_be_a_lost_cluster() -> None:
    with pytest.raises(JobError, match="Ray could not run a part of the job"), Session(WorkersConfig()) as session:
        list(session.map(_die, [1], description="dies"))


def test_a_fresh_process_that_dies_is_said() -> None:
    with pytest.raises(JobError, match="a process of the job was killed"):
        Session(WorkersConfig()).fresh_process(os._exit, 1)


@pytest.mark.cluster
def test_a_tmpdir_too_long_for_sockets_is_no_obstacle(tmp_path: Path) -> None:
    prepared = _prepare(tmp_path, TMPDIR=str(tmp_path / ("long" * 20)))
    assert prepared.returncode == 0, prepared.stderr
    assert (tmp_path / "data" / "dataset.json").exists()


@pytest.mark.cluster
def test_where_ray_does_not_start_it_says_so_and_blames_no_setting(tmp_path: Path) -> None:
    refused = _prepare(tmp_path, RAY_TMPDIR="/dev/null")  # no folder
    (message,) = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
    assert message.startswith("error: Ray cannot be started on this machine")
    assert message.endswith("set TMPDIR to another one")
    assert "Traceback" not in refused.stderr
    assert refused.returncode == 1


def _prepare(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    Path(environment.get("TMPDIR", folder)).mkdir(exist_ok=True)
    overrides = flags(["data.phantom_count=60", "data.image_size=16", f"data.path={folder / 'data'}"])
    return subprocess.run(
        [LWDDPM, "run", "prepare", "--set", "data.source=phantom", *overrides],
        capture_output=True,
        text=True,
        cwd=folder,
        env=clean_environment() | environment,
        timeout=200,
    )


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


def test_progress_counts_the_slices_in_chunks_and_other_items_as_one() -> None:
    class Chunk:
        def __len__(self) -> int:
            return 3

    heard: list[tuple[int, int]] = []
    progress.observers.append(lambda stage, done, total: heard.append((done, total)))
    try:
        for items in ([Chunk(), Chunk()], [[1, 2, 3], [4]], ["abc", "de"]):
            list(serial_map(lambda item: item, items, description="counts"))
    finally:
        progress.observers.pop()
    assert heard == [(3, 6), (6, 6), (3, 4), (4, 4), (1, 2), (2, 2)]
