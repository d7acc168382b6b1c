"""Where Optuna's studies are kept: SQLite on a local disk, or a database that several machines share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import optuna
import psutil

from lwddpm.addresses import public
from lwddpm.errors import ConfigError

_NETWORK_FILE_SYSTEMS = (
    "nfs", "cifs", "smb", "9p", "lustre", "beegfs", "gluster", "ceph", "gpfs", "afs", "vboxsf", "fuse.sshfs",
    "fuse.gluster", "fuse.s3", "fuse.gcsfuse", "virtiofs",
)  # fmt: skip

optuna.logging.set_verbosity(optuna.logging.ERROR)


def storage_url(given: str | None) -> str:
    """The given `search.storage`, else SQLite in the working folder; absolute."""
    url = given or "sqlite:///optuna.db"
    prefix = "sqlite:///"
    return f"{prefix}{Path(url.removeprefix(prefix)).absolute()}" if url.startswith(prefix) else url


def check_storage(url: str) -> None:
    """Refuse a storage that cannot be used, or that would break.

    Raises:
        ConfigError: unknown scheme, unwritable folder, or SQLite on a network mount.
    """
    scheme = urlparse(url).scheme.partition("+")[0]
    if scheme not in ("sqlite", "postgresql", "mysql"):
        raise ConfigError(
            f"search.storage: must begin with sqlite:///, postgresql:// or mysql://, got {public(url)!r}; "
            "leave it out for SQLite in the working folder"
        )
    if scheme != "sqlite":
        return
    folder = Path(url.removeprefix("sqlite:///")).absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"search.storage: the folder of an SQLite storage must exist, got {folder}; create it")
    kind = file_system(folder)
    if kind.startswith(_NETWORK_FILE_SYSTEMS):
        raise ConfigError(
            f"search.storage: SQLite on a network mount ({kind} at {folder}) corrupts under concurrent writes; "
            "name a local disk, or PostgreSQL as postgresql://user@host/database"
        )


def file_system(folder: Path) -> str:
    """Type of the file system that holds a folder; empty where it is not known."""
    mounts = {Path(partition.mountpoint): partition.fstype for partition in psutil.disk_partitions(all=True)}
    resolved = folder.resolve()
    holding = next((path for path in (resolved, *resolved.parents) if path in mounts), None)
    return mounts[holding] if holding else ""


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Connect to a storage; its tables are created where there are none.

    Raises:
        ConfigError: no driver for it is installed, or it does not answer.
    """
    # a reader such as optuna-dashboard may hold SQLite's lock for a moment
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    with storage_errors(url):
        return optuna.storages.RDBStorage(url, engine_kwargs=options)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn what connecting to a storage raises into one clear error.

    Raises:
        ConfigError: no driver for it is installed, or it does not answer.
    """
    try:
        yield
    except ImportError:
        name = urlparse(url).scheme
        remedy = "pip install 'lwddpm[postgresql]'" if name == "postgresql" else "install one that SQLAlchemy knows"
        raise ConfigError(f"search.storage: no driver for {name} is installed here; {remedy}") from None
    except Exception as error:  # SQLAlchemy's own
        raise ConfigError(f"search.storage: {public(url)} cannot be used: {str(error).splitlines()[0]}") from None


def study_names(url: str) -> list[str]:
    """Studies in a storage; none where an SQLite file does not exist, and none is created."""
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return []
    return optuna.get_all_study_names(open_storage(url))


def find_study(url: str, name: str) -> optuna.Study:
    """Load a study to read it; creates nothing.

    Raises:
        ConfigError: no such study; lists those that there are.
    """
    known = study_names(url)
    if name not in known:
        there = (
            f"known: {', '.join(sorted(known))}" if known else "it has none: run a search first, lwddpm run search_demo"
        )
        raise ConfigError(f"{name}: no such study in {public(url)}; {there}")
    return optuna.load_study(study_name=name, storage=open_storage(url))


def delete_study(url: str, name: str) -> None:
    """Delete a study, if there is one of this name."""
    if name in study_names(url):
        optuna.delete_study(study_name=name, storage=open_storage(url))
