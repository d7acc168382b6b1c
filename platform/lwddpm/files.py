"""Files that are whole or not there, whatever dies: written beside, forced to the disk, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lwddpm.errors import JobError


@contextmanager
def complete_folder(path: Path) -> Iterator[Path]:
    """Write into the yielded folder; it gets its name `path` when the block ends without an error.

    Raises:
        JobError: the disk is full, read-only or broken; nothing is left under the name.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        partial.chmod(0o755)
        try:
            yield partial
            for file in partial.rglob("*"):
                _force(file)  # a rename may reach the disk before the data: a power cut would leave an empty file
            if path.exists():
                shutil.rmtree(path)
            partial.replace(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write the yielded file; it gets its name `path` when the block ends without an error.

    Raises:
        JobError: as `complete_folder`.
    """
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            yield partial
            _force(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        JobError: as `complete_folder`.
    """
    with whole_file(path) as partial:
        partial.write_text(text)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process had begun to write; only for whoever alone writes there."""
    for path in folder.glob(".*-*"):
        shutil.rmtree(path, ignore_errors=True)


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


def _force(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
