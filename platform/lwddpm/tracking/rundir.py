"""The folder of one training run: what is done, what is not, and which process works there.

<output>/<name>-<digest>/
    job.yaml           the job's settings, of the last attempt
    run.json           MLflow run id and tracking URI
    outbox/            reports that MLflow does not have yet
    metrics.jsonl      every number that was reported
    checkpoints/ snapshots/ model/
    evaluation.json    metrics of the final model
    samples.npy        the slices that they were measured on
    result.json        the finished job's summary; its presence means done
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml
from pydantic import ValidationError

from lwddpm.addresses import public
from lwddpm.config import AnyJob, CompareJob, SearchJob, TradeoffJob, TrainJob
from lwddpm.errors import ConfigError, JobError
from lwddpm.files import locked, read_json, write_json, write_whole
from lwddpm.progress import say
from lwddpm.tracking.store import tracking_uri

LOCK = ".lock"
_JOB = "job.yaml"


def run_folder(job: TrainJob) -> Path:
    """Absolute: workers have working folders of their own."""
    return Path(job.output).absolute() / f"{job.name}-{job.training_digest()}"


def claim_run_folder(job: TrainJob) -> Path:
    """`run_folder`; one that 0.1.0 has named by its digest of the same job gets its present name.

    Raises:
        JobError: a process of that version is running the job.
    """
    folder = run_folder(job)
    earlier = folder.with_name(f"{job.name}-{job.earlier_training_digest()}")
    if earlier.exists() and not folder.exists():
        with lock_folder(earlier):
            earlier.rename(folder)
        say(f"{earlier}: of an earlier version, is now {folder.name}")
    return folder


def job_yaml(job: AnyJob) -> str:
    """A job's settings as a job file, without passwords."""
    settings = job.public().model_dump(mode="json")
    settings["tracking"]["uri"] = public(tracking_uri(job.tracking))
    return yaml.safe_dump(settings, sort_keys=False)


def write_job(folder: Path, job: TrainJob) -> None:
    """Keep the settings of this attempt with what it makes."""
    write_whole(folder / _JOB, job_yaml(job))


def read_job(folder: Path) -> TrainJob | None:
    """The job of a run folder; None where there is none that this version understands (0.1.0 kept none)."""
    try:
        return TrainJob.model_validate(yaml.safe_load((folder / _JOB).read_text(encoding="utf-8")))
    except (OSError, ValidationError, yaml.YAMLError):
        return None


def search_folder(job: SearchJob) -> Path:
    """Of a whole search; its trials have run folders beneath."""
    return Path(job.output).absolute() / job.name


def compare_folder(job: CompareJob) -> Path:
    """Of a whole comparison; its trainings have run folders beside it."""
    return Path(job.output).absolute() / job.name


def tradeoff_folder(job: TradeoffJob) -> Path:
    """Of a whole trade-off."""
    return Path(job.output).absolute() / job.name


def check_writable(folder: Path, setting: str) -> None:
    """Refuse an output folder that cannot be written; creates nothing that stays.

    Raises:
        ConfigError: names the setting and the folder.
    """
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):  # permission bits say too little: read-only mounts, full disks
            pass
    except OSError as error:
        raise ConfigError(
            f"{setting}: must be a writable folder, got {folder} ({error.strerror}); choose another {setting}"
        ) from None


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Let no second process run the job of this folder; the operating system frees the lock when its holder dies.

    Raises:
        JobError: another process is running the same job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            held = stack.enter_context(locked(folder / LOCK, wait=False))
        except BlockingIOError:
            raise JobError(
                f"{folder}: this job is running already; wait for it, or give the job another name"
            ) from None
        if not held:
            say(f"{folder}: is on a filesystem without locks: do not run this job twice at a time")
        yield


def clear_folder(folder: Path) -> None:
    """Remove all that an earlier attempt has left in the folder, but not the lock that this process holds."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def read_run_id(folder: Path, uri: str) -> str | None:
    """Id of the MLflow run that an earlier attempt wrote to, or None; a run of another store does not count."""
    earlier = read_json(folder / "run.json") or {}
    return earlier.get("run_id") if earlier.get("tracking_uri") == public(uri) else None


def write_run_id(folder: Path, run_id: str, uri: str) -> None:
    """Have the next attempt continue this MLflow run."""
    write_json(folder / "run.json", {"run_id": run_id, "tracking_uri": public(uri)})
