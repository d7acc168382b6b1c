"""The folder of one training run: what is done, what is not, and who is at it.

<output>/<name>-<digest>/
    run.json           MLflow run id and tracking URI
    outbox/            reports that MLflow does not have yet
    metrics.jsonl      every number that was reported
    checkpoints/ snapshots/ model/
    evaluation.json    metrics of the final model
    samples.npy        the slices that they were measured on
    result.json        the finished job's summary; its presence means done
"""

import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lwddpm.config import CompareJob, SearchJob, TrainJob
from lwddpm.errors import ConfigError, JobError
from lwddpm.files import write_whole
from lwddpm.tracking.store import public


def run_folder(job: TrainJob) -> Path:
    """Absolute: workers have working folders of their own."""
    return Path(job.output).absolute() / f"{job.name}-{job.training_digest()}"


def search_folder(job: SearchJob) -> Path:
    """Of a whole search; its trials have run folders beneath."""
    return Path(job.output).absolute() / job.name


def compare_folder(job: CompareJob) -> Path:
    """Of a whole comparison; its trainings have run folders beside it."""
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
def occupied(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the operating system lets go when it dies.

    Raises:
        JobError: another process is running the same job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobError(
                f"{folder}: this job is running already; wait for it, or give the job another name"
            ) from None
        yield


def clear(folder: Path) -> None:
    """Forget an earlier attempt; the lock stays held."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, or None where there is no such file."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write whole or not at all."""
    write_whole(path, json.dumps(value, indent=2))


def kept_run(folder: Path, uri: str) -> str | None:
    """Id of the MLflow run that an earlier attempt wrote to, or None; a run of another store does not count."""
    earlier = read_json(folder / "run.json") or {}
    return earlier.get("run_id") if earlier.get("tracking_uri") == public(uri) else None


def keep_run(folder: Path, run_id: str, uri: str) -> None:
    """Have the next attempt write to this run."""
    write_json(folder / "run.json", {"run_id": run_id, "tracking_uri": public(uri)})
