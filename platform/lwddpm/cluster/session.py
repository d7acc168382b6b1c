"""Ray for the length of one job: inside this process, or a cluster behind an address. Started when first needed."""

import logging
import multiprocessing
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, nullcontext
from types import TracebackType
from typing import Any, TypeVar

import ray
import torch

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.settings import SOCKETS_BELOW, ray_settings
from lwddpm.cluster.stop import sigterm_kept
from lwddpm.config import WorkersConfig
from lwddpm.errors import ConfigError, JobError
from lwddpm.files import make_private_folder, socket_fits, socket_folder
from lwddpm.offline import is_offline, worker_environment
from lwddpm.progress import bar, say
from lwddpm.training.allocator import ENVIRONMENT

T = TypeVar("T")
R = TypeVar("R")
# What may happen to a task on a cluster that goes on.
_OF_A_TASK = (
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.OutOfDiskError,
    ray.exceptions.ObjectStoreFullError,
    ray.exceptions.RuntimeEnvSetupError,
    ray.exceptions.WorkerCrashedError,
)


class Session:
    """What the workers of a job run on: this machine, or the Ray cluster behind an address.

    A one-worker job without a cluster trains and samples in the driver's own process: a worker group takes ten
    seconds and more to start, and brings nothing there.

    Args:
        workers: how many, with which resources.
        address: of a Ray cluster; default RAY_ADDRESS, else Ray is started here when it is first needed.
    """

    def __init__(self, workers: WorkersConfig, address: str | None = None) -> None:
        self.workers = workers
        self.address = address or os.environ.get("RAY_ADDRESS") or None
        self._connection = ExitStack()  # empty where Ray does not run, or was started by somebody else

    @classmethod
    def inside_ray(cls, workers: WorkersConfig) -> "Session":
        """For code that runs on Ray already: one worker computes in its process, several on the same cluster."""
        session = cls(workers)
        session.address = None if workers.max_count == 1 else "auto"
        return session

    @property
    def in_process(self) -> bool:
        return self.workers.max_count == 1 and self.address is None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
        lost = isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError)
        if lost:
            reason = " ".join(str(error).split())[:300]
            if isinstance(error, _OF_A_TASK):
                raise JobError(
                    f"Ray could not run a part of the job ({reason}); see to that, then the same command continues"
                ) from None
            raise JobError(
                f"the Ray cluster was lost ({reason}); start it again, then the same command continues"
            ) from None

    def close(self) -> None:
        """Stop or leave Ray if this session started or joined it; it starts again when needed."""
        self._connection.close()

    def rest(self) -> None:
        """Close if the job computes in this process from now on: idle, Ray still takes a few per cent of the CPUs."""
        if self.in_process:
            self.close()

    def check(self) -> None:
        """Refuse more GPUs or CPUs than this machine has; a cluster is asked once connected.

        Raises:
            ConfigError: names the setting, what it asks for and what there is.
        """
        if self.address is None:
            available = {"CPU": usable_cpus(), "GPU": torch.cuda.device_count()}
            check_resources(self.workers, available, "this machine")
        else:
            _check_address(self.address)

    def connect(self) -> None:
        """Start or join Ray; does nothing when it runs already.

        Raises:
            ConfigError: the address does not answer, or the cluster is too small for the job.
            JobError: Ray does not start on this machine.
        """
        if not ray.is_initialized():
            self.close()  # what a lost connection has left
            with ExitStack() as connection, sigterm_kept():
                own = _environment() | ({} if self.address else _folder_of_short_path())
                connection.enter_context(ray_settings(own, logging.ERROR))
                self._start()
                connection.callback(ray.shutdown)
                self._connection = connection.pop_all()
        check_resources(self.workers, ray.cluster_resources(), "the Ray cluster")

    def _start(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address is None:
            try:
                # an explicit "local": a stale address file of a dead cluster would be joined otherwise
                ray.init(address="local", num_cpus=usable_cpus(), include_dashboard=False, **quiet)
            except Exception as error:  # Ray raises anything from OSError to Exception here
                raise JobError(
                    f"Ray cannot be started on this machine ({' '.join(str(error).split())}); its files lie in "
                    f"{_temporary_folder()}: see that it is a folder with space, or set TMPDIR to another one"
                ) from error
            return
        say(f"joining the Ray cluster at {self.address}")
        try:
            ray.init(
                address=self.address,
                runtime_env={"env_vars": worker_environment()} if is_offline() else None,
                **quiet,
            )
        except ConnectionError as error:
            raise ConfigError(f"--address {self.address}: no Ray cluster answers there: {error}") from None

    @property
    def use_gpu(self) -> bool:
        """Whether each worker gets a GPU."""
        if self.workers.use_gpu != "auto":
            return self.workers.use_gpu
        available = torch.cuda.device_count() if self.in_process else ray.cluster_resources().get("GPU", 0)
        return available >= self.workers.min_count * self.workers.gpus_per_worker

    @property
    def worker_resources(self) -> dict[str, float]:
        """What Ray reserves for each worker."""
        gpus = {"GPU": self.workers.gpus_per_worker} if self.use_gpu else {}
        return {"CPU": self.cpus_per_worker} | gpus

    @property
    def model_device(self) -> str:
        """Where tasks of `worker_map` compute."""
        if not self.in_process:
            self.connect()
        return "cuda" if self.use_gpu else "cpu"

    @property
    def cpus_per_worker(self) -> int:
        """CPUs, and so compute threads, of each worker."""
        if self.workers.cpus_per_worker is not None:
            return self.workers.cpus_per_worker
        if self.in_process:
            return usable_cpus()
        nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        usable = sorted(cpus for cpus in nodes if cpus)
        workers_per_node = -(-self.workers.max_count // max(1, len(usable)))
        return max(1, usable[0] // workers_per_node) if usable else 1

    def map(self, function: Callable[[T], R], items: Sequence[T], *, description: str) -> Iterator[R]:
        """Apply `function` on all CPUs of the cluster; yields the results in the order of `items`."""
        self.connect()
        return ray_map(function, items, description=description)

    def worker_map(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        *,
        description: str,
        exported: ExportedSeries | None = None,
    ) -> Iterator[R]:
        """Apply a function that computes with a model: in this process, or on the job's workers.

        Args:
            description: of the progress bar.
            exported: the job's series; the CPUs and GPUs that its tasks hold on a cluster are counted there.
        """
        if self.in_process:
            yield from serial_map(function, items, description=description)
            return
        self.connect()
        resources, available = self.worker_resources, ray.cluster_resources()
        options = {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0)}
        tasks = min(len(items), *(int(available.get(name, 0) / amount) for name, amount in resources.items()))
        held = {name: amount * tasks for name, amount in resources.items()}
        with exported.holding(held) if exported else nullcontext():
            yield from ray_map(function, items, description=description, **options)

    def fresh_process(self, function: Callable[[T], R], argument: T) -> R:
        """Call a module's function in a process that has done nothing else, with one worker's resources.

        Raises:
            JobError: the process was killed, such as for want of memory.
        """
        if self.in_process:
            try:
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    return pool.submit(function, argument).result()
            except BrokenProcessPool:
                raise JobError(
                    "a process of the job was killed, most likely for want of memory; end other programs, then the "
                    "same command continues"
                ) from None
        self.connect()
        resources = self.worker_resources
        task = ray.remote(
            num_cpus=resources["CPU"],
            num_gpus=resources.get("GPU", 0),
            max_calls=1,  # the process ends with its first task
            runtime_env={"env_vars": ENVIRONMENT},
        )(_apply)
        try:
            result: R = ray.get(task.remote(function, argument))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        return result


def serial_map(function: Callable[[T], R], items: Sequence[T], *, description: str) -> Iterator[R]:
    """`map` with a progress bar."""
    with bar(description, _units(items)) as progress:
        done = 0
        for item in items:
            yield function(item)
            done += _units([item])
            progress.advance_to(done)


def ray_map(
    function: Callable[[T], R], items: Sequence[T], *, description: str, num_cpus: float = 1, num_gpus: float = 0
) -> Iterator[R]:
    """Ordered parallel map over Ray tasks with a progress bar and bounded results in flight."""
    task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus)(_apply)
    shared = ray.put(function)
    resources = ray.cluster_resources()
    slots = resources.get("GPU", 1) / num_gpus if num_gpus else resources.get("CPU", 1) / num_cpus
    in_flight: deque[Any] = deque()
    remaining = iter(items)
    with bar(description, _units(items)) as progress:
        done = 0
        for item in items:
            while len(in_flight) < 2 * max(1, int(slots)) and (following := next(remaining, None)) is not None:
                in_flight.append(task.remote(shared, following))
            try:
                result = ray.get(in_flight.popleft())
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None  # the task's own error, as a serial map would raise it
            yield result
            done += _units([item])
            progress.advance_to(done)


def _apply(function: Callable[[T], R], item: T) -> R:
    return function(item)


def _units(items: Sequence[Any]) -> int:
    """Progress counts what people count: the images in the chunks, where the items are chunks."""
    return sum(len(item) if isinstance(item, Sized) and not isinstance(item, str) else 1 for item in items)


def _environment() -> dict[str, str]:
    """Variables that Ray reads where it is started; the user's own stay."""
    defaults = {
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a task without a GPU leaves CUDA_VISIBLE_DEVICES alone
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of tasks in flight when another has failed
    }
    return {name: os.environ.get(name, default) for name, default in defaults.items()}


def _temporary_folder() -> str:
    """Where Ray puts its files; on macOS it does not look at TMPDIR."""
    return os.environ.get("RAY_TMPDIR") or (sys.platform == "linux" and os.environ.get("TMPDIR")) or "/tmp"


def _folder_of_short_path() -> dict[str, str]:
    """The variable that has Ray put its files where its sockets fit, if they do not where it would put them."""
    if socket_fits(_temporary_folder(), len("/ray") + SOCKETS_BELOW):
        return {}
    folder = socket_folder(len("/local/ray") + SOCKETS_BELOW)  # "local": /ray is that of a head
    make_private_folder(folder)
    return {"RAY_TMPDIR": f"{folder}/local"}


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_address(address: str) -> None:
    """Find out within seconds whether anything listens there: Ray itself would try for minutes."""
    if address.startswith(("http://", "https://")):
        raise ConfigError(f"--address {address}: is a job server, to which a job is sent with lwddpm submit")
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # "auto": Ray knows where
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise ConfigError(
            f"--address {address}: no Ray cluster answers there ({error}); start one, or leave it out to run here"
        ) from None


def check_resources(workers: WorkersConfig, available: Mapping[str, float], where: str) -> None:
    """Refuse a job that could never start; an elastic one needs room for its fewest workers.

    Args:
        available: CPU and GPU to how many there are.
        where: that is, for the message.

    Raises:
        ConfigError: names the setting, what it asks for and what there is.
    """
    gpus, cpus = int(available.get("GPU", 0)), int(available.get("CPU", 0))
    if workers.use_gpu is True and workers.min_count * workers.gpus_per_worker > gpus:
        share = "one GPU" if workers.gpus_per_worker == 1 else f"{workers.gpus_per_worker:g} of a GPU"
        raise ConfigError(
            f"workers.use_gpu: {workers.min_count} worker(s) need {share} each, {where} has {gpus}; "
            "lower workers.count, or set workers.use_gpu: auto to run on CPUs"
        )
    wanted = workers.min_count * (workers.cpus_per_worker or 1)
    if wanted > cpus:
        raise ConfigError(
            f"workers.count: {workers.min_count} worker(s) x {workers.cpus_per_worker or 1} CPU need {wanted} CPUs, "
            f"{where} has {cpus}; lower workers.count or workers.cpus_per_worker"
        )
