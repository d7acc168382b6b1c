"""The folder in which a dataset is prepared, and how the dataset becomes visible at once when it is finished."""

import glob
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from lwddpm.data.location import Location, writing_target
from lwddpm.data.manifest import MANIFEST, SPLITS
from lwddpm.errors import DataError
from lwddpm.files import flush_to_disk, locked

OURS = re.compile(rf"({'|'.join(SPLITS)})-\d+\.parquet|{re.escape(MANIFEST)}|\.preparing-.*")
ABANDONED_S = 24 * 3600


@dataclass(frozen=True)
class Workspace:
    """An unfinished dataset and its way to `target`.

    On a local (or mounted) filesystem everything is written to a hidden sibling of the target and renamed.
    Object stores cannot rename folders: shards go to the target, and `dataset.json`, which makes a folder a
    dataset, is written last.
    """

    target: Location
    scratch: Location

    @property
    def staging(self) -> Location:
        return self.scratch / "staging"

    @property
    def dataset(self) -> Location:
        """Where to write the shards."""
        return self.scratch / "dataset" if self.target.is_local else self.target

    @writing_target()
    def create(self) -> None:
        for folder in (self.staging, self.dataset):
            folder.filesystem.create_dir(folder.path, recursive=True)
        if not self.target.is_local:
            for info in _entries(self.target):  # the manifest first: without it nothing is a dataset
                if info.type == fs.FileType.File and OURS.fullmatch(info.base_name):
                    self.target.filesystem.delete_file(info.path)

    @writing_target()
    def publish(self, manifest: str) -> None:
        """Make the dataset visible, replacing one that may be there."""
        (self.dataset / MANIFEST).write_bytes(manifest.encode())
        if self.target.is_local:
            target = Path(self.target.path)
            flush_to_disk(Path(self.dataset.path))
            if target.exists():
                target.rename(f"{self.scratch.path}/replaced")
            Path(self.dataset.path).rename(target)


@contextmanager
def open_workspace(target: Location) -> Iterator[Workspace]:
    """A workspace that is gone afterwards. Removes what killed preparations of the same target left behind.

    A second local preparation of the same target waits for the first.

    Raises:
        TargetError: nothing can be written there.
    """
    token = secrets.token_hex(4)
    if not target.is_local:
        with writing_target():
            _remove_abandoned(target)
        workspace = Workspace(target, target / f".preparing-{token}")
        try:
            yield workspace
        finally:
            with writing_target():
                if workspace.scratch.filesystem.get_file_info(workspace.scratch.path).type != fs.FileType.NotFound:
                    workspace.scratch.filesystem.delete_dir(workspace.scratch.path)
        return
    folder, name = Path(target.path).parent, Path(target.path).name
    with ExitStack() as stack:
        with writing_target():
            folder.mkdir(parents=True, exist_ok=True)
            held = stack.enter_context(locked(folder / f".{name}.lock"))
        if held:  # nobody else prepares this target now, so whatever lies there is abandoned
            for abandoned in folder.glob(f".{glob.escape(name)}.preparing-*"):
                shutil.rmtree(abandoned, ignore_errors=True)
        workspace = Workspace(target, Location(target.filesystem, f"{folder}/.{name}.preparing-{token}"))
        try:
            yield workspace
        finally:
            shutil.rmtree(workspace.scratch.path, ignore_errors=True)


def check_target(target: Location) -> None:
    """Refuse a target that cannot become a dataset, without writing anything.

    Raises:
        DataError: it is a file, holds files that are not a dataset's, or cannot be written.
    """
    if target.is_local:
        parent = next(folder for folder in Path(target.path).parents if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise DataError(f"data.path: {target.path}: {parent} is not a writable folder; set another data.path")
    try:
        if target.filesystem.get_file_info(target.path).type == fs.FileType.File:
            raise DataError(f"data.path: {target.path}: must be a folder, got a file; set another data.path")
        foreign = sorted(info.base_name for info in _entries(target) if not OURS.fullmatch(info.base_name))
    except OSError as error:
        raise DataError(f"data.path: {target.path}: cannot be reached ({error}); check it and its access") from error
    if foreign:
        raise DataError(
            f"data.path: {target.path}: must be a new folder or a prepared dataset, but holds {foreign[0]!r}; "
            "set another data.path"
        )


def _entries(folder: Location) -> list[fs.FileInfo]:
    """What lies directly in a folder, the manifest first; nothing where there is no folder."""
    entries = folder.filesystem.get_file_info(fs.FileSelector(folder.path, allow_not_found=True))
    return sorted(entries, key=lambda info: info.base_name != MANIFEST)


def _remove_abandoned(target: Location) -> None:
    """Object stores have no locks: a workspace where nothing was written for a day has no owner."""
    for entry in _entries(target):
        if entry.base_name.startswith(".preparing-"):
            content = target.filesystem.get_file_info(fs.FileSelector(entry.path, recursive=True))
            newest = max((info.mtime.timestamp() for info in content if info.mtime is not None), default=0.0)
            if newest < time.time() - ABANDONED_S:
                target.filesystem.delete_dir(entry.path)
