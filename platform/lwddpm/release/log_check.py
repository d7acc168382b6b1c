"""Whether the log of a registered model is whole: in the store, in an export, and the one as it continues the other."""

import json
from pathlib import Path
from typing import Any

from lwddpm.errors import ConfigError
from lwddpm.tracking import registry_log
from lwddpm.tracking.chain import problems, public_key

_LARGEST = 64 * 2**20


def check_log(name: str, file: Path | None, key_files: list[str]) -> dict[str, Any]:
    """Find every entry that was changed, removed or reordered.

    Args:
        name: of the registered model.
        file: an export, of whatever age; None: only the log in the store.
        key_files: PEM files of public keys.

    Returns:
        `whole`, `problems` (the export's begin with its name) and how many entries there are and are signed.

    Raises:
        ConfigError: no such model, or a file that cannot be read.
    """
    keys = [public_key(path) for path in key_files]
    if file is not None:
        exported = _exported(file)
        found = [f"{file}: {problem}" for problem in problems(exported, name, keys)]
        if not registry_log.is_registered(name):
            return _result(name, exported, found, compared=False)
    stored = registry_log.of_registered(name)
    found_here = problems(stored, name, keys if stored else ()) + registry_log.anchor_problems(name)
    if file is None:
        return _result(name, stored, found_here)
    found += found_here
    for number, (one, other) in enumerate(zip(exported, stored, strict=False), 1):
        if one != other:
            found.append(f"entry {number} in the store is not that of {file}: the log was rewritten since the export")
            break
    if len(stored) < len(exported):
        found.append(f"entry {len(stored) + 1} of {file} is missing in the store: the log was cut off")
    return _result(name, stored, found, compared=True)


def _result(name: str, entries: list[Any], found: list[str], compared: bool | None = None) -> dict[str, Any]:
    signed = sum(isinstance(entry, dict) and entry.get("signature") is not None for entry in entries)
    result = {"model": name, "whole": not found, "entries": len(entries), "signed": signed, "problems": found}
    head = entries[-1].get("hash") if entries and isinstance(entries[-1], dict) else None
    return result | {"head": head} | ({} if compared is None else {"compared_with_store": compared})


def _exported(file: Path) -> list[Any]:
    try:
        if file.stat().st_size > _LARGEST:
            raise ConfigError(f"{file}: must have at most {_LARGEST >> 20} MiB")
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{file}: cannot be read ({reason}); export one: lwddpm models log NAME --json") from None
    entries = []
    for line in filter(str.strip, lines):
        try:
            entries.append(json.loads(line))
        except ValueError:
            entries.append({"text": line})  # is told as an entry that is none
    if not entries:
        raise ConfigError(f"{file}: must hold the entries of a log as JSON lines, has none")
    return entries
