"""The image that an edit begins with, and its mask: any file that `decoding` reads, or a row of a dataset."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lwddpm.config import DataConfig, EditConfig
from lwddpm.data.decoding import bright_box, decode, resample
from lwddpm.data.manifest import MANIFEST, SPLITS
from lwddpm.data.sources import UnusableFile
from lwddpm.data.store import open_dataset
from lwddpm.errors import DataError

_WHITE = 128  # of 255: as bright or brighter is drawn anew


class Given(NamedTuple):
    """What an edit begins with.

    Attributes:
        source: uint8 [S, S].
        mask: True where to draw anew, bool [S, S]; None where the edit has none.
        brought: how the picture came to that size, in words; "" where it had it.
    """

    source: np.ndarray
    mask: np.ndarray | None
    brought: str = ""


def read_pictures(edit: EditConfig) -> tuple[Image.Image, Image.Image | None]:
    """The image and the mask, of any size, mode L.

    Raises:
        DataError: a file cannot be read, or the mask has another size or leaves nothing to do; names the setting.
    """
    key = "inpaint" if edit.inpaint is not None else "variations"
    picture = _read(getattr(edit, key), f"edit.{key}")
    if edit.mask is None:
        return picture, None
    mask = _read(edit.mask, "edit.mask")
    if mask.size != picture.size:
        raise DataError(
            f"edit.mask: must be as large as its image, {_size(picture)}, got {edit.mask} of {_size(mask)}; draw the "
            "mask on a copy of the image"
        )
    _check_mask(np.asarray(mask) >= _WHITE, edit.mask)
    return picture, mask


def bring_to_size(edit: EditConfig, image_size: int) -> Given:
    """What an edit begins with, in the model's size: as `prepare` brings a picture to it, where it has another.

    Raises:
        DataError: as `read_pictures`; or nothing of the mask is left in that size.
    """
    picture, mask = read_pictures(edit)
    if picture.size == (image_size, image_size):
        return Given(np.array(picture), None if mask is None else np.asarray(mask) >= _WHITE)
    brought = f"from {_size(picture)} to {image_size} x {image_size}"
    if edit.crop_background:
        box = bright_box(picture)
        picture, mask = picture.crop(box), None if mask is None else mask.crop(box)
        brought += ", cropped to what is brighter than the background"
    if picture.width != picture.height:
        brought += ", stretched" if edit.fit == "stretch" else ", on a black square"
    source = resample(picture, image_size, edit.fit, False)
    if mask is None:
        return Given(source, None, brought)
    drawn = resample(mask.point(lambda value: 255 * (value >= _WHITE)), image_size, edit.fit, False) >= _WHITE
    _check_mask(drawn, f"{edit.mask} {brought}")
    return Given(source, drawn, brought)


def _read(name: str, key: str) -> Image.Image:
    path = Path(name)
    if (row := _row(path)) is not None:
        return row
    try:
        return decode(path, DataConfig.model_fields["max_pixels"].default)[0]
    except UnusableFile as error:
        raise DataError(f"{key}: must be an image that can be read, got {name} ({error}); name another file") from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{key}: must be an image that can be read, got {name} ({reason}); name another file") from None


def _row(path: Path) -> Image.Image | None:
    """The slice `DATASET/SPLIT/ROW` of a prepared dataset, or None where a path is none of these."""
    split, folder = path.parent.name, path.parent.parent
    if split not in SPLITS or not path.name.isdigit() or not (folder / MANIFEST).is_file():
        return None
    dataset = open_dataset(str(folder))
    if int(path.name) >= (num := dataset.num(split)):
        raise DataError(f"{path}: the row must be below the {num} slices of split {split}; name another one")
    return Image.fromarray(np.array(dataset.images(split)[int(path.name)]))


def _check_mask(drawn: np.ndarray, name: str) -> None:
    if drawn.any() and not drawn.all():
        return
    found = "is all white: nothing is kept" if drawn.all() else "has no white: nothing is drawn"
    raise DataError(
        f"edit.mask: must be white where to draw anew and black elsewhere, got {name}, which {found}; paint it"
    )


def _size(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height} pixels"
