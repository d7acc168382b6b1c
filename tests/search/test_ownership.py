"""Two users, each with a folder of their own, and one storage: SQLite; PostgreSQL has the same in its own file."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from lwddpm.errors import ConfigError, JobError
from lwddpm.files import write_json
from lwddpm.search.definition import Definition, open_study
from lwddpm.search.ownership import check_made_here, folder_id, lock_study
from lwddpm.search.storage import delete_study
from lwddpm.search.trials import RUN_ID

HOLD = """
import sys, time
from lwddpm.search.ownership import lock_study
with lock_study(sys.argv[1], sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs the study `s`."""
    with subprocess.Popen([sys.executable, "-c", HOLD, url, "s"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_study_that_another_process_runs_is_left_to_it(url: str, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(JobError, match=r"study s in .* another process runs it; wait for it"), lock_study(url, "s"):
        pass
    with lock_study(url, "another"):
        pass
    holder.kill()
    holder.wait()
    with lock_study(url, "s"):  # a crash leaves no lock
        pass
    assert not list(Path(url.removeprefix("sqlite:///")).parent.glob(".optuna.db-*"))


def test_only_the_folder_that_made_a_study_may_start_it_over(url: str, definition: Definition, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    study = open_study(url, "s", definition, made_by=folder_id(theirs))
    study.ask()  # RUNNING
    command = f"optuna delete-study --study-name s --storage {url}"
    with pytest.raises(ConfigError, match=r"was not made from .*mine") as refusal:
        check_made_here(url, "s", mine)
    assert str(refusal.value).endswith(command)
    check_made_here(url, "s", theirs)
    open_study(url, "s", definition, made_by=folder_id(mine))  # to continue it makes it nobody else's
    with pytest.raises(ConfigError, match="was not made from"):
        check_made_here(url, "s", mine)
    check_made_here(url, "absent", mine)


def test_the_command_that_is_told_deletes_the_study(url: str, definition: Definition, tmp_path: Path) -> None:
    open_study(url, "s", definition, made_by="theirs")
    with pytest.raises(ConfigError) as refusal:
        check_made_here(url, "s", tmp_path)
    program, *arguments = str(refusal.value).rpartition("by hand: ")[2].split()
    subprocess.run([Path(sys.executable).with_name(program), *arguments], check=True, capture_output=True)
    check_made_here(url, "s", tmp_path)
    assert optuna.get_all_study_names(url) == []


def test_a_study_of_an_earlier_version_is_known_by_the_runs_of_its_trials(url: str, tmp_path: Path) -> None:
    study = optuna.create_study(study_name="s", storage=url)
    study.ask().set_user_attr(RUN_ID, "run-0")
    for folder, run_id in (("mine", "run-0"), ("theirs", "run-1")):
        write_json(tmp_path / folder / "trials" / "s-0000-abc" / "run.json", {"run_id": run_id})
    check_made_here(url, "s", tmp_path / "mine")
    with pytest.raises(ConfigError, match="was not made from"):
        check_made_here(url, "s", tmp_path / "theirs")
    delete_study(url, "s")
    optuna.create_study(study_name="s", storage=url)  # of somebody's own script
    with pytest.raises(ConfigError, match="was not made from"):
        check_made_here(url, "s", tmp_path / "mine")
