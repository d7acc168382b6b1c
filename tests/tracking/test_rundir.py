import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lwddpm.config import TrainJob
from lwddpm.errors import ConfigError, JobError
from lwddpm.tracking.rundir import (
    check_writable,
    claim_run_folder,
    clear_folder,
    lock_folder,
    read_job,
    read_run_id,
    run_folder,
    write_job,
    write_run_id,
)


def test_one_process_at_a_time_has_a_folder_and_a_killed_one_has_none(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from lwddpm.tracking.rundir import lock_folder\n"
        "with lock_folder(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(JobError, match="running already"), lock_folder(tmp_path / "run"):
            pass
        holder.kill()
        holder.wait()
    with lock_folder(tmp_path / "run"):
        pass


def test_an_error_of_the_job_is_not_taken_for_a_lock_that_is_held(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), lock_folder(tmp_path):
        raise BlockingIOError("of a socket")


def test_a_cleared_folder_stays_locked(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        (tmp_path / "checkpoints" / "step_1").mkdir(parents=True)
        (tmp_path / "result.json").write_text("{}")
        clear_folder(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        with pytest.raises(JobError, match="running already"), lock_folder(tmp_path):
            pass
    clear_folder(tmp_path / "not there")


def test_the_run_of_another_store_does_not_count(tmp_path: Path) -> None:
    assert read_run_id(tmp_path, "http://ada:secret@tracking:5000") is None
    write_run_id(tmp_path, "a" * 32, "http://ada:secret@tracking:5000")
    assert "secret" not in (tmp_path / "run.json").read_text()
    assert read_run_id(tmp_path, "http://bob:other@tracking:5000") == "a" * 32
    assert read_run_id(tmp_path, "sqlite:///mlflow.db") is None


def test_a_run_folder_keeps_its_job_without_passwords(tiny_job: Callable[..., TrainJob], tmp_path: Path) -> None:
    job = tiny_job("tracking.uri=http://ada:secret@tracking:5000", "training.lr=1e-5")
    assert read_job(tmp_path) is None
    write_job(tmp_path, job)
    assert "secret" not in (tmp_path / "job.yaml").read_text()
    kept = read_job(tmp_path)
    assert kept is not None
    assert kept.training_settings() == job.training_settings()
    (tmp_path / "job.yaml").write_text("warmth: [0.5")
    assert read_job(tmp_path) is None


def test_a_folder_of_an_earlier_version_is_not_renamed_while_it_is_used(tiny_job: Callable[..., TrainJob]) -> None:
    job = tiny_job()
    earlier = run_folder(job).with_name(f"{job.name}-{job.earlier_training_digest()}")
    with lock_folder(earlier), pytest.raises(JobError, match="running already"):
        claim_run_folder(job)
    (earlier / "here").touch()
    assert (claim_run_folder(job) / "here").exists()


def test_an_output_that_cannot_be_written_names_its_setting(tmp_path: Path) -> None:
    check_writable(tmp_path / "not" / "yet", "output")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output: must be a writable folder.*choose another output"):
        check_writable(tmp_path / "file" / "deep", "output")
