"""Who may use the board, and what a page of it may do: checked before any view sees a request."""

import asyncio
import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lwddpm.addresses import is_loopback
from lwddpm.errors import ConfigError
from lwddpm.files import state_folder, write_private_once
from lwddpm_board.pages import render

TOKEN_VARIABLE = "LWDDPM_BOARD_TOKEN"
_COOKIE = "lwddpm_board"
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_SHORTEST_TOKEN = 16
_LONGEST_LOGIN = 4096
_WRONG_TOKEN_S = 0.5
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

router = APIRouter()


@dataclass(frozen=True)
class Access:
    """Who is let in.

    Attributes:
        token: what visitors must know; None: whoever reaches the loopback interface may look.
        hosts: names under which the board may be addressed. Another name is a page elsewhere that has pointed its
            own name at this machine (DNS rebinding).
    """

    token: str | None
    hosts: frozenset[str]

    @classmethod
    def of(cls, host: str, allowed_hosts: Iterable[str]) -> "Access":
        """What binding to `host` asks for: beyond the loopback interface a token.

        Raises:
            ConfigError: the token in the environment is too short to protect anything.
        """
        token = os.environ.get(TOKEN_VARIABLE) or None
        if token is not None and len(token) < _SHORTEST_TOKEN:
            raise ConfigError(
                f"{TOKEN_VARIABLE}: must have at least {_SHORTEST_TOKEN} characters, got {len(token)}; "
                "unset it to have one made"
            )
        if token is None and not is_loopback(host):
            token = _stored_token()
        here = {socket.gethostname().lower(), socket.getfqdn().lower()} if token else set()
        return cls(token, _LOOPBACK_NAMES | here | {name.lower() for name in allowed_hosts})

    def knows_host(self, header: str) -> bool:
        """Whether a Host header names this board."""
        try:
            name = urlsplit(f"//{header}").hostname or ""
            if name in self.hosts:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.token is not None  # a rebound name is never a number, and a visitor by number shows the token

    def admits(self, request: Request) -> bool:
        """Whether the request carries the token, as a Bearer header or in the cookie of the sign-in page."""
        if self.token is None:
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode()):
            return True
        return hmac.compare_digest(request.cookies.get(_COOKIE, "").encode(), self.session.encode())

    @property
    def session(self) -> str:
        """What the cookie holds: proves the knowledge of the token without holding it."""
        return hmac.new((self.token or "").encode(), b"lwddpm board session", hashlib.sha256).hexdigest()


def _stored_token() -> str:
    """A token that only this user can read: made once, the same at every start."""
    path = token_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            write_private_once(path, secrets.token_urlsafe(32) + "\n")  # another board may be quicker
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"{path}: cannot keep the board's token ({error}); give one in {TOKEN_VARIABLE}") from None


def token_file() -> Path:
    """Where a token that the board made is kept."""
    return state_folder() / "board-token"


class Guard:
    """ASGI middleware: refuses strangers and foreign pages, and tells the browser what our pages may do."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", _POLICY)
                headers.setdefault("x-content-type-options", "nosniff")
                # without a referrer a form's Origin header is "null", which would be refused below
                headers.setdefault("referrer-policy", "same-origin")
                headers.setdefault("cross-origin-opener-policy", "same-origin")
                headers.setdefault("cross-origin-resource-policy", "same-origin")
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        answer: ASGIApp = self._refusal(Request(scope)) or self._app
        await answer(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if not self._access.knows_host(host):
            message = "This name does not belong to the board; allow it with: lwddpm dashboard --allowed-host NAME\n"
            return PlainTextResponse(message, 403)
        origin = request.headers.get("origin")
        if request.method not in ("GET", "HEAD") and origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("This request comes from another page than the board's.\n", 403)
        path = request.url.path
        if path == "/sign-in" or path.startswith("/static/") or self._access.admits(request):
            return None
        if path.startswith("/api/") or request.method != "GET":
            return JSONResponse({"error": "sign in first"}, 401, {"www-authenticate": "Bearer"})
        target = path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?to={quote(target)}", 303)


@router.get("/sign-in")
def sign_in_page(request: Request, to: str = "/") -> Response:
    return render(request, "sign_in.html", to=to, wrong=False)


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """A form with `token` and `to`; sets the cookie and goes on to `to`."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_LOGIN:
            return PlainTextResponse("Too long.\n", 413)
    form = {key: values[0] for key, values in parse_qs(body.decode("utf-8", "replace")).items()}
    access: Access = request.app.state.access
    to = form.get("to", "/")
    if not to.startswith("/") or to[1:2] in ("/", "\\"):  # only to pages of ours
        to = "/"
    given = form.get("token", "").strip()
    if access.token is not None and not hmac.compare_digest(given.encode(), access.token.encode()):
        await asyncio.sleep(_WRONG_TOKEN_S)  # guessing is made slow; others are served meanwhile
        return render(request, "sign_in.html", 401, to=to, wrong=True)
    answer = RedirectResponse(to, 303)
    answer.set_cookie(
        _COOKIE, access.session, httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/"
    )
    return answer
