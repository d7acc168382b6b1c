"""Section `notify`: who is told when a job has ended."""

from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from lwddpm.config.rule import RuleBroken
from lwddpm.config.section import Section

_LONGEST = 2000


class NotifyConfig(Section):
    """A webhook that is told of the job's end. Its address may hold a token: it is never dumped, shown or recorded."""

    url: str | None = Field(
        None,
        exclude=True,
        description="http or https address that gets JSON when the job ends; default: LWDDPM_NOTIFY_URL, else none",
    )

    @field_validator("url", mode="before")
    @classmethod
    def _is_an_address(cls, url: Any) -> Any:
        """A message must not show what was given."""
        if url is None:
            return url
        parts = None
        if isinstance(url, str) and len(url) <= _LONGEST and url.isprintable() and " " not in url:
            try:
                parts = urlsplit(url)
                _ = parts.port
            except ValueError:
                parts = None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise RuleBroken("", "must be an address that begins with http:// or https:// (it is not shown here)")
        return url
