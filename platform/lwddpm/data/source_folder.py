"""What folders of images and of volumes have in common: opening them, which files are wanted, classes by folder."""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, Self

from lwddpm.config import DataConfig
from lwddpm.data.folder_walk import DATASET, SAMPLES, WalkedFile, own_output, walk
from lwddpm.data.sources import UNLABELLED
from lwddpm.errors import DataError

SYSTEM = "files and folders that are hidden, left behind by systems or made by lwddpm"


class Listing(NamedTuple):
    """Wanted files of a folder, sorted by name; `excluded`: how many data.include and data.exclude leave out."""

    files: list[WalkedFile]
    excluded: int

    def digest(self) -> "hashlib._Hash":
        """SHA-256 of the files' names, sizes and times, to which a source may add."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.name}\0{file.size}\0{file.time}\n".encode(errors="surrogateescape"))
        return digest


@dataclass(frozen=True)
class SourceFolder:
    """What all folders that are sources have in common: settings of section `data`, and which files these leave in."""

    root: str
    subject_pattern: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    simulated: bool
    label_from: str | int

    @classmethod
    def of(cls, data: DataConfig, root: str, **own: Any) -> Self:
        """A folder with the settings of a job.

        Args:
            data: the settings.
            root: the folder, as `open_folder` found it.
            own: fields of a sub-class.
        """
        return cls(root, data.subject_pattern, data.include, data.exclude, data.synthetic, data.label_from, **own)

    def wanted(self, name: str) -> bool:
        """Whether `data.include` and `data.exclude` leave a file in."""
        included = not self.include or any(fnmatchcase(name, pattern) for pattern in self.include)
        return included and not any(fnmatchcase(name, pattern) for pattern in self.exclude)

    def list_files(self, pass_over: Callable[[str, str], None] = lambda name, kind: None) -> Listing:
        """Walk the folder; `pass_over` is told what is not even looked at, see `folder_walk.walk`."""
        files = sorted(walk(self.root, pass_over=pass_over))
        wanted = [file for file in files if self.wanted(file.name)]
        return Listing(wanted, len(files) - len(wanted))

    def subject_of(self, file: str) -> str | None:
        """What `data.subject_pattern` matches in the name of a file."""
        match = re.search(self.subject_pattern, file) if self.subject_pattern else None
        return match[1] if match else None


class OpenedFolder(NamedTuple):
    """An absolute path, and what lies directly in it."""

    root: str
    entries: "list[os.DirEntry[str]]"


def open_folder(data: DataConfig) -> OpenedFolder:
    """The folder `data.source`.

    Raises:
        DataError: there is no such folder, it cannot be listed, or this platform has made it.
    """
    contents = {"nifti": "NIfTI volumes", "dicom": "DICOM files"}.get(data.format, "images")
    root = Path(data.source).expanduser().absolute()
    try:
        with os.scandir(root) as listing:
            entries = list(listing)
    except FileNotFoundError:
        layout = contents if data.reads_volumes else "images in class/ sub-folders"
        raise DataError(
            f"data.source: {data.source}: no such folder; give a folder of {layout}, or 'phantom'"
        ) from None
    except NotADirectoryError:
        raise DataError(f"data.source: {data.source}: must be a folder of {contents}, got a file") from None
    except OSError as error:
        raise DataError(f"data.source: {data.source}: cannot be listed ({error.strerror}); check its access") from None
    output = own_output(root, {entry.name for entry in entries})
    if output not in (None, SAMPLES):
        remedy = "name it in data.path instead" if output == DATASET else "give a folder of scans"
        raise DataError(f"data.source: {data.source}: must be a folder of {contents}, got {output} of lwddpm; {remedy}")
    return OpenedFolder(str(root), entries)


def label_by_folder(file: str, label_from: str | int, class_level: int = 0) -> str:
    """The folder above a file that `data.label_from` names; `class_level` folders lie above it where that is "auto"."""
    folders = file.split("/")[:-1]
    match label_from:
        case "auto":
            folders = folders[class_level:]
        case "parent":
            folders = folders[-1:]
        case "none":
            folders = []
        case level:
            assert isinstance(level, int)
            folders = folders[level - 1 :]
    return folders[0] if folders else UNLABELLED
