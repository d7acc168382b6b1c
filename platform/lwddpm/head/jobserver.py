"""Ray's job server, part of a cluster's dashboard: submit a job there, look at jobs, stop them.

A submitted job is `lwddpm run` on the cluster's head. Its id is `<name>-<digest>-<attempt>`; name, kind and digest are
Ray job metadata. What the server keeps of a job can be read by whoever may list jobs, so no secret goes there.
"""

import asyncio
import logging
import os
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lwddpm.cluster.settings import ray_settings
from lwddpm.config import AnyJob
from lwddpm.errors import ConfigError, JobError
from lwddpm.head.credentials import offer_token
from lwddpm.head.upload import JOB_FILE, staged

_POLL_S = 1.0
_NO_AGENT = "No available agent"  # what the server answers while the process that starts jobs is not up yet
_AGENT_WITHIN_S = 120.0
# Without these Ray starts every submitted driver at once; with them one waits until the head has memory for it.
_ONE_DRIVER = {"entrypoint_memory": 768 * 2**20, "entrypoint_resources": {"node:__internal_head__": 0.001}}
_RUN_LINE = re.compile(r"^MLflow run (?P<run_id>\w+) \((?P<url>\S+)\)$", re.MULTILINE)
_NAME, _DIGEST, _KIND = "lwddpm.name", "lwddpm.digest", "lwddpm.kind"


@dataclass(frozen=True)
class Submission:
    """One job on the server. `state` is Ray's: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""

    id: str
    name: str | None
    kind: str | None
    digest: str | None
    state: str
    message: str
    started: datetime | None
    seconds: float | None
    exit_code: int | None

    @property
    def ended(self) -> bool:
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"started": self.started.isoformat() if self.started else None}


class JobServer:
    """A client of one job server, which shows the user's token where there is one.

    Args:
        address: such as http://HOST:8265; default: RAY_API_SERVER_ADDRESS, else the head that runs on this machine.

    Raises:
        ConfigError: nobody answers, the token is refused, or there is no address.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = _address(address)
        offer_token()
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):  # log every request
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            # Ray prefers this variable, should the user have set it, to the argument
            with ray_settings({"RAY_API_SERVER_ADDRESS": self.address}, logging.ERROR):
                self.client = JobSubmissionClient(self.address)
        except AuthenticationError as error:
            raise ConfigError(
                f"--address {self.address}: the token is missing or wrong ({str(error).splitlines()[0]}); put the "
                "cluster's token into ~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
            ) from None
        except (ConnectionError, RuntimeError, OSError) as error:
            raise ConfigError(
                f"--address {self.address}: no Ray job server answers there ({str(error).splitlines()[0]}); start one "
                "with lwddpm up, or give the http address of the cluster's dashboard"
            ) from None

    def submit(
        self, job: AnyJob, *, fresh: bool = False, storage: str | None = None, commit: str | None = None
    ) -> tuple[Submission, bool]:
        """Submit a validated job, or find that it runs already.

        Args:
            fresh: as of `lwddpm run`.
            storage: folder on the nodes where the job's relative paths start; default: their LWDDPM_STORAGE.
            commit: of the code that is uploaded, recorded in the run.

        Returns:
            The submission, and whether it was begun now.

        Raises:
            ConfigError: another job of that name is running, or the upload is refused.
        """
        digest = job.digest()
        earlier = [submission for submission in self.jobs() if submission.name == job.name]
        for submission in earlier:
            if submission.ended:
                continue
            if submission.digest != digest:
                raise ConfigError(
                    f"name: a different job called {job.name} is running there ({submission.id}); stop it with "
                    f"lwddpm jobs stop {submission.id}, or give this one another name"
                )
            return submission, False
        # The attempt is a part of the id: of two who submit at the same time, one is refused.
        submission_id = f"{job.name}-{digest}-{sum(submission.digest == digest for submission in earlier) + 1}"
        verb = f"run {JOB_FILE} --address auto --directory {_folder(storage)}{' --fresh' if fresh else ''}"
        metadata = {_NAME: job.name, _DIGEST: digest, _KIND: job.kind}
        with staged(job) as folder:
            try:
                self._start(verb, folder, commit, submission_id=submission_id, metadata=metadata, **_ONE_DRIVER)
            except RuntimeError as error:
                if not any(submission.id == submission_id for submission in self.jobs()):
                    raise JobError(f"the job server refused the job: {error}") from None
                return self.find(submission_id), False
        return self.find(submission_id), True

    def examine(self, storage: str | None = None) -> str:
        """Start `lwddpm doctor` on the cluster; returns its submission id."""
        with staged(None) as folder:
            return self._start(f"doctor --address auto --directory {_folder(storage)} --json", folder, None)

    def _start(self, verb: str, folder: Path, commit: str | None, **options: Any) -> str:
        variables = {"PYTHONPATH": "platform", "LWDDPM_COMMIT": commit or ""}
        environment = {"working_dir": str(folder), "env_vars": variables}
        deadline = time.monotonic() + _AGENT_WITHIN_S
        while True:
            try:
                command = f"python -m lwddpm {verb}"
                with ray_settings({}, logging.ERROR):
                    return str(self.client.submit_job(entrypoint=command, runtime_env=environment, **options))
            except RuntimeError as error:
                if _NO_AGENT not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)

    def jobs(self) -> list[Submission]:
        """All jobs that the server knows, newest first."""
        submissions = [_submission(details) for details in self.client.list_jobs() if details.submission_id]
        not_started = datetime.max.replace(tzinfo=UTC)
        return sorted(submissions, key=lambda submission: submission.started or not_started, reverse=True)

    def find(self, reference: str) -> Submission:
        """A job by its submission id, or the newest by its name.

        Raises:
            ConfigError: there is none; names those there are.
        """
        jobs = self.jobs()
        for job in jobs:
            if reference in (job.id, job.name):
                return job
        known = ", ".join(job.id for job in jobs[:5]) or "none"
        raise ConfigError(f"{reference}: no such job at {self.address}; newest there: {known}")

    def _state(self, submission_id: str) -> Submission:
        """One job, without asking for all."""
        return _submission(self.client.get_job_info(submission_id))

    def logs(self, submission_id: str) -> str:
        return str(self.client.get_job_logs(submission_id))

    def follow(self, submission_id: str) -> Iterator[str]:
        """The log as it grows, until the job ends."""
        texts = self.client.tail_job_logs(submission_id)

        async def following() -> str | None:
            return await anext(texts, None)

        with asyncio.Runner() as loop:
            while (text := loop.run(following())) is not None:
                yield text

    def run_of(self, submission_id: str, timeout_s: float = 0) -> dict[str, str] | None:
        """`run_id` and `url` of the job's MLflow run, waiting for it to be opened; None where there is none."""
        deadline = time.monotonic() + timeout_s
        while True:
            ended = self._state(submission_id).ended
            if line := _RUN_LINE.search(self.logs(submission_id)):
                return line.groupdict()
            if ended or time.monotonic() > deadline:
                return None
            time.sleep(_POLL_S)

    def wait(self, submission_id: str, timeout_s: float | None = None) -> Submission:
        """Wait until the job has ended.

        Raises:
            JobError: it has not ended after `timeout_s` seconds.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (submission := self._state(submission_id)).ended:
            if deadline is not None and time.monotonic() > deadline:
                raise JobError(f"{submission_id} has not ended within {timeout_s:.0f} s; look at its logs")
            time.sleep(_POLL_S)
        return submission

    def stop(self, submission_id: str, timeout_s: float = 150) -> Submission:
        """Ask a job to stop, and wait while it saves a checkpoint and ends its MLflow run as KILLED."""
        submission = self.find(submission_id)
        if submission.ended:
            return submission
        self.client.stop_job(submission.id)
        return self.wait(submission.id, timeout_s)

    def stop_all(self, timeout_s: float = 150) -> list[str]:
        """Stop every job that has not ended; returns their ids."""
        running = [submission.id for submission in self.jobs() if not submission.ended]
        for submission_id in running:
            self.client.stop_job(submission_id)
        for submission_id in running:
            self.wait(submission_id, timeout_s)
        return running


def _address(given: str | None) -> str:
    from lwddpm.head.head import Head

    address = given or os.environ.get("RAY_API_SERVER_ADDRESS")
    if address is None and (head := Head.running()) is not None:
        address = head.ray_url
    if address is None:
        raise ConfigError(
            "--address: which job server? give its http address, set RAY_API_SERVER_ADDRESS, or start a head here "
            "with lwddpm up"
        )
    if not re.match(r"https?://[^/]+", address):
        raise ConfigError(
            f"--address: must be the http address of a Ray dashboard, such as http://127.0.0.1:8265, got {address}"
        )
    return address.rstrip("/")


def _folder(storage: str | None) -> str:
    """The working folder of a submitted job, as a word for the shell on the head."""
    return shlex.quote(storage) if storage else '"$LWDDPM_STORAGE"'


def _submission(details: Any) -> Submission:
    metadata = details.metadata or {}
    started = datetime.fromtimestamp(details.start_time / 1000, UTC) if details.start_time else None
    end = details.end_time / 1000 if details.end_time else time.time()
    return Submission(
        id=details.submission_id,
        name=metadata.get(_NAME),
        kind=metadata.get(_KIND),
        digest=metadata.get(_DIGEST),
        state=str(details.status.value),
        message=details.message or "",
        started=started,
        seconds=round(end - started.timestamp(), 1) if started else None,
        exit_code=details.driver_exit_code,
    )
