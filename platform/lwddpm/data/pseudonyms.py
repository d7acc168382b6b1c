"""Whom slices show, as keyed hashes: the same person has the same one, and without the key nobody finds the name.

HMAC-SHA256 (RFC 2104), because a plain hash of a short id is found by trying all ids.
"""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from lwddpm.config import DataConfig
from lwddpm.data.manifest import NotTaken
from lwddpm.data.sources import PART, Source
from lwddpm.errors import ConfigError
from lwddpm.files import state_folder, write_private_once

VARIABLE = "LWDDPM_SUBJECT_KEY"
LEAST_CHARACTERS = 16
DIGITS = 16  # hex: among a million files, two share one with a probability of 3e-8


@dataclass(frozen=True)
class Pseudonyms:
    """Replaces subjects and names of slices where a key is given; without one they stay as they are."""

    key: bytes | None = None

    def subject(self, subject_id: str | None) -> str | None:
        return subject_id if self.key is None or subject_id is None else self._hash("subject", subject_id)

    def name(self, name: str, subject_id: str | None) -> str:
        """Of a file, volume or slice: `subject/file//slice`, of which the first two are hashes."""
        if self.key is None:
            return name
        file, separator, part = name.partition(PART)
        hashed = self.file(file)
        return (
            f"{self._hash('subject', subject_id)}/{hashed}{separator}{part}"
            if subject_id
            else hashed + separator + part
        )

    def file(self, file: str) -> str:
        """Of a file, by its path below the source; alone, without its subject."""
        return file if self.key is None else self._hash("file", file)

    def not_taken(self, source: Source) -> NotTaken:
        """What a source does not take, without the names of its files."""
        not_taken = source.not_taken()
        listed = [
            file.model_copy(update={"source": self.name(file.source, source.subject_id(file.source))})
            for file in not_taken.listed
        ]
        return not_taken.model_copy(update={"listed": tuple(sorted(listed, key=lambda file: file.source))})

    def _hash(self, what: str, text: str) -> str:
        assert self.key is not None
        content = f"{what}\0{text}".encode(errors="surrogateescape")
        return hmac.new(self.key, content, hashlib.sha256).hexdigest()[:DIGITS]


def pseudonyms_of(data: DataConfig) -> Pseudonyms:
    """What is kept of the names of a job's source: volumes are named by hashes unless the job says otherwise.

    The key is LWDDPM_SUBJECT_KEY or, where that is not set, a private file that is made at the first use.

    Raises:
        ConfigError: the key is too short to keep a secret, or cannot be read or written.
    """
    return Pseudonyms(_key() if data.reads_volumes and data.keep_subject_ids is None else None)


def key_file() -> Path:
    return state_folder() / "subject_key"


def existing_pseudonyms(file: Path | None = None) -> Pseudonyms:
    """Pseudonyms under the key that there is: of a file, else of the variable or the private file; none is made.

    Raises:
        ConfigError: the file cannot be read, or its key is too short.
    """
    there = file is not None or VARIABLE in os.environ or key_file().exists()
    return Pseudonyms(_key(file) if there else None)


def _key(named: Path | None = None) -> bytes:
    given, place = os.environ.get(VARIABLE) if named is None else None, VARIABLE
    if given is None:
        file = named or key_file()
        place = str(file)
        try:
            if named is None and not file.exists():
                write_private_once(file, secrets.token_hex(32))
            given = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a text"
            raise ConfigError(
                f"{file}: the key of subject ids cannot be kept here ({reason}); set {VARIABLE} to a secret of at "
                f"least {LEAST_CHARACTERS} characters"
            ) from None
    if len(given) < LEAST_CHARACTERS:
        raise ConfigError(
            f"{place}: must have at least {LEAST_CHARACTERS} characters, got {len(given)}: hashes under a short key "
            "can be undone; python -c 'import secrets; print(secrets.token_hex(32))' makes one"
        )
    return given.encode()
