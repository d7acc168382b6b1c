"""Image folders as a source of slices: which files belong, what they are called, which class and subject they show."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lwddpm.config import DataConfig
from lwddpm.data.decoding import decode, resample
from lwddpm.data.sources import Slice, UnusableFile
from lwddpm.errors import DataError

UNLABELLED = "unlabelled"
SHIPPED_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
SKIPPED = {"thumbs.db", "desktop.ini", "dataset.json"}


@dataclass(frozen=True)
class ImageFolder:
    """Images in `class/...` folders, in `Training|Testing/class/...`, or in one flat folder.

    The label is the name of the class folder. A shipped split is ignored (the published brain-tumour folders
    repeat training images in their test folder); the dataset is split anew, by groups.
    """

    root: str
    image_size: int
    fit: str
    crop_background: bool
    max_pixels: int
    subject_pattern: str | None
    shipped_split: bool

    simulated = False

    def scan(self) -> tuple[list[str], str]:
        digest, names = hashlib.sha256(), []
        for name, status in sorted(_walk(self.root, "")):
            names.append(name)
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return names, digest.hexdigest()

    def read(self, name: str) -> Slice:
        if not name.isascii() and name != name.encode("utf-8", "replace").decode():
            raise UnusableFile("its name is not valid UTF-8")
        luma = decode(Path(self.root, name), self.max_pixels)
        digest = hashlib.sha256(b"%d %d " % luma.size)
        digest.update(luma.tobytes())
        return Slice(resample(luma, self.image_size, self.fit, self.crop_background), digest.digest())

    def label(self, name: str) -> str:
        folders = name.split("/")[:-1][self.shipped_split :]
        return folders[0] if folders else UNLABELLED

    def subject_id(self, name: str) -> str | None:
        match = re.search(self.subject_pattern, name) if self.subject_pattern else None
        return match[1] if match else None


def open_image_folder(data: DataConfig) -> ImageFolder:
    """The folder `data.source` as a source; looks at its first level only.

    Raises:
        DataError: there is no such folder, or it cannot be listed.
    """
    root = Path(data.source).expanduser().absolute()
    try:
        folders = {
            entry.name.lower() for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")
        }
    except FileNotFoundError:
        raise DataError(
            f"data.source: {data.source}: no such folder; give a folder of images in class/ sub-folders, or 'phantom'"
        ) from None
    except NotADirectoryError:
        raise DataError(f"data.source: {data.source}: must be a folder of images, got a file") from None
    except OSError as error:
        raise DataError(f"data.source: {data.source}: cannot be listed ({error.strerror}); check its access") from None
    return ImageFolder(
        root=str(root),
        image_size=data.image_size,
        fit=data.fit,
        crop_background=data.crop_background,
        max_pixels=data.max_pixels,
        subject_pattern=data.subject_pattern,
        shipped_split=bool(folders) and folders <= SHIPPED_SPLITS,
    )


def _walk(
    root: str, prefix: str, parents: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, os.stat_result]]:
    """Relative path and status of every file that a user may mean as an image; follows links, but not in circles."""
    here = Path(root, prefix).stat()
    if (here.st_dev, here.st_ino) in parents:
        return
    with os.scandir(f"{root}/{prefix}") as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in SKIPPED:
                continue
            if entry.is_dir():
                yield from _walk(root, f"{prefix}{entry.name}/", parents | {(here.st_dev, here.st_ino)})
            elif entry.is_file() or entry.is_symlink():  # a link to nothing is a file that cannot be read
                yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=entry.is_file())
