"""Which files of a folder a user may mean as images: neither clutter nor what this platform has made itself."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SKIPPED_FILES = {"thumbs.db", "desktop.ini", "dataset.json", "mlflow.db", "mlflow.db-journal"}
# of macOS archives, Synology and QNAP, Windows, Linux; MLflow's artifacts
SKIPPED_FOLDERS = {
    "__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found", "mlruns",
}  # fmt: skip

DATASET, RUN, REPORT, SAMPLES = "a prepared dataset", "a run folder", "a comparison's report", "generated samples"
# file -> a key that it has, and what the folder then is
MARKS = {
    "dataset.json": ("source_fingerprint", DATASET),
    "run.json": ("tracking_uri", RUN),
    "report.json": ("simulated", REPORT),
    "samples.json": ("synthetic", SAMPLES),
}
SYSTEM_FILE, SYSTEM_FOLDER, OUTPUT = "system file", "system folder", "output"  # what is passed over
BESIDE_SAMPLES = {"grid.png", "samples.json"}


class WalkedFile(NamedTuple):
    """A file, or a folder that cannot be listed: its path below the root, and its status where there is one.

    `generated`: it lies in a folder of generated samples.
    """

    name: str
    status: os.stat_result | None
    generated: bool

    @property
    def size(self) -> int:
        return self.status.st_size if self.status else 0

    @property
    def time(self) -> int:
        """When it was changed, in ns."""
        return self.status.st_mtime_ns if self.status else 0


def own_output(folder: str | Path, file_names: set[str]) -> str | None:
    """What of this platform's outputs a folder is, by the file that marks it; None where it is none."""
    for file, (key, kind) in MARKS.items():
        if file in file_names and key in _json_object(Path(folder, file)):
            return kind
    return None


def walk(
    root: str,
    prefix: str = "",
    parents: frozenset[tuple[int, int]] = frozenset(),
    pass_over: Callable[[str, str], None] = lambda name, kind: None,
) -> Iterator[WalkedFile]:
    """Every file below `root`/`prefix`, except clutter and prepared datasets, runs and reports of this platform.

    Links are followed, but not in circles. A file or folder that cannot be looked at is yielded like a file, so that
    reading it says why.

    Args:
        root, prefix: where to look.
        parents: the folders above, by device and inode.
        pass_over: is told what is left out, by its path below the root, and of which kind it is.

    Raises:
        OSError: `root` itself cannot be listed.
    """
    try:
        here = Path(root, prefix).stat()
        if (here.st_dev, here.st_ino) in parents:
            return
        with os.scandir(f"{root}/{prefix}") as listing:
            listed = sorted(listing, key=lambda entry: entry.name)
        entries: list[os.DirEntry[str]] = []
        clutter: list[os.DirEntry[str]] = []
        for entry in listed:
            (clutter if is_clutter(entry) else entries).append(entry)
        file_names = {entry.name for entry in entries} | {"dataset.json"}
    except OSError:
        if not prefix:
            raise
        yield WalkedFile(prefix.rstrip("/"), None, generated=False)
        return
    output = own_output(f"{root}/{prefix}", file_names)
    if output in (DATASET, RUN, REPORT):
        pass_over(prefix.rstrip("/"), OUTPUT)
        return
    for entry in clutter:
        pass_over(f"{prefix}{entry.name}", SYSTEM_FOLDER if is_folder(entry) else SYSTEM_FILE)
    for entry in entries:
        if is_folder(entry):
            yield from walk(root, f"{prefix}{entry.name}/", parents | {(here.st_dev, here.st_ino)}, pass_over)
        elif output != SAMPLES or entry.name not in BESIDE_SAMPLES:
            try:
                if entry.is_file() or entry.is_symlink():
                    yield WalkedFile(
                        f"{prefix}{entry.name}", entry.stat(follow_symlinks=entry.is_file()), output == SAMPLES
                    )
            except OSError:  # a link to itself
                yield WalkedFile(f"{prefix}{entry.name}", None, output == SAMPLES)
        else:
            pass_over(f"{prefix}{entry.name}", OUTPUT)


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder or a link to one; a link to itself or to nothing is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_clutter(entry: "os.DirEntry[str]") -> bool:
    """Whether it is hidden, or a file or folder that systems leave behind."""
    if entry.name.startswith("."):
        return True
    return entry.name.lower() in (SKIPPED_FOLDERS if is_folder(entry) else SKIPPED_FILES)


def _json_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
