"""Whose a study is, and who runs it: searches of one name meet where several people share a storage."""

import errno
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import optuna
import sqlalchemy

from lwddpm.addresses import public
from lwddpm.errors import ConfigError, JobError
from lwddpm.files import locked, read_json, write_json
from lwddpm.search.storage import find_study, storage_errors, study_names
from lwddpm.search.trials import RUN_ID

MADE_BY = "lwddpm.made_by"  # the study's user attribute: id of the folder of the search that made it
_ID_FILE = "study.json"  # in that folder


def folder_id(folder: Path) -> str:
    """The id of a search's folder, by which its studies are known; given to it with the first."""
    file = folder / _ID_FILE
    known = read_json(file)
    if known is None:
        known = {"id": uuid4().hex}
        write_json(file, known)
    return str(known["id"])


def check_made_here(url: str, name: str, folder: Path) -> None:
    """Refuse to start a study over that another folder's search has made, or something else than a search.

    Raises:
        ConfigError: it may be a colleague's; says how to delete it by hand.
    """
    if name not in study_names(url):
        return
    study = find_study(url, name)
    made_by = study.user_attrs.get(MADE_BY)
    own_id = (read_json(folder / _ID_FILE) or {}).get("id")
    made_here = made_by == own_id if made_by else bool(_runs_of(study) & _runs_in(folder))
    if not made_here:
        raise ConfigError(
            f"--fresh: deletes only what this job has made, and study {name} in {public(url)} was not made from "
            f"{folder}: it may be somebody else's; give the search another name, or delete it by hand: "
            f"optuna delete-study --study-name {name} --storage {public(url)}"
        )


def _runs_of(study: optuna.Study) -> set[str]:
    """MLflow runs of its trials; studies of 0.1.0 name no folder."""
    return {str(trial.user_attrs[RUN_ID]) for trial in study.get_trials(deepcopy=False) if RUN_ID in trial.user_attrs}


def _runs_in(folder: Path) -> set[str]:
    return {str((read_json(file) or {}).get("run_id")) for file in folder.glob("trials/*/run.json")}


@contextmanager
def lock_study(url: str, name: str) -> Iterator[None]:
    """Let no second process run this study, from whatever folder or machine.

    The lock is freed when its holder ends, however it ends: it is a file beside an SQLite storage, and an advisory lock
    of a database server, which holds it as long as the connection. Trials that a crash left RUNNING do not hold it.

    Raises:
        JobError: another process runs the study.
        ConfigError: the storage cannot be used.
    """
    key = hashlib.sha256(f"lwddpm study {name}".encode()).digest()
    with ExitStack() as stack:
        try:
            stack.enter_context(_lock(url, key))
        except BlockingIOError:
            raise JobError(
                f"study {name} in {public(url)}: another process runs it; wait for it, or give the search another name"
            ) from None
        yield


def _lock(url: str, key: bytes) -> AbstractContextManager[object]:
    database = sqlalchemy.make_url(url)
    if database.get_backend_name() != "sqlite":
        return _server_lock(url, int.from_bytes(key[:8], signed=True))
    file = Path(str(database.database))
    return locked(file.with_name(f".{file.name}-{key.hex()[:12]}.lock"), wait=False)


@contextmanager
def _server_lock(url: str, key: int) -> Iterator[None]:
    with storage_errors(url):
        engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
        connection = engine.connect()
    with connection:
        with storage_errors(url):
            if engine.dialect.name == "postgresql":
                # by default the server notices after hours that the holder's machine is gone
                connection.execute(sqlalchemy.text("SET tcp_keepalives_idle = 60"))
                ask = sqlalchemy.text("SELECT pg_try_advisory_lock(:key)").bindparams(key=key)
            else:
                connection.execute(sqlalchemy.text("SET SESSION wait_timeout = 31536000"))  # the connection is idle
                ask = sqlalchemy.text("SELECT GET_LOCK(:key, 0)").bindparams(key=f"lwddpm{key}")
            acquired = connection.execute(ask).scalar()
        if not acquired:
            raise BlockingIOError(errno.EWOULDBLOCK, "held by another process")
        yield
