"""Who is let in, and what pages may do; asked of the application itself, without a browser."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lwddpm.errors import ConfigError
from lwddpm_board import access
from lwddpm_board.app import create_app
from lwddpm_board.stores import Stores

TOKEN = "a-token-of-24-characters"
Visit = Callable[..., TestClient]


@pytest.fixture
def visit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Visit:
    """A visitor of a board that reads an empty folder; arguments: the token, and the host that is addressed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(access.TOKEN_VARIABLE, raising=False)

    def build(token: str | None = None, host: str = "127.0.0.1", base: str = "http://127.0.0.1:8050") -> TestClient:
        if token:
            monkeypatch.setenv(access.TOKEN_VARIABLE, token)
        stores = Stores(f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/optuna.db", (), tmp_path)
        app = create_app(stores, access.Access.of(host, [host]))
        return TestClient(app, base_url=base, follow_redirects=False)

    return build


def test_on_loopback_nobody_is_asked_and_looking_creates_nothing(visit: Visit, tmp_path: Path) -> None:
    visitor = visit()
    for page, advice in (
        ("runs", "lwddpm run demo"),
        ("searches", "lwddpm run search_demo"),
        ("registry", "lwddpm run demo"),
        ("generate", "lwddpm run demo"),
        ("datasets", "lwddpm run kaggle_small"),
        ("readers", "lwddpm run demo"),
    ):
        answer = visitor.get(f"/{page}")
        assert answer.status_code == 200
        assert advice in answer.text, page
    assert list(tmp_path.iterdir()) == []


def test_every_answer_forbids_scripts_that_are_not_ours(visit: Visit) -> None:
    visitor = visit()
    for path in ("/runs", "/nothing", "/api/health", "/static/board.css", "/runs/not-an-id"):
        policy = visitor.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8050", "192.0.2.7", ""])
def test_a_name_that_was_pointed_here_is_refused(host: str, visit: Visit) -> None:
    assert visit().get("/runs", headers={"host": host}).status_code == 403


def test_a_request_of_a_foreign_page_is_refused(visit: Visit) -> None:
    visitor = visit()
    body = {"name": "m", "version": 1, "reason": "because", "by": "me"}
    foreign = visitor.post("/api/registry/promote", json=body, headers={"origin": "http://evil.example"})
    assert foreign.status_code == 403
    own = visitor.post("/api/registry/promote", json=body, headers={"origin": "http://127.0.0.1:8050"})
    assert own.status_code == 404  # there is no registry yet
    assert "yet" in own.json()["error"]


def test_exposed_it_asks_for_the_token(visit: Visit) -> None:
    visitor = visit(TOKEN, "0.0.0.0", "http://192.0.2.7:8050")
    page = visitor.get("/runs?kind=train")
    assert page.status_code == 303
    assert page.headers["location"] == "/sign-in?to=/runs%3Fkind%3Dtrain"
    assert visitor.get("/api/health").status_code == 401
    assert visitor.post("/api/drawings", json={}).status_code == 401
    assert visitor.get("/datasets/abcdef01/train/0.png").status_code == 303
    for wrong in ("", "x" * len(TOKEN), TOKEN[:-1]):
        assert visitor.get("/runs", headers={"authorization": f"Bearer {wrong}"}).status_code == 303
    assert visitor.get("/runs", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_the_sign_in_page_gives_a_cookie_without_the_token(visit: Visit) -> None:
    visitor = visit(TOKEN, "0.0.0.0", "http://192.0.2.7:8050")
    wrong = visitor.post("/sign-in", data={"token": "no", "to": "/runs"})
    assert wrong.status_code == 401
    assert "not the board" in wrong.text
    right = visitor.post("/sign-in", data={"token": TOKEN, "to": "/runs?kind=train"})
    assert (right.status_code, right.headers["location"]) == (303, "/runs?kind=train")
    cookie = right.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert visitor.get("/runs").status_code == 200
    for elsewhere in ("//evil.example", "http://evil.example", "/\\evil.example", "javascript:alert(1)"):
        answer = visitor.post("/sign-in", data={"token": TOKEN, "to": elsewhere})
        assert answer.headers["location"] == "/"


def test_a_token_is_made_once_and_only_its_owner_reads_it(visit: Visit, tmp_path: Path) -> None:
    first = access.Access.of("0.0.0.0", [])
    assert first.token is not None
    assert len(first.token) >= 40
    kept = access.token_file()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert access.Access.of("0.0.0.0", []) == first


def test_two_boards_that_start_at_once_have_one_token(
    visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins before the first has written its token: it makes one too, and takes the first one's."""
    made, token_urlsafe = [], access.secrets.token_urlsafe

    def make(length: int) -> str:
        if not made:
            made.append("first")
            made.append(access.Access.of("0.0.0.0", []).token or "")  # the other board, in between
        return token_urlsafe(length)

    monkeypatch.setattr(access.secrets, "token_urlsafe", make)
    assert access.Access.of("0.0.0.0", []).token == made[1]


def test_a_short_token_is_refused(visit: Visit) -> None:
    with pytest.raises(ConfigError, match="at least 16 characters, got 5"):
        visit("short")
