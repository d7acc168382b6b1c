"""The secrets of a head: strong, private, kept."""

import stat
from pathlib import Path

import pytest

from lwddpm.errors import ConfigError
from lwddpm.head.credentials import mlflow_password, ray_token


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_AUTH_ADMIN_PASSWORD", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("make", [mlflow_password, ray_token])
def test_a_secret_is_made_once_and_for_its_owner_alone(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first, other = make(tmp_path / "deep" / "a"), make(tmp_path / "b")
    assert make(tmp_path / "deep" / "a") == first != other
    assert len(first) >= 32
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600


def test_a_readable_token_is_made_private(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("f" * 64 + "\n")
    file.chmod(0o644)
    assert ray_token(file) == "f" * 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_token_that_could_be_guessed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("letmein")
    with pytest.raises(ConfigError, match="32 characters or more, got 7"):
        ray_token(tmp_path / "token")


def test_no_head_without_token_auth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match="must be token"):
        ray_token(tmp_path / "token")
    assert not (tmp_path / "token").exists()


@pytest.mark.parametrize("weak", ["", "short", "password1234"])
def test_a_weak_password_is_refused_and_not_repeated(
    weak: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", weak)
    with pytest.raises(ConfigError, match="12 characters or more") as refusal:
        mlflow_password(tmp_path / "password")
    assert not weak or weak not in str(refusal.value)
    assert not (tmp_path / "password").exists()


def test_a_given_password_is_kept_and_cannot_silently_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "a long enough one")
    assert mlflow_password(tmp_path / "password") == "a long enough one"
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "another long one")
    with pytest.raises(ConfigError, match="differs"):
        mlflow_password(tmp_path / "password")
