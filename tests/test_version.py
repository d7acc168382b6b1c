import subprocess
from pathlib import Path

import pytest

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
