"""What of an address may be shown, and which addresses are this machine's own."""

import ipaddress
import re
from urllib.parse import urlparse

_CREDENTIALS = re.compile(r"//[^/@\s]+:[^/@\s]*@")  # user:password@ of a URL


def public(uri: str) -> str:
    """The URI without user and password, fit for logs and records."""
    parsed = urlparse(uri)
    if parsed.username is None and parsed.password is None:
        return uri
    return parsed._replace(netloc=parsed.netloc.rpartition("@")[2]).geturl()


def has_password(text: str) -> bool:
    """Whether a text is a URI with a password in it."""
    return "://" in text and urlparse(text).password is not None


def without_passwords(text: str) -> str:
    """A text, such as a command line, without the user and password of any URL in it."""
    return _CREDENTIALS.sub("//", text)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host name or address: localhost, 127.0.0.0/8, ::1."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
