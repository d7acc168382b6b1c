"""Whatever is done to a log is found, and named by its entry."""

import copy
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from lwddpm.errors import ConfigError
from lwddpm.tracking.chain import SIGNING_KEY, canonical, hash_of, next_entry, problems, public_key, signing_key

LENGTH = 6
KEY = Ed25519PrivateKey.generate()
FIELDS = ("number", "previous", "at", "by", "kind", "model", "version", "data", "key", "hash")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _log(signed_from: int | None = None, model: str = "m") -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = []
    for number in range(1, LENGTH + 1):
        signer = KEY if signed_from is not None and number >= signed_from else None
        before = log[-1] if log else None
        log.append(next_entry(before, "promotion", model, number, "Ada", {"reason": f"r{number}"}, signer))
    return log


def test_a_log_as_it_was_written_is_whole() -> None:
    assert problems(_log(), "m") == []
    assert problems([], "m") == []
    assert problems(_log(1), "m", [KEY.public_key()]) == []


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("at", range(LENGTH))
def test_any_changed_field_of_any_entry_is_named(field: str, at: int) -> None:
    log = _log()
    log[at][field] = {"number": 9, "version": 99, "data": {"reason": "other"}}.get(field, "f" * 64)
    found = problems(log, "m")
    assert any(f"entry {at + 1} " in problem for problem in found), found


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, LENGTH - 1), value=JSON)
def test_any_other_content_is_found(at: int, value: Any) -> None:
    log = _log()
    if log[at]["data"] == value:
        return
    log[at]["data"] = value
    assert any(f"entry {at + 1} was changed" in problem for problem in problems(log, "m"))


@pytest.mark.parametrize("at", range(LENGTH - 1))
def test_a_removed_entry_is_named(at: int) -> None:
    log = _log()
    del log[at]
    assert problems(log, "m")[0] == f"entry {at + 1} is missing: entry {at + 2} stands in its place"


@pytest.mark.parametrize("at", range(LENGTH - 1))
def test_two_entries_in_the_wrong_order_are_named(at: int) -> None:
    log = _log()
    log[at], log[at + 1] = log[at + 1], log[at]
    found = problems(log, "m")
    assert any(f"entry {at + 1} " in problem for problem in found)


def test_an_entry_that_is_put_in_or_given_twice_is_named() -> None:
    log = _log()
    twice = [*log[:3], copy.deepcopy(log[2]), *log[3:]]
    assert any("entry 3 " in problem for problem in problems(twice, "m"))
    forged = [*log[:3], next_entry(log[2], "promotion", "m", 9, "Eve", {}), *log[3:]]
    assert any("entry 4" in problem for problem in problems(forged, "m"))


def test_an_entry_that_was_rewritten_with_a_new_hash_does_not_fit_the_next() -> None:
    log = _log()
    log[2]["data"] = {"reason": "other"}
    log[2]["hash"] = hash_of(log[2])
    assert problems(log, "m") == ["entry 4 does not follow the one before it: one of the two was replaced"]


def test_a_log_rewritten_to_its_end_is_whole_and_signatures_tell_it() -> None:
    """What the owner of a database can do without the key, and what the key is for."""
    log, forged = _log(1), []
    for entry in log:
        reason = {"reason": "forged"} if entry["number"] == 3 else entry["data"]
        before = forged[-1] if forged else None
        forged.append(next_entry(before, entry["kind"], "m", entry["version"], entry["by"], reason))
    assert problems(forged, "m") == []
    assert problems(forged, "m", [KEY.public_key()]) == ["no entry is signed"]
    stolen = [{**one, "key": two["key"], "signature": two["signature"]} for one, two in zip(forged, log, strict=True)]
    for entry in stolen:
        entry["hash"] = hash_of(entry)
    assert any("signature that is not of its key" in problem for problem in problems(stolen, "m", [KEY.public_key()]))


def test_signing_may_begin_later_and_may_not_end() -> None:
    log = _log(3)
    assert problems(log, "m", [KEY.public_key()]) == []
    log.append(next_entry(log[-1], "promotion", "m", 7, "Ada", {}))
    assert problems(log, "m", [KEY.public_key()]) == ["entry 7 is not signed, and an earlier one is"]
    other = Ed25519PrivateKey.generate()
    found = problems(_log(1), "m", [other.public_key()])
    assert len(found) == LENGTH
    assert "entry 1 is signed with another key" in found[0]
    assert problems(_log(1), "m", [other.public_key(), KEY.public_key()]) == []


def test_the_log_of_another_model_is_told() -> None:
    assert "entry 1 is of the log of other, not of m" in problems(_log(model="other"), "m")


@pytest.mark.parametrize("entry", [None, 3, "text", [], {}, {"number": "1"}, {"number": 1, "data": float("nan")}])
def test_what_is_no_entry_is_told(entry: Any) -> None:
    assert problems([entry], "m")[0].startswith("entry 1 ")


def test_canonical_json_is_one_text_and_has_no_nan() -> None:
    assert canonical({"b": 1, "a": "é"}) == '{"a":"é","b":1}'
    with pytest.raises(ValueError, match=r"NaN|nan|Out of range"):
        canonical({"a": float("nan")})


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_the_key_is_a_file_of_ones_own_or_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SIGNING_KEY, raising=False)
    assert signing_key() is None
    file = tmp_path / "key.pem"
    file.write_bytes(_pem(KEY))
    monkeypatch.setenv(SIGNING_KEY, str(file))
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="readable by you alone, has mode 644; chmod 600"):
        signing_key()
    file.chmod(0o600)
    for given_key in (str(file), _pem(KEY).decode()):
        monkeypatch.setenv(SIGNING_KEY, given_key)
        found = signing_key()
        assert found is not None
        assert found.private_bytes_raw() == KEY.private_bytes_raw()
    public = tmp_path / "key.pub"
    public.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert public_key(str(public)).public_bytes_raw() == KEY.public_key().public_bytes_raw()


@pytest.mark.parametrize("text", ["/no/such/key", "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----"])
def test_what_is_no_key_is_refused_without_showing_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIGNING_KEY, text)
    with pytest.raises(ConfigError, match="openssl genpkey -algorithm ed25519") as refused:
        signing_key()
    assert "BEGIN" not in str(refused.value)
