"""Files and folders that are whole or not there, locks between processes, and the folders that belong to the user.

A file is written beside its place, forced to the disk, and only then renamed: whatever dies in between, nothing
incomplete has its name.
"""

import errno
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from lwddpm.errors import ConfigError, JobError

_SOCKET_PATH = 103 if sys.platform == "darwin" else 107  # bytes that the path of a socket may have
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # how a filesystem says that it has none


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Write the yielded file, which exists and is empty; it gets its name `path` when the block ends without an error.

    Several processes may write the same file: the last one wins. Missing folders are made.

    Args:
        path: the file.
        mode: its permissions, less those that the process's umask takes away.

    Raises:
        OSError: as it occurred; `whole_file` says it in a `JobError`.
    """
    _make_parent(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield partial
        flush_to_disk(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write the yielded file; it gets its name `path` when the block ends without an error.

    Raises:
        JobError: the disk is full, read-only or broken; what was there before is still there.
    """
    with writing(path), replacing(path) as partial:
        yield partial


@contextmanager
def complete_folder(path: Path) -> Iterator[Path]:
    """Write into the yielded folder; it gets its name `path`, in place of an older one, when the block ends without
    an error.

    Raises:
        JobError: the disk is full, read-only or broken; nothing is left under the name.
    """
    with writing(path):
        _make_parent(path)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        partial.chmod(0o755)
        try:
            yield partial
            flush_to_disk(partial)
            if path.exists():
                shutil.rmtree(path)
            partial.replace(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that nobody changes a second name; a copy where the file system has no hard links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        JobError: as `whole_file`.
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_private(path: Path, text: str) -> None:
    """Write a text file whole or not at all, and never readable by others, not even for a moment.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path, mode=0o600) as partial:
        partial.write_text(text, encoding="utf-8")


def write_private_once(path: Path, text: str) -> None:
    """Write a text file as `write_private` does, unless there is one: of several processes at once, the first does it.

    Raises:
        OSError: it cannot be written.
    """
    _make_parent(path)
    with locked(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            write_private(path, text)


def socket_fits(folder: Path | str, below: int) -> bool:
    """Whether sockets can lie in a folder whose names add `below` bytes to its path."""
    return len(os.fsencode(folder)) + below <= _SOCKET_PATH


def socket_folder(below: int) -> Path:
    """This user's folder for the sockets of servers, for `make_private_folder`: in the temporary folder or, where paths
    would be longer than a socket's may be, in /tmp.

    Not in the user's runtime folder, which goes when the user has logged out everywhere.

    Args:
        below: bytes that the names of the sockets add to its path.
    """
    folder = Path(tempfile.gettempdir()) / f"lwddpm-{os.getuid()}"
    return folder if socket_fits(folder, below) else Path("/tmp") / folder.name


def make_private_folder(path: Path) -> None:
    """A folder that only this user can enter, made where it is new; in a place where everybody may make folders, its
    name may have been taken.

    Raises:
        ConfigError: the name is a link or a file, or a folder that is another user's or open to others.
    """
    try:
        path.mkdir(mode=0o700)
        return
    except FileExistsError:
        status = path.lstat()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made ({error.strerror}); set TMPDIR to a folder of your own") from None
    remedy = "remove it, or set TMPDIR to a folder of your own"
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{path}: must be a folder, got a link or a file; {remedy}")
    if status.st_uid != os.getuid():
        raise ConfigError(f"{path}: must belong to you (user {os.getuid()}), belongs to user {status.st_uid}; {remedy}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(
            f"{path}: must be open to you alone (mode 700), has mode {stat.S_IMODE(status.st_mode):o}; {remedy}"
        )


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        JobError: as `whole_file`.
    """
    write_whole(path, json.dumps(value, indent=2))


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no such file.

    Raises:
        JobError: the file holds something else; nothing of ours leaves it like that.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:  # not JSON, or not even text
        raise JobError(f"{path}: must be a JSON file, but is damaged ({error}); restore it, or remove it") from None
    if not isinstance(value, dict):
        raise JobError(f"{path}: must hold a JSON object, got {type(value).__name__}; restore it, or remove it")
    return value


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process had begun to write; only for whoever alone writes there."""
    for path in folder.glob(".*-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a disk can refuse into one clear error.

    Raises:
        JobError: names the path and the reason.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise JobError(
            f"{path}: cannot be written ({reason}); free some space or make it writable, then the same command "
            "continues from the last checkpoint"
        ) from None


def flush_to_disk(path: Path) -> None:
    """Force a file, or all that a folder holds, to the disk, before it is renamed.

    A rename may reach the disk before the data: after a power cut the name would stand for an empty file.
    """
    for each in (path, *path.rglob("*")):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file, which is removed afterwards; yields False, without a lock, on filesystems that have none.

    The kernel frees the lock when its holder ends, however it ends, so there are no stale locks.

    Args:
        path: the lock file, in a folder that exists.
        wait: for another holder to end.

    Raises:
        BlockingIOError: another process or thread holds it, and `wait` is False.
    """
    held: list[os.stat_result] = []
    lock = FileLock(path, fallback_to_soft=False, on_acquired=lambda descriptor: held.append(os.fstat(descriptor)))
    while True:
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            raise BlockingIOError(errno.EWOULDBLOCK, "held by another process", str(path)) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            yield False
            return
        if _is_still(path, held[-1]):
            break
        lock.release()  # the previous holder has removed the file: its lock protects nothing
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def cache_folder() -> Path:
    """Where to keep what can be made again: LWDDPM_CACHE, else the system's folder for it (~/.cache/lwddpm on Linux).

    It may not exist yet.
    """
    return Path(os.environ.get("LWDDPM_CACHE") or platformdirs.user_cache_path("lwddpm"))


def state_folder() -> Path:
    """Where to keep what must outlive a process: ~/.lwddpm on every system, which shell scripts read as well."""
    return Path.home() / ".lwddpm"


def _make_parent(path: Path) -> None:
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)


def _is_still(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(status, path.stat())
    except FileNotFoundError:
        return False
