"""Sends what an outbox holds to MLflow, beside the training; tries for ever, so that an outage is only a delay."""

import threading
import time
from pathlib import Path

from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from requests import RequestException
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from lwddpm.addresses import public
from lwddpm.errors import ConfigError, JobError
from lwddpm.progress import say
from lwddpm.tracking.outbox import Delivered, Outbox, OutboxEntry
from lwddpm.tracking.store import check_answers

BATCH = 500  # metrics in one request; MLflow takes at most 1000
_EVERY_S = 10.0  # a request costs tens of milliseconds of a CPU that the training wants
_RETRY_S = 2.0
PATIENCE_S = 600.0  # for a store that does not answer when everything else is done
STORE_ERRORS = (MlflowException, RequestException, SQLAlchemyError)  # what a store in trouble raises
_TRANSIENT = (408, 429)  # of the 4xx, those that pass by themselves


class DeliveryError(JobError):
    """The store did not take a report. `permanent`: it will not, until a person changes something."""

    def __init__(self, message: str, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class Delivery:
    """One run's deliveries. A report is removed once it has arrived.

    Sending twice does no harm: MLflow keeps one of several rows with the same step, value and time.
    """

    def __init__(self, outbox: Outbox, run_id: str, client: MlflowClient) -> None:
        self.outbox = outbox
        self._run_id, self._client = run_id, client
        self._uri = str(client.tracking_uri)
        self._sending = threading.Lock()
        self._wake, self._ended = threading.Event(), threading.Event()
        self._complained = False
        threading.Thread(target=self._keep_sending, daemon=True, name=f"delivery-{run_id[:8]}").start()

    def wake(self) -> None:
        """Send now rather than soon."""
        self._wake.set()

    def flush(self, patience_s: float = PATIENCE_S) -> None:
        """Return when everything has arrived.

        Raises:
            JobError: the store has refused, or not answered for `patience_s`; the reports are kept.
        """
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self.send()
                return
            except DeliveryError as error:
                if error.permanent or time.monotonic() >= deadline:
                    raise JobError(
                        f"{error}; what was reported is kept in {self.outbox.folder}, and the same command delivers it"
                    ) from None
                self._complain(f"{error}; waiting up to {patience_s / 60:g} min for it")
            time.sleep(_RETRY_S)

    def close(self) -> None:
        """Stop the thread; what is left stays in the outbox."""
        self._ended.set()
        self._wake.set()

    def send(self) -> None:
        """Send all that waits.

        Raises:
            DeliveryError: at the first report that did not arrive.
        """
        with self._sending:
            batch: list[Path] = []
            metrics: list[Metric] = []
            for path in self.outbox.waiting():
                entry = self.outbox.read(path)
                batch.append(path)
                metrics += _rows(entry)
                if len(metrics) >= BATCH or not entry.metrics:
                    self._deliver(batch, metrics, entry)
                    batch, metrics = [], []
            if batch:
                self._deliver(batch, metrics, None)
        if self._complained:
            self._complained = False
            say(f"tracking: {public(self._uri)} answers again, everything has been delivered")

    def _deliver(self, paths: list[Path], metrics: list[Metric], other: OutboxEntry | None) -> None:
        steps = dict(self.outbox.delivered(self._run_id).steps)
        new = []
        for metric in metrics:
            if metric.step > steps.get(metric.key, -1):
                steps[metric.key] = metric.step
                new.append(metric)
        try:
            check_answers(self._uri)  # MLflow itself would try for minutes before it says so
            for start in range(0, len(new), BATCH):
                self._client.log_batch(self._run_id, metrics=new[start : start + BATCH])
            if other is not None:
                self._deliver_other(other)
        except (ConfigError, *STORE_ERRORS) as error:
            code = error.get_http_status_code() if isinstance(error, MlflowException) else 503
            permanent = 400 <= code < 500 and code not in _TRANSIENT
            raise DeliveryError(
                f"tracking: {public(self._uri)} did not take a report ({reason_of(error)})", permanent
            ) from None
        if new:
            self.outbox.save_delivered(Delivered(run_id=self._run_id, steps=steps))
        for path in paths:
            path.unlink(missing_ok=True)

    def _deliver_other(self, entry: OutboxEntry) -> None:
        if entry.tags:
            self._client.log_batch(self._run_id, tags=[RunTag(key, value) for key, value in entry.tags.items()])
        if entry.grid is not None:
            pixels, step = entry.grid.pixels(), entry.grid.step
            self._client.log_image(self._run_id, pixels, key="samples", step=step, timestamp=entry.time_ms)
            file = f"samples/epoch_{entry.grid.epoch:07.2f}.png"
            self._client.log_image(self._run_id, pixels, artifact_file=file)
        if entry.status is not None:
            self._client.set_terminated(self._run_id, entry.status)
            self._ended.set()

    def _keep_sending(self) -> None:
        pause = _EVERY_S
        while not self._ended.is_set():
            self._wake.wait(pause)
            self._wake.clear()
            try:
                self.send()
                pause = _EVERY_S
            except JobError as error:
                pause = min(pause * 1.5, 60.0)
                self._complain(f"{error}; the training goes on, reports are kept in {self.outbox.folder}")

    def _complain(self, message: str) -> None:
        if not self._complained:
            self._complained = True
            say(message)


def reason_of(error: BaseException) -> str:
    """What went wrong, in a line; of a database in its own words, which stand deep in a chain of errors."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, DBAPIError):
            return str(inner.orig).splitlines()[0]
        inner = inner.__cause__ or inner.__context__
    return next(iter(str(error).splitlines()), type(error).__name__)


def _rows(entry: OutboxEntry) -> list[Metric]:
    return [
        Metric(key, value, entry.time_ms, step)
        for step, values in sorted(entry.metrics.items())
        for key, value in values.items()
    ]
