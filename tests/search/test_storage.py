"""Where studies are kept."""

from pathlib import Path

import pytest

from lwddpm.errors import ConfigError
from lwddpm.search import storage
from lwddpm.search.definition import Definition, open_study
from lwddpm.search.storage import check_storage, delete_study, file_system, find_study


def test_reading_a_study_creates_nothing(tmp_path: Path, url: str, definition: Definition) -> None:
    with pytest.raises(ConfigError, match="no such study"):
        find_study(url, "none")
    assert list(tmp_path.iterdir()) == []
    open_study(url, "mine", definition)
    with pytest.raises(ConfigError, match="known: mine"):
        find_study(url, "yours")
    delete_study(url, "mine")
    delete_study(url, "mine")
    with pytest.raises(ConfigError, match="it has none"):
        find_study(url, "mine")


def test_a_storage_that_would_break_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_storage(f"sqlite:///{tmp_path}/optuna.db")
    check_storage("postgresql+psycopg://someone@host/studies")
    with pytest.raises(ConfigError, match="must begin with sqlite"):
        check_storage("redis://host")
    with pytest.raises(ConfigError, match="must exist"):
        check_storage(f"sqlite:///{tmp_path}/none/optuna.db")
    monkeypatch.setattr(storage, "file_system", lambda folder: "nfs4")
    with pytest.raises(ConfigError, match="local disk, or PostgreSQL"):
        check_storage(f"sqlite:///{tmp_path}/optuna.db")


def test_the_file_system_of_a_folder_is_that_of_its_deepest_mount() -> None:
    assert file_system(Path("/proc/self")) == "proc"
