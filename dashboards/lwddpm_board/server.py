"""The board as a process: binds, says where it is, serves until it is stopped."""

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lwddpm.addresses import is_loopback, public
from lwddpm.config import TrackingConfig
from lwddpm.errors import ConfigError, LwddpmError
from lwddpm.progress import say
from lwddpm.search.storage import storage_url
from lwddpm.tracking.store import tracking_uri

if TYPE_CHECKING:
    from lwddpm_board.stores import Stores

_LAST_ANSWERS_S = 5
# a visitor waits for the answer: by default MLflow tries again for minutes
_MLFLOW_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}


@dataclass(frozen=True)
class Settings:
    """What `lwddpm dashboard` was told.

    Attributes:
        host, port: where to listen; port 0: any free one.
        tracking: MLflow URI; default as for jobs.
        storage: Optuna storage URL; default as for searches.
        datasets: folders of prepared datasets to show besides those that runs name.
        allowed_hosts: further names under which the board is addressed.
    """

    host: str = "127.0.0.1"
    port: int = 8050
    tracking: str | None = None
    storage: str | None = None
    datasets: Sequence[str] = ()
    allowed_hosts: Sequence[str] = ()


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigError: the address cannot be bound, or the token in the environment is too short.
        KeyboardInterrupt: stopped.
    """
    for variable, value in _MLFLOW_TIMEOUTS.items():
        os.environ.setdefault(variable, value)
    import uvicorn

    from lwddpm_board import access
    from lwddpm_board.app import create_app
    from lwddpm_board.stores import Stores

    who = access.Access.of(settings.host, [settings.host, *settings.allowed_hosts])
    with _bound(settings.host, settings.port) as listener, tempfile.TemporaryDirectory(prefix="lwddpm-board-") as work:
        stores = Stores(
            tracking_uri(TrackingConfig(uri=settings.tracking)),
            storage_url(settings.storage),
            [str(Path(path).absolute()) if "://" not in path else path for path in settings.datasets],
            Path(work),
        )
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        _connect_early(stores)
        host, port = listener.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        say(f"board    http://{name}:{port}   (Ctrl-C ends it)")
        say(f"reads    {stores.place} and {public(stores.storage)}")
        if who.token is not None:
            kept = os.environ.get(access.TOKEN_VARIABLE)
            say(f"token    {'as in ' + access.TOKEN_VARIABLE if kept else f'in {access.token_file()}'}")
        if not is_loopback(settings.host):
            say("exposed  on the network, without encryption: put a TLS proxy in front where others share the network")
        config = uvicorn.Config(
            create_app(stores, who),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_LAST_ANSWERS_S,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _connect_early(stores: "Stores") -> None:
    """MLflow takes seconds for its first answers: better before the address is printed than while a visitor waits."""
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(LwddpmError, MlflowException):
        experiments = stores.client.search_experiments()
        stores.client.search_runs([experiment.experiment_id for experiment in experiments], max_results=1)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"--host {host} --port {port}: cannot be used ({error.strerror}); choose another, such as --port 0"
        ) from None
    listener.listen()  # visitors may come from the moment on that the address is printed
    return listener
