import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs
import pytest

from lwddpm.errors import ConfigError, JobError
from lwddpm.files import (
    cache_folder,
    complete_folder,
    locked,
    make_private_folder,
    read_json,
    remove_leftovers,
    replacing,
    socket_fits,
    socket_folder,
    state_folder,
    whole_file,
    write_json,
    write_private,
    write_private_once,
    write_whole,
)


def test_an_interrupted_write_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    def interrupted() -> None:
        with complete_folder(tmp_path / "step_1") as folder:
            (folder / "model.safetensors").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with complete_folder(tmp_path / "model") as folder:
            (folder / name).write_text(name)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]
    assert (tmp_path / "model" / "new").read_text() == "new"


def test_a_disk_that_refuses_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match=r"cannot be written \(Not a directory\).*same command continues"):
        write_whole(tmp_path / "file" / "run.json", "{}")


def test_of_several_writers_of_one_file_each_writes_a_whole_one(tmp_path: Path) -> None:
    with whole_file(tmp_path / "deep" / "file") as one, whole_file(tmp_path / "deep" / "file") as two:
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "deep" / "file").read_text() == "one"  # `two` was ended first
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_an_error_while_replacing_a_file_is_the_error_itself_and_leaves_the_old_one(tmp_path: Path) -> None:
    def fails() -> None:
        with replacing(tmp_path / "file") as partial:
            partial.write_text("half")
            raise ConnectionError("elsewhere")

    (tmp_path / "file").write_text("old")
    with pytest.raises(ConnectionError, match="elsewhere"):
        fails()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from lwddpm.files import complete_folder, whole_file\n"
        "with complete_folder(Path(sys.argv[1], 'model')), whole_file(Path(sys.argv[1], 'run.json')):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == -signal.SIGKILL
    write_whole(tmp_path / "kept", "")
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with replacing(tmp_path / "unfinished", mode=0o600) as partial:
            assert stat.S_IMODE(partial.stat().st_mode) == 0o600
        for text in ("first", "second"):
            write_private(tmp_path / "deep" / "secret", text)
    finally:
        os.umask(before)
    assert (tmp_path / "deep" / "secret").read_text() == "second"
    assert stat.S_IMODE((tmp_path / "deep" / "secret").stat().st_mode) == 0o600


def test_json_comes_back_and_damage_is_named(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    assert read_json(file) is None
    write_json(file, {"name": "ä", "metrics": {"eval/fid": 1.5}})
    assert read_json(file) == {"name": "ä", "metrics": {"eval/fid": 1.5}}
    for content in (b"", b'{"name": ', b"\xff", b"[1]"):
        file.write_bytes(content)
        with pytest.raises(JobError, match=r"result\.json: must .*; restore it, or remove it"):
            read_json(file)


def test_a_lock_that_is_not_waited_for_is_refused_while_it_is_held(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock):
        with pytest.raises(BlockingIOError, match="held by another process"), locked(lock, wait=False):
            pass
        assert lock.exists()
    with locked(lock, wait=False) as held:
        assert held


def test_on_a_filesystem_without_locks_work_goes_on_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock") as held:
        assert not held


def test_a_lock_on_a_removed_file_protects_nothing_and_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over NFS, where a removed file that somebody has open still counts a link."""
    lock, flock, times = tmp_path / "lock", fcntl.flock, []

    def removed_meanwhile(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if operation & fcntl.LOCK_EX and not times:
            lock.rename(tmp_path / ".nfs0001")
        times.append(operation)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with locked(lock) as held:
        assert held
        assert lock.exists()


def test_the_cache_is_where_the_user_says_else_where_the_system_keeps_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LWDDPM_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("LWDDPM_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == platformdirs.user_cache_path("lwddpm")
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / ".cache" / "lwddpm"
    assert state_folder() == tmp_path / ".lwddpm"


def test_what_several_write_once_is_the_first_ones(tmp_path: Path) -> None:
    file, start = tmp_path / "deep" / "token", threading.Barrier(8)

    def write(number: int) -> str:
        start.wait()
        write_private_once(file, f"{number}" * 1000)
        return file.read_text()

    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(write, range(8)))
    assert len(seen) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_a_private_folder_is_made_once_and_a_taken_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own"
    for _ in range(2):
        make_private_folder(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ConfigError, match=r"link: must be a folder, got a link .*set TMPDIR"):
        make_private_folder(tmp_path / "link")
    folder.chmod(0o770)
    with pytest.raises(ConfigError, match=r"own: must be open to you alone \(mode 700\), has mode 770; remove it"):
        make_private_folder(folder)
    folder.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)  # another user, who found it there
    with pytest.raises(ConfigError, match=rf"own: must belong to you .* belongs to user {folder.stat().st_uid}; "):
        make_private_folder(folder)


@pytest.mark.parametrize("length", [20, 72])
def test_sockets_fit_into_their_folder_whatever_the_temporary_one(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/".ljust(length, "t"))
    folder = socket_folder(below=70)
    assert folder.parent == Path(tempfile.gettempdir() if length < 40 else "/tmp")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="lw-") as place, socket.socket(socket.AF_UNIX) as listener:
        longest = 107 if sys.platform.startswith("linux") else 103
        fitting = Path(place, "s" * (longest - len(place) - 1))
        listener.bind(str(fitting))
        assert socket_fits(place, len(f"/{fitting.name}"))
        assert not socket_fits(place, len(f"/{fitting.name}s"))


def test_lock_excludes_and_dies_with_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import sys, time, pathlib; from lwddpm.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        waiter = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
        with waiter:
            assert waiter.stdout
            os.set_blocking(waiter.stdout.fileno(), False)
            time.sleep(1.0)
            assert waiter.stdout.read() is None
            os.kill(holder.pid, signal.SIGKILL)
            os.set_blocking(waiter.stdout.fileno(), True)
            assert waiter.stdout.readline() == b"held\n"
            waiter.kill()
    with locked(lock) as held:
        assert held
    assert not lock.exists()
