"""A webhook is told what has happened, beside the work: it delays nothing and fails nothing.

    POST, JSON: {"event": "job" | "gate" | "promotion", "text": one line, "at": ISO 8601, ...}

`text` is what chat programs show. Nothing secret is in it; the address, which may hold a token, is never printed whole.
"""

import json
import os
import threading
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from lwddpm.addresses import without_passwords
from lwddpm.progress import say

VARIABLE = "LWDDPM_NOTIFY_URL"
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)  # between attempts
_TIMEOUT_S = (3.0, 5.0)  # to connect, to answer
_PATIENCE_S = 15.0  # of all attempts together: the longest that the end of a process waits
_LONGEST_TEXT = 500


def address(configured: str | None = None) -> str | None:
    """Where to send: what a job says, else LWDDPM_NOTIFY_URL."""
    return configured or os.environ.get(VARIABLE) or None


def host_of(url: str | None) -> str | None:
    """The host of an address, which is all that may be shown of it."""
    try:
        return urlsplit(url).hostname if url else None
    except ValueError:
        return None


def tell(url: str | None, event: str, text: str, **facts: Any) -> threading.Thread | None:
    """Send an event in a thread of its own; returns at once.

    The process ends when the thread has: after 15 seconds at most, what is not delivered by then is lost and said.

    Args:
        url: of the webhook; None: nobody is told.
        event: job, gate or promotion.
        text: one line for people.
        facts: JSON values for programs.

    Returns:
        The thread, for whoever wants to wait; None: nobody is told.
    """
    if not url:
        return None
    told = {"event": event, "text": _clean(text), "at": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
    body = json.dumps(told, default=str).encode()
    thread = threading.Thread(target=_deliver, args=(url, body), name="lwddpm-notify")
    thread.start()
    return thread


def _clean(text: str) -> str:
    """The first line of a text without the passwords of addresses in it."""
    first = next(iter(text.splitlines()), "")
    return without_passwords(first)[:_LONGEST_TEXT]


def _deliver(url: str, body: bytes) -> None:
    """Try until it is taken, refused for good, or the time is up; whatever happens is a line at most."""
    end = time.monotonic() + _PATIENCE_S
    reason = "no attempt"
    for pause in (*_PAUSES_S, 0.0):
        left = end - time.monotonic()
        if left <= 0:
            break
        taken, reason = _attempt(url, body, left)
        if taken:
            return
        if time.monotonic() + pause >= end or not pause:
            break
        time.sleep(pause)
    say(f"notify: {host_of(url) or 'the webhook'} was not told: {reason}")


def _attempt(url: str, body: bytes, left: float) -> tuple[bool, str]:
    """Whether it was taken, or why not. What libraries say of a failure names the address, so it is not passed on."""
    import requests

    waits = (min(_TIMEOUT_S[0], left), min(_TIMEOUT_S[1], left))
    headers = {"content-type": "application/json", "user-agent": "lwddpm"}
    try:
        # a webhook that points elsewhere would hand the event, and the token, to somebody else
        options: Any = {"headers": headers, "timeout": waits, "allow_redirects": False, "stream": True}
        with requests.post(url, data=body, **options) as answer:
            return answer.ok and not answer.is_redirect, f"it answers {answer.status_code}"
    except requests.Timeout:
        return False, "it does not answer in time"
    except (requests.RequestException, OSError, ValueError) as error:
        return False, type(error).__name__
