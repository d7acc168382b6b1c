"""The page for a privacy officer: all of it there, nothing made up, one or two sheets of paper."""

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from lwddpm.audit.result import method_code
from lwddpm.cli import app
from lwddpm.release.dossier import CONSENT, contents, page, write_dossier
from lwddpm.release.policy import load_policy, policy_sha256, set_policy
from lwddpm.release.promotion import promote
from lwddpm.tracking import attachments, registry
from lwddpm.tracking.registry import RegisteredVersion

from .conftest import audit_content, figure

Make = Callable[..., RegisteredVersion]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = '<script>alert(1)</script>"&'


class _Text(HTMLParser):
    """What a reader sees, and whatever would load something or run."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loads: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._style = tag == "style"
        if tag in ("script", "link", "img", "iframe", "object") or any(name in ("src", "srcset") for name, _ in attrs):
            self.loads.append(tag)

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.words.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._style = False


def _read(html: str) -> str:
    reader = _Text()
    reader.feed(html)
    assert reader.loads == []
    assert "url(" not in html
    assert "http" not in re.sub(r"http-equiv", "", html)
    return " ".join(" ".join(reader.words).split())


def test_it_says_what_was_tested_by_whom_and_until_when(audited: Make, name: str, policy_file: Path) -> None:
    audited(name)
    set_policy(name, load_policy(str(policy_file)), "house rules", "Ada")
    promote(f"models:/{name}/1", "all clear", approver="Dr. Ben")
    MlflowClient().set_model_version_tag(name, "1", CONSENT, "ethics vote 12/2026")
    content = contents(registry.find_version(f"{name}/1"))
    text = _read(page(content))
    until = datetime.now(UTC) + timedelta(days=30)
    for expected in (
        f"{name} version 1",
        "passed: policy house v3",
        f"results count until {until:%Y-%m-%d}",
        "intended use tests",
        "threat model not stated",
        "consent basis ethics vote 12/2026",
        "simulated slices, of no patient",
        "copied_share (audit) at most 0.02 passed 0 (0 to 0.011, n = 1,000)",
        "copied_share 0 0 to 0.011 1,000 null 0.004",
        "controls (exact (found 1), held out (flagged 0.004))",
        "verdict: clear",
        "fd_lite0 20 19 to 21 10 600",
        "Differential privacy: the training gives no guarantee",
        "approved by Dr. Ben",
        "to champion on",
        "all clear",
        method_code(),
    ):
        assert expected in text, (expected, text)
    assert "against the policy" not in text


def test_utility_stands_by_itself_with_a_warning_of_copies(audited: Make, name: str) -> None:
    copied = {"name": "copied_share", "value": 0.0, "low": 0.0, "high": 0.011, "n": 1000}
    gain = {"name": "utility_gain_logistic", "value": -0.02, "low": -0.05, "high": 0.01, "n": 326, "what": "beside all"}
    text = _read(page(contents(audited(name, records=[copied, gain]))))
    memorisation, utility = text.index("copied_share 0 0 to 0.011"), text.index("utility_gain_logistic -0.02")
    assert memorisation < text.index("Utility: what a classifier learns") < utility
    assert "copies of training slices make any generator look useful" in text
    assert "Utility: what a classifier" not in _read(page(contents(audited(f"{name}-plain"))))


def test_without_anything_it_says_so(register: Make, name: str) -> None:
    text = _read(page(contents(register(name))))
    for expected in (
        "without a policy",
        "intended use not stated",
        "consent basis not stated",
        "No audit: none is stored with this version. Assume that the model may reproduce training slices.",
        "No evaluation: none is stored",
        "approved by nobody",
    ):
        assert expected in text, (expected, text)


def test_an_expired_one_says_so_and_the_gate_refuses(audited: Make, name: str, policy_file: Path) -> None:
    version = audited(name)
    set_policy(name, load_policy(str(policy_file)), "house rules", "Ada")
    later = contents(version, datetime.now(UTC) + timedelta(days=31))
    assert later["state"] == "expired"
    assert "This dossier has expired." in _read(page(later))
    assert later["verdict"].status == "missing"
    assert contents(version)["state"] == "passed"


def test_one_that_fails_a_rule_says_that_it_has_expired_too(
    register: Make, name: str, store: str, policy_file: Path
) -> None:
    version = register(name, figure("fd_lite0", 90.0, (89.0, 91.0), floor=10.0))
    old = (datetime.now(UTC) - timedelta(days=31)).isoformat()
    attachments.attach(version, attachments.AUDIT, audit_content(version, date=old), "auditor")
    set_policy(name, load_policy(str(policy_file)), "house rules", "Ada")
    day = datetime.now(UTC) - timedelta(days=1)
    text = _read(page(contents(version)))
    assert f"failed: policy house v3 ({policy_sha256(load_policy(str(policy_file)))[:8]}), results expired on" in text
    assert "This dossier has expired." in text
    words = ["models", "promote", f"models:/{name}/1", "--reason", "x", "--tracking-uri", store]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 1
    assert f", expired on {day:%Y-%m-%d}" in told.stdout
    assert "counts until" not in told.stdout


def test_an_audit_that_could_not_decide_is_refused_with_its_own_reasons(
    audited: Make, name: str, policy_file: Path
) -> None:
    version = audited(name, verdict="undecided", reasons=["noisy copies are missed", "too few groups"])
    set_policy(name, load_policy(str(policy_file)), "house rules", "Ada")
    text = _read(page(contents(version)))
    assert "verdict is clear missing undecided noisy copies are missed; too few groups" in text
    assert text.index("What is not shown") < text.index("privacy officer, name") < text.index("Quality: what")


def test_a_log_that_was_changed_is_told_before_everything(
    audited: Make, name: str, store: str, policy_file: Path, tmp_path: Path
) -> None:
    version = audited(name)
    set_policy(name, load_policy(str(policy_file)), "house rules", "Ada")
    promote(f"models:/{name}/1", f"all clear for {name}", approver="Ben")
    assert contents(version)["damage"] == []
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as connection, connection:
        changed = f"UPDATE params SET value = replace(value, 'clear for {name}', 'dark for {name}')"
        assert connection.execute(f"{changed} WHERE value LIKE '%clear for {name}%'").rowcount == 1
    result = write_dossier(version, tmp_path / "page.html")
    assert result["state"] == "log not whole"
    text = _read((tmp_path / "page.html").read_text())
    told = f"The log of {name} is not whole : entry 5 was changed: its content does not have its hash."
    assert text.index("THE LOG IS NOT WHOLE") < text.index(told) < text.index("Rules of the policy")


def test_an_override_and_hostile_words_are_only_text(
    register: Make, name: str, policy_file: Path, tmp_path: Path
) -> None:
    register(name)
    set_policy(name, load_policy(str(policy_file)), "house rules", "Ada")
    promote(f"models:/{name}/1", HOSTILE, approver="Eve " + HOSTILE, override=True)
    result = write_dossier(registry.find_version(f"{name}/1"), tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert result["state"] == "missing"
    assert "<script" not in html
    assert f"Promoted against the policy to champion on {datetime.now(UTC):%Y-%m-%d}" in _read(html)


def test_the_command_writes_it(audited: Make, name: str, store: str, tmp_path: Path) -> None:
    audited(name)
    out = tmp_path / "dossier.html"
    words = ["models", "dossier", f"models:/{name}/1", "--output", str(out), "--tracking-uri", store]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert f"Dossier of {name} version 1" in out.read_text()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_it_prints_on_two_sheets_of_a4_at_most(
    audited: Make, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = audited(name)
    set_policy(name, load_policy("clinical"), "shared with the challenge", "Ada")
    promote(f"models:/{name}/1", "a deadline", approver="Ben", override=True)
    write_dossier(registry.find_version(f"{version.name}/1"), tmp_path / "page.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"]
    out = tmp_path / "page.pdf"
    command = [str(CHROMIUM), *flags, "--no-pdf-header-footer", f"--print-to-pdf={out}", str(tmp_path / "page.html")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pages = re.findall(rb"/Type\s*/Page\b", out.read_bytes())
    assert 1 <= len(pages) <= 2
    boxes = {tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox\s*\[([^\]]+)\]", out.read_bytes())}
    assert all(abs(box[2] - 595) < 2 and abs(box[3] - 842) < 2 for box in boxes), boxes
