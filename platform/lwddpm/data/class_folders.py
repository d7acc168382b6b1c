"""Which folders of a source are classes: wrapping folders and shipped splits above them are passed over."""

import os
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from PIL import Image

from lwddpm.data.folder_walk import is_clutter, is_folder, walk

# Training, Testing; train, valid, test_images
_SPLIT = re.compile(
    r"(train|training|val|valid|validation|test|testing)([-_ ]?(data|images?|imgs?|set))?", re.IGNORECASE
)


def class_level(root: str, wanted: Callable[[str], bool]) -> int:
    """How many levels of folders lie above the class folders.

    One level is passed over if all its folders that hold images are named like splits, or if all its folders are;
    levels with a single folder above such a level are passed over with it (`archive/brain/Training/class`). A single
    folder is passed over for no other reason: it may be the only class.

    Args:
        root: the source.
        wanted: whether a file is taken, by its path below root.
    """
    prefix, level = "", 0
    while True:
        folders, images_here = _list_level(root, prefix)
        holding = [
            name
            for name in folders
            if any(_is_image(file.name) and wanted(file.name) for file in walk(root, f"{prefix}{name}/"))
        ]
        if any(names and all(_SPLIT.fullmatch(name) for name in names) for names in (folders, holding)):
            return level + 1
        if images_here or len(holding) != 1:
            return 0
        prefix, level = f"{prefix}{holding[0]}/", level + 1


def describe_classes(counts: dict[str, int], of_volumes: bool = False) -> list[str]:
    """Names and sizes of the classes, and what looks wrong with the names."""
    remedy = (
        "data.label says what the class of a volume is"
        if of_volumes
        else "data.label_from says which folders are classes"
    )
    most = 20
    listed = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:most])
    more = f" and {len(counts) - most} more" if len(counts) > most else ""
    title = "1 class" if len(counts) == 1 else f"{len(counts)} classes"
    return [f"{title}: {listed}{more} ({remedy})"] + [
        f"{' and '.join(names)} are {len(names)} classes: rename their folders if they are meant to be one"
        for names in names_alike(counts)
    ]


def names_alike(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in nothing but case, spaces and punctuation, such as Glioma and glioma, together."""
    alike: dict[str, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(re.sub(r"[\W_]+", "", name.casefold()) or name, []).append(name)
    return [group for group in alike.values() if len(group) > 1]


def _list_level(root: str, prefix: str) -> tuple[list[str], bool]:
    """Names of the folders at one level, and whether images lie beside them."""
    try:
        with os.scandir(f"{root}/{prefix}") as listing:
            entries = [entry for entry in listing if not is_clutter(entry)]
    except OSError:
        return [], False
    folders = sorted(entry.name for entry in entries if is_folder(entry))
    return folders, any(_is_image(entry.name) for entry in entries if entry.name not in folders)


def _is_image(name: str) -> bool:
    """Whether its suffix is that of an image; a file without one may be an image too."""
    suffix = Path(name).suffix.lower()
    return not suffix or suffix in _image_suffixes()


@lru_cache(maxsize=1)
def _image_suffixes() -> frozenset[str]:
    return frozenset(Image.registered_extensions()) - {".pdf", ".ps", ".eps", ".h5", ".hdf"}
