"""What Prometheus sees of a job: series that Ray's agents export as `ray_lwddpm_<name>`.

Only drivers export: all that workers report passes through them anyway, so a lost worker takes no series with it and a
step costs nothing. Where Ray does not run in the driver, nothing is exported. Ray drops a gauge that is not set again
within two of its export intervals (20 s unless changed). A thread sets the current ones every 2 s, so the series of a
job or trial last exactly as long as it is open.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import ray
from ray.util import metrics as ray_metrics

from lwddpm import progress

PREFIX = "ray_lwddpm_"  # of every exported name: Ray puts its own in front
# `job` would be renamed when scraped: it is Prometheus' word for a group of targets.
LABELS = ("job_name", "run", "trial")
_SET_AGAIN_EVERY_S = 2.0


@dataclass(frozen=True)
class Metric:
    """One exported metric.

    Attributes:
        description: with the unit.
        labels: besides `LABELS`.
    """

    description: str
    labels: tuple[str, ...] = ()


# What the training loop reports under the same name, with a slash for the first underscore.
REPORTED = {
    "train_loss": Metric("training loss, mean over the steps of the newest report"),
    "train_grad_norm": Metric("norm of the gradient before clipping"),
    "train_lr": Metric("learning rate"),
    "train_images_per_s": Metric("training images per second, all workers, without validation and checkpoints"),
    "train_step_seconds": Metric("seconds of an optimizer step"),
    "train_epoch": Metric("epochs done"),
    "train_peak_memory_mib": Metric("peak memory of rank 0: of its GPU, else of its process, MiB"),
    "train_checkpoint_seconds": Metric(
        "seconds that training waited for the newest checkpoint, which is written beside it"
    ),
    "train_diversity": Metric("diversity of a snapshot's slices, relative to real ones; below 0.1 the model collapsed"),
    "train_loss_discriminator": Metric("loss of a GAN's discriminator, whose train_loss is that of the generator"),
    "train_grad_norm_discriminator": Metric("norm of its gradient before clipping"),
    "val_loss": Metric("loss of the EMA weights on held-out slices"),
}
GAUGES = REPORTED | {
    "workers": Metric("training workers at work"),
    "worker_restarts": Metric("times that lost workers were started again"),
    "gpu_worker": Metric("1 for each worker on a GPU: joins Ray's readings of a GPU to its job", ("rank", "GpuUuid")),
    "progress": Metric("share of a stage that is done, 0 to 1", ("stage",)),
    "trials": Metric("trials of a search by state", ("state",)),
    "trial_objective": Metric("newest measurement of what early stopping compares", ("objective",)),
    "trial_step": Metric("optimizer step of that measurement"),
}
COUNTERS = {
    "resource_seconds": Metric("seconds that a job held a CPU or GPU, times how many it held", ("resource",)),
}


class ExportedSeries:
    """The series of one job, or of one trial of it, while it is open.

    `open` and `close` export what is set. As a context manager it also exports how far the progress bars are.

    Args:
        job: name of the job; for trials, of the search.
        run: MLflow run id; its first 8 characters become the label.
        trial: number of the trial, empty outside searches.
    """

    def __init__(self, job: str, run: str, trial: str = "") -> None:
        self._labels = dict(zip(LABELS, (job, run[:8], trial), strict=True))
        self._lock = threading.Lock()
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._starts: Counter[int | None] = Counter()
        self._held: Mapping[str, float] = {}
        self._counted_until = time.monotonic()

    def __enter__(self) -> "ExportedSeries":
        self.open()
        progress.observers.append(self._advance)
        return self

    def __exit__(self, *error: object) -> None:
        progress.observers.remove(self._advance)
        self.close()

    def open(self) -> None:
        """Export from now on."""
        self._counted_until = time.monotonic()
        _publisher().series.append(self)

    def close(self) -> None:
        """Export no more."""
        _publisher().series.remove(self)
        self.publish()

    def set(self, name: str, value: float, **labels: str) -> None:
        """The value of a gauge from now on."""
        if GAUGES[name].labels != tuple(labels):
            raise ValueError(f"{name}: labels must be {GAUGES[name].labels}, got {tuple(labels)}")
        with self._lock:
            self._values[name, tuple(labels.items())] = value

    def drop(self, *names: str) -> None:
        """End these gauges."""
        with self._lock:
            self._values = {key: value for key, value in self._values.items() if key[0] not in names}

    def metrics(self, rows: dict[int, dict[str, float]]) -> None:
        """What training reports, as `Reporter.metrics`: of each value the mean over the rows."""
        reported: dict[str, list[float]] = {}
        for values in rows.values():
            for key, value in values.items():
                reported.setdefault(key.replace("/", "_", 1), []).append(value)
        for name in reported.keys() & REPORTED.keys():
            self.set(name, sum(reported[name]) / len(reported[name]))

    def worker_started(
        self, rank: int, world_size: int, until: int | None, gpu: str, resources: Mapping[str, float]
    ) -> None:
        """As `Listener.worker_started`. A second start of rank 0 towards the same step is a restart.

        Args:
            resources: what each worker holds.
        """
        with self._lock:  # what this rank, or one that is no more, computed on before
            self._values = {key: value for key, value in self._values.items() if not _of_rank(key, rank, world_size)}
        if rank == 0:
            self._starts[until] += 1
            self.set("workers", world_size)
            self.set("worker_restarts", self._starts.total() - len(self._starts))
            self.hold({name: amount * world_size for name, amount in resources.items()})
        if gpu:
            self.set("gpu_worker", 1, rank=str(rank), GpuUuid=gpu)

    def training_ended(self) -> None:
        """End the gauges of training; progress and restarts stay until the job ends."""
        self.publish()
        self.drop(*REPORTED, "workers", "gpu_worker")
        self.hold({})

    def hold(self, resources: Mapping[str, float]) -> None:
        """From now on the job holds so many CPUs and GPUs."""
        self._count()
        self._held = resources

    @contextmanager
    def holding(self, resources: Mapping[str, float]) -> Iterator[None]:
        """`hold` for the length of a block."""
        self.hold(resources)
        try:
            yield
        finally:
            self.hold({})

    def publish(self) -> None:
        """Set all current gauges once more; nothing where Ray does not run.

        Called when series end, too, so that a short one is exported once at least.
        """
        if not ray.is_initialized():
            return
        with self._lock:
            values = list(self._values.items())
        for (name, labels), value in values:
            _instrument(name).set(value, tags=self._labels | dict(labels))
        self._count()

    def _count(self) -> None:
        with self._lock:
            now = time.monotonic()
            seconds, self._counted_until = now - self._counted_until, now
            held = self._held
        if seconds > 0 and ray.is_initialized():
            for resource, amount in held.items():
                if amount > 0:
                    labels = self._labels | {"resource": resource}
                    _instrument("resource_seconds").inc(amount * seconds, tags=labels)

    def _advance(self, stage: str, done: int, total: int) -> None:
        self.set("progress", done / total if total else 1.0, stage=stage)


class _Publisher(threading.Thread):
    """Publishes all open series of this process, again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="lwddpm-metrics")
        self.series: list[ExportedSeries] = []

    def run(self) -> None:
        while True:
            time.sleep(_SET_AGAIN_EVERY_S)
            for series in list(self.series):
                series.publish()


def _of_rank(key: tuple[str, tuple[tuple[str, str], ...]], rank: int, world_size: int) -> bool:
    """Whether a gauge says which GPU this rank computes on, or one beyond the new number of workers."""
    name, labels = key
    return name == "gpu_worker" and (int(labels[0][1]) == rank or int(labels[0][1]) >= world_size)


@cache
def _publisher() -> _Publisher:
    publisher = _Publisher()
    publisher.start()
    return publisher


@cache
def _instrument(name: str) -> Any:
    kind, metric = (ray_metrics.Gauge, GAUGES[name]) if name in GAUGES else (ray_metrics.Counter, COUNTERS[name])
    return kind(f"lwddpm_{name}", metric.description, tag_keys=LABELS + metric.labels)
