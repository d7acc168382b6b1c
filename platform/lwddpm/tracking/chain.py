"""A log that cannot be edited unnoticed: each entry has the hash of the one before, and may be signed (Ed25519).

An entry is a JSON object:

    number      1, 2, 3, ...
    previous    hash of the entry before; 64 zeros for the first
    at, by      when (UTC, ISO 8601) and who says so
    kind        promotion, gate, override, approval, audit, policy, ...
    model       name of the registered model; version: its number, or null
    data        what the kind has to say
    key         first 16 hex digits of the SHA-256 of the signer's public key, or null
    hash        SHA-256 of the canonical JSON of all the above
    signature   Ed25519 of `lwddpm log entry HASH`, base64, or null

Canonical JSON (as RFC 8785 for what entries hold): sorted keys, no spaces, UTF-8, no NaN.
"""

import base64
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from lwddpm.errors import ConfigError

FIRST = "0" * 64
SIGNING_KEY = "LWDDPM_SIGNING_KEY"
Entry = dict[str, Any]
_HASHED = ("number", "previous", "at", "by", "kind", "model", "version", "data", "key")


def canonical(value: Any) -> str:
    """JSON that is the same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hash_of(entry: Mapping[str, Any]) -> str:
    """What an entry's `hash` must be."""
    return hashlib.sha256(canonical({name: entry.get(name) for name in _HASHED}).encode()).hexdigest()


def next_entry(
    before: Entry | None,
    kind: str,
    model: str,
    version: int | None,
    by: str,
    data: Mapping[str, Any],
    signer: Ed25519PrivateKey | None = None,
) -> Entry:
    """The entry after `before`, or the first."""
    entry: Entry = {
        "number": 1 if before is None else before["number"] + 1,
        "previous": FIRST if before is None else before["hash"],
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "by": by,
        "kind": kind,
        "model": model,
        "version": version,
        "data": dict(data),
        "key": None if signer is None else fingerprint(signer.public_key()),
    }
    entry["hash"] = hash_of(entry)
    entry["signature"] = None if signer is None else base64.b64encode(signer.sign(_signed(entry["hash"]))).decode()
    return entry


def problems(entries: Sequence[Any], model: str, keys: Sequence[Ed25519PublicKey] = ()) -> list[str]:
    """Every entry that was changed, removed, reordered or put in, by its number; empty: the log is whole.

    What was cut off at the end leaves a whole log: that is what anchors elsewhere are for.

    Args:
        entries: in the order of the log.
        keys: of the signers; with any, all entries from the first signed one on must be signed by one of them. Entries
            before that one cannot have been changed since, because the signed one has their hash.
    """
    found: list[str] = []
    previous, number, signing = FIRST, 0, False
    by_key = {fingerprint(key): key for key in keys}
    for entry in entries:
        number += 1
        if not isinstance(entry, dict) or not isinstance(entry.get("number"), int):
            found.append(f"entry {number} is not an entry of a log")
            return found
        if entry["number"] != number:
            what = "is missing" if entry["number"] > number else "is out of order, or there twice"
            found.append(f"entry {min(number, entry['number'])} {what}: entry {entry['number']} stands in its place")
            number = entry["number"]
        elif entry.get("previous") != previous:
            found.append(f"entry {number} does not follow the one before it: one of the two was replaced")
        try:
            changed = entry.get("hash") != hash_of(entry)
        except (ValueError, TypeError):
            changed = True
        if changed:
            found.append(f"entry {number} was changed: its content does not have its hash")
        if entry.get("model") != model:
            found.append(f"entry {number} is of the log of {entry.get('model')}, not of {model}")
        previous = str(entry.get("hash"))
        signing |= entry.get("signature") is not None
        if keys and signing and (why := _unsigned(entry, by_key)):
            found.append(f"entry {number} {why}")
    if keys and not signing:
        found.append("no entry is signed")
    return found


def _unsigned(entry: Entry, keys: Mapping[str, Ed25519PublicKey]) -> str:
    """Why the signature of an entry does not hold; empty: it does."""
    if entry.get("signature") is None:
        return "is not signed, and an earlier one is"
    key = keys.get(str(entry.get("key")))
    if key is None:
        return f"is signed with another key ({entry.get('key')})"
    try:
        key.verify(base64.b64decode(str(entry["signature"]), validate=True), _signed(str(entry.get("hash"))))
    except (InvalidSignature, ValueError):
        return "has a signature that is not of its key"
    return ""


def _signed(entry_hash: str) -> bytes:
    return f"lwddpm log entry {entry_hash}".encode()


def fingerprint(key: Ed25519PublicKey) -> str:
    """16 hex digits by which entries name a key."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def signing_key() -> Ed25519PrivateKey | None:
    """The key in LWDDPM_SIGNING_KEY, a PEM file's path or its text; None where the variable is not set.

    Raises:
        ConfigError: no Ed25519 key without a passphrase, or a file that others can read.
    """
    given = os.environ.get(SIGNING_KEY, "").strip()
    if not given:
        return None
    remedy = "make one: openssl genpkey -algorithm ed25519 -out FILE"
    if given.startswith("-----BEGIN"):
        text = given.encode()
    else:
        path = Path(given).expanduser()
        try:
            text = path.read_bytes()
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as error:
            raise ConfigError(f"{SIGNING_KEY}: {path}: cannot be read ({error.strerror}); {remedy}") from None
        if mode & 0o077:
            raise ConfigError(f"{SIGNING_KEY}: {path}: must be readable by you alone, has mode {mode:o}; chmod 600 it")
    try:
        key = load_pem_private_key(text, None)
    except (ValueError, TypeError):
        raise ConfigError(f"{SIGNING_KEY}: must be a PEM private key without a passphrase; {remedy}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{SIGNING_KEY}: must be an Ed25519 key; {remedy}")
    return key


def public_key(path: str) -> Ed25519PublicKey:
    """The public key in a PEM file.

    Raises:
        ConfigError: there is none.
    """
    remedy = "write one: openssl pkey -in KEY -pubout -out FILE"
    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"--public-key: {path}: cannot be read ({error.strerror}); {remedy}") from None
    except ValueError:
        raise ConfigError(f"--public-key: {path}: must be a PEM public key; {remedy}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"--public-key: {path}: must be an Ed25519 key; {remedy}")
    return key
