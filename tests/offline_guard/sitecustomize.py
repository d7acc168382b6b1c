"""Python imports this by itself where the folder is on PYTHONPATH: in a job's driver and in every process it starts.

Whoever tries to reach another machine is written down in $GUARD_LOG and stopped.
"""

import ipaddress
import os
import sys
import traceback
from pathlib import Path

OWN = set(os.environ["GUARD_OWN"].split(","))  # names and addresses of this machine


def _own(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host or "")
    try:
        address = ipaddress.ip_address(name)
        return name in OWN or address.is_loopback or address.is_unspecified  # 0.0.0.0: to listen on
    except ValueError:
        return name in ("", "localhost")


def _guard(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if not _own(host):
        with Path(os.environ["GUARD_LOG"]).open("a") as log:
            log.write(f"{host}: {event} by {' '.join(sys.argv)[:80]}\n{''.join(traceback.format_stack(limit=8))}\n")
        raise OSError(f"offline, but {host} was to be reached")


with Path(os.environ["GUARD_LOG"]).with_suffix(".pids").open("a") as pids:
    pids.write(f"{os.getpid()}\n")
sys.addaudithook(_guard)
