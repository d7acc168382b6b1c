"""`offline: true`: nothing is fetched. Only this machine is reached, and what the job names."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psutil

_NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens
_OFFLINE = "LWDDPM_OFFLINE"


@contextmanager
def offline(wanted: bool, reachable: Iterable[str] = ()) -> Iterator[None]:
    """Keep this process, and those that it starts, from fetching anything while the block runs.

    Every library that speaks HTTP is sent to a proxy that does not exist, except for this machine's own addresses. That
    stops also those that nobody has asked: Ray's dashboard, for one, asks the clouds whether it runs on them.

    Args:
        wanted: whether the job is offline.
        reachable: hosts that the job names.
    """
    changed = environment(reachable) if wanted else {}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def environment(reachable: Iterable[str] = ()) -> dict[str, str]:
    """Variables of an offline process."""
    own = [address.address for addresses in psutil.net_if_addrs().values() for address in addresses]
    direct = ",".join(["localhost", "127.0.0.1", "::1", *(name for name in own if "." in name), *reachable])
    switches = {_OFFLINE: "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    proxies = dict.fromkeys(["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"], _NOWHERE)
    return switches | proxies | {"no_proxy": direct, "NO_PROXY": direct}


def is_offline() -> bool:
    return os.environ.get(_OFFLINE, "") not in ("", "0")


def carried() -> dict[str, str]:
    """What the workers of a cluster need to be offline as this process is; nothing if it is not."""
    return {name: os.environ[name] for name in environment() if name in os.environ} if is_offline() else {}
