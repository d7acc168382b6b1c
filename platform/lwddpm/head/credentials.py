"""The two secrets of a head, Ray's token and MLflow's password: made here, in files that only their owner can read."""

import os
import secrets
from pathlib import Path

from lwddpm.errors import ConfigError
from lwddpm.files import write_private, write_private_once

_SHORTEST_PASSWORD = 12  # MLflow's own rule
_WELL_KNOWN_PASSWORDS = ("password1234", "adminadminadmin")
_SHORTEST_TOKEN = 32


def offer_token() -> None:
    """Have job server clients of this process show the user's token, where there is one; call before importing Ray.

    Not for drivers: in token mode one loses its actors on a cluster that runs without tokens, while the token file may
    be there only because Ray itself has made it.
    """
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if named or (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def mlflow_password(file: Path) -> str:
    """MLflow's password: from MLFLOW_AUTH_ADMIN_PASSWORD, else that of an earlier `up`, else a new one.

    Raises:
        ConfigError: it is short or well known.
    """
    given = os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD")
    if given is None and file.exists():
        return file.read_text()
    password = secrets.token_urlsafe(24) if given is None else given
    if len(password) < _SHORTEST_PASSWORD or password in _WELL_KNOWN_PASSWORDS:
        raise ConfigError(
            f"MLFLOW_AUTH_ADMIN_PASSWORD: must have {_SHORTEST_PASSWORD} characters or more and not be a well-known "
            f"one, got {len(password)} characters; unset it to have one generated"
        )
    if file.exists() and file.read_text() != password:
        raise ConfigError(
            f"MLFLOW_AUTH_ADMIN_PASSWORD: differs from {file}, with which MLflow's users were made; unset it"
        )
    write_private(file, password)
    return password


def ray_token(file: Path) -> str:
    """Ray's token: the one there is, else a new one; readable by its owner alone.

    Raises:
        ConfigError: it is so short that it could be guessed, or token auth is switched off.
    """
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        raise ConfigError(f"RAY_AUTH_MODE: must be token for a head, got {os.environ['RAY_AUTH_MODE']}; unset it")
    if not file.exists():
        write_private_once(file, secrets.token_hex(32))
    file.chmod(0o600)
    token = file.read_text().strip()
    if len(token) < _SHORTEST_TOKEN:
        raise ConfigError(
            f"{file}: a token must have {_SHORTEST_TOKEN} characters or more, got {len(token)}; remove the file to "
            "have one generated"
        )
    return token
