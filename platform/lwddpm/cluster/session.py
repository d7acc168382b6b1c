"""Ray for the length of one job: here, embedded; there, the cluster behind an address. Started when first needed."""

import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

import ray
import torch

from lwddpm.cluster.exported import JobMetrics
from lwddpm.config import WorkersConfig
from lwddpm.errors import ConfigError, JobError
from lwddpm.offline import carried, is_offline
from lwddpm.progress import bar, say
from lwddpm.training.allocator import ENVIRONMENT

T = TypeVar("T")
R = TypeVar("R")


class Session:
    """What the workers of a job run on.

    A one-worker job without a cluster trains and samples in the driver's own process: a worker group takes ten
    seconds and more to start, and brings nothing there.
    """

    def __init__(self, workers: WorkersConfig, address: str | None = None) -> None:
        self.workers = workers
        self.address = address or os.environ.get("RAY_ADDRESS") or None
        self.metrics = JobMetrics("", "")  # of the job, once its run is open
        self._started_here = False

    @classmethod
    def inside_ray(cls, workers: WorkersConfig) -> "Session":
        """For code that Ray runs already: one worker computes right there, several are asked of the same cluster."""
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
            raise JobError(
                f"the Ray cluster was lost ({reason}); start it again, then the same command continues"
            ) from None

    def close(self) -> None:
        """Stop or leave Ray if this session started or joined it; it starts again when needed."""
        if self._started_here:
            ray.shutdown()
            self._started_here = False

    def rest(self) -> None:
        """Close where the job computes in this process: idle, Ray still takes a few per cent of the CPUs."""
        if self.in_process:
            self.close()

    def check(self) -> None:
        """Refuse more GPUs or CPUs than this machine has; a cluster is asked once connected.

        Raises:
            ConfigError: names the setting, what it asks for and what there is.
        """
        if self.address is None:
            here = {"CPU": usable_cpus(), "GPU": torch.cuda.device_count()}
            check_resources(self.workers, here, "this machine")
        else:
            _check_address(self.address)

    def connect(self) -> None:
        """Start or join Ray; does nothing when it runs already.

        Raises:
            ConfigError: the address does not answer, or the cluster is too small for the job.
        """
        if not ray.is_initialized():
            on_sigterm = signal.getsignal(signal.SIGTERM)
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of tasks in flight when another has failed
            try:
                if self.address is None:
                    # an explicit "local": a stale address file of a dead cluster would be joined otherwise
                    ray.init(
                        address="local",
                        num_cpus=usable_cpus(),
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                    )
                else:
                    say(f"joining the Ray cluster at {self.address}")
                    ray.init(
                        address=self.address,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        runtime_env={"env_vars": carried()} if is_offline() else None,
                    )
            except ConnectionError as error:
                raise ConfigError(f"--address {self.address}: no Ray cluster answers there: {error}") from None
            self._started_here = True
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_sigterm)  # Ray's handler would end the driver without its clean-up
        check_resources(self.workers, ray.cluster_resources(), "the Ray cluster")

    @property
    def use_gpu(self) -> bool:
        """Whether each worker gets a GPU."""
        if self.workers.use_gpu != "auto":
            return self.workers.use_gpu
        there = torch.cuda.device_count() if self.in_process else ray.cluster_resources().get("GPU", 0)
        return there >= self.workers.min_count * self.workers.gpus_per_worker

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
        """Apply `function` on all CPUs of the cluster; results come in the order of `items`."""
        self.connect()
        return ray_map(function, items, description=description)

    def worker_map(self, function: Callable[[T], R], items: Sequence[T], *, description: str) -> Iterator[R]:
        """Apply a function that computes with a model: in this process, or on the job's workers."""
        if self.in_process:
            yield from serial_map(function, items, description=description)
            return
        self.connect()
        resources, there = self.worker_resources, ray.cluster_resources()
        options = {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0)}
        tasks = min(len(items), *(int(there.get(name, 0) / amount) for name, amount in resources.items()))
        with self.metrics.holding({name: amount * tasks for name, amount in resources.items()}):
            yield from ray_map(function, items, description=description, **options)

    def fresh_process(self, function: Callable[[T], R], argument: T) -> R:
        """Call a module's function in a process that has done nothing else, with one worker's resources."""
        if self.in_process:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                return pool.submit(function, argument).result()
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
    return sum(len(item) if isinstance(item, (list, tuple, range)) else 1 for item in items)


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_address(address: str) -> None:
    """Find out within seconds whether somebody listens: Ray itself would try for minutes."""
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


def check_resources(workers: WorkersConfig, there: Mapping[str, float], where: str) -> None:
    """Refuse a job that could never start; an elastic one needs room for its fewest workers.

    Raises:
        ConfigError: names the setting, what it asks for and what there is.
    """
    gpus, cpus = int(there.get("GPU", 0)), int(there.get("CPU", 0))
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
