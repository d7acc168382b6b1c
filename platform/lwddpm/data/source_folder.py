"""What folders of images and of volumes have in common: opening them, which files are wanted, classes by folder."""

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from lwddpm.config import DataConfig
from lwddpm.data.folder_walk import DATASET, SAMPLES, own_output
from lwddpm.data.sources import UNLABELLED
from lwddpm.errors import DataError

SYSTEM = "files and folders that are hidden, left behind by systems or made by lwddpm"


class OpenedFolder(NamedTuple):
    """An absolute path, and what lies directly in it."""

    root: Path
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
    return OpenedFolder(root, entries)


def is_wanted(name: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Whether `data.include` and `data.exclude` leave a file in."""
    included = not include or any(fnmatchcase(name, pattern) for pattern in include)
    return included and not any(fnmatchcase(name, pattern) for pattern in exclude)


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
