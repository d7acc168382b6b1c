"""`offline: true`: nothing is fetched. Only this machine is reached, and what the job names."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import psutil

_NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens
_OFFLINE = "LWDDPM_OFFLINE"


@contextmanager
def offline(wanted: bool, reachable: Iterable[str] = ()) -> Iterator[None]:
    """Keep this process, and those that it starts, from fetching anything while the block runs.

    Every library that speaks HTTP is sent to a proxy that does not exist, except for this machine's own addresses. That
    covers libraries that fetch unasked, too: Ray's dashboard asks the clouds' addresses whether it runs on one of them.

    Args:
        wanted: whether the job is offline.
        reachable: hosts that the job names.
    """
    with environment_variables(offline_environment(reachable) if wanted else {}):
        yield


@contextmanager
def environment_variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, and of those that it starts, while the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def offline_environment(reachable: Iterable[str] = ()) -> dict[str, str]:
    """Variables of an offline process; `reachable` as of `offline`."""
    own = [address.address for addresses in psutil.net_if_addrs().values() for address in addresses]
    direct = ",".join(["localhost", "127.0.0.1", "::1", *(name for name in own if "." in name), *reachable])
    switches = {_OFFLINE: "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    proxies = dict.fromkeys(["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"], _NOWHERE)
    return switches | proxies | {"no_proxy": direct, "NO_PROXY": direct}


def is_offline() -> bool:
    """Whether this process is within `offline`, or was started by one that is."""
    return os.environ.get(_OFFLINE, "") not in ("", "0")


def worker_environment() -> dict[str, str]:
    """Variables with which workers on a cluster are offline if this process is; else none."""
    return {name: os.environ[name] for name in offline_environment() if name in os.environ} if is_offline() else {}
