import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lwddpm
from lwddpm import __version__
from lwddpm.version import code_version, git_commit


def test_the_code_is_known_by_version_and_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LWDDPM_COMMIT", "0123456789abcdef")
    code_version.cache_clear()
    assert code_version() == f"{__version__}+0123456789ab"
    monkeypatch.setenv("LWDDPM_COMMIT", "")
    code_version.cache_clear()
    assert code_version() == __version__
    code_version.cache_clear()


def test_outside_a_submitted_job_the_checkout_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LWDDPM_COMMIT", raising=False)
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    asked = subprocess.run(command, capture_output=True, text=True)
    assert git_commit() == (asked.stdout.strip() or None)


def test_a_copy_installed_in_another_checkout_is_not_that_checkouts_commit(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", tmp_path, *author, "commit", "--quiet", "--allow-empty", "-m", "theirs"], check=True)
    package = tmp_path / "site-packages" / "lwddpm"
    package.mkdir(parents=True)
    source = Path(lwddpm.__file__).parent
    for name in ("__init__.py", "version.py"):
        shutil.copy(source / name, package / name)
    code = "from lwddpm.version import git_commit; print(git_commit())"
    environment = {key: value for key, value in os.environ.items() if key != "LWDDPM_COMMIT"}
    environment["PYTHONPATH"] = str(package.parent)
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "None"
