"""Image folders as a source of slices: which files belong, what they are called, and how they are decoded.

Any size and mode becomes one uint8 greyscale slice of `image_size`:
- colour becomes luma (ITU-R BT.601); what is transparent becomes black;
- integers of more than 8 bits and floats are scaled linearly from their own range to 0..255, because 12-bit
  scans in 16-bit files would be nearly black on the full range (16-bit RGB is the exception: Pillow keeps only the
  high byte);
- the EXIF orientation is applied; of an animation or a multi-page file the first frame is read;
- resampling is Lanczos with antialiasing.
"""

import hashlib
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from lwddpm.config import DataConfig
from lwddpm.errors import DataError

UNLABELLED = "unlabelled"
SHIPPED_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
SKIPPED = {"thumbs.db", "desktop.ini", "dataset.json"}
BACKGROUND = 20  # of 255: darker than this after 4x4 averaging is no head
ORIENTATION = 0x0112


class UnusableFile(Exception):  # noqa: N818
    """Why one file cannot become a slice; it is listed in the manifest, and the others go on."""


class Slice(NamedTuple):
    """One decoded slice: uint8 [S, S], and the SHA-256 of its pixels before resampling."""

    image: np.ndarray
    pixels_sha256: bytes


class Source(Protocol):
    """Named slices. Picklable and small: workers receive it with every chunk of names."""

    @property
    def simulated(self) -> bool: ...

    def scan(self) -> tuple[list[str], str]:
        """Names of all slices, sorted, and a fingerprint that changes when the source does."""
        ...

    def read(self, name: str) -> Slice:
        """Decode one slice. Raises UnusableFile."""
        ...

    def label(self, name: str) -> str: ...

    def subject_id(self, name: str) -> str | None: ...


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


def decode(path: Path, max_pixels: int) -> Image.Image:
    """Read an image file as 8-bit luma (mode L), upright.

    Raises:
        UnusableFile: the file is empty, no image, damaged, unreadable, or larger than `max_pixels`.
    """
    too_large = f"more pixels than data.max_pixels = {max_pixels}"
    try:
        with _pillow_limit(max_pixels), Image.open(path) as image:
            if image.width * image.height > max_pixels:
                raise UnusableFile(f"{image.width} x {image.height}: {too_large}")
            turned = image.getexif().get(ORIENTATION, 1) != 1
            image.draft("L", None)  # JPEG: leave the colour planes undecoded; convert("L") gives the same but rounding
            image.load()
            return _luma(ImageOps.exif_transpose(image) if turned else image)
    except UnusableFile:
        raise
    except Image.DecompressionBombError:
        raise UnusableFile(too_large) from None
    except UnidentifiedImageError:
        raise UnusableFile("empty file" if path.stat().st_size == 0 else "not an image of a known format") from None
    except Exception as error:  # on damaged files decoders raise anything from SyntaxError to struct.error
        if isinstance(error, OSError) and error.errno is not None:
            raise UnusableFile(f"unreadable: {os.strerror(error.errno)}") from None
        raise UnusableFile(f"damaged or truncated: {error or type(error).__name__}") from None


def resample(luma: Image.Image, size: int, fit: str, crop_background: bool) -> np.ndarray:
    """Bring a luma image to uint8 [size, size].

    Args:
        luma: mode L, any size.
        size: side in pixels.
        fit: "pad" keeps the aspect ratio on a black square, "stretch" does not.
        crop_background: first crop to the bounding box of what is brighter than the background.
    """
    if crop_background:
        luma = luma.crop(_bright_box(luma))
    scale = size / max(luma.size)
    width, height = (size, size) if fit == "stretch" else (max(1, round(side * scale)) for side in luma.size)
    # Averaging whole pixels down to twice the target first halves the time, and dims only the finest details a slice
    # can hold, by a tenth (sinc(1/4) = 0.90 at its Nyquist frequency).
    resized = np.asarray(luma.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0))
    square = np.zeros((size, size), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = resized
    return square


def _luma(image: Image.Image) -> Image.Image:
    if image.mode == "L" and not image.has_transparency_data:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        low, high = values.min(), values.max()
        if not np.isfinite(high - low):
            raise UnusableFile("has values that are not finite")
        scaled = (values - low) * (255 / (high - low) if high > low else 0)
        return Image.fromarray(scaled.round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return ImageChops.multiply(image.convert("RGB").convert("L"), image.getchannel("A"))
    return (image if image.mode in ("1", "RGB") else image.convert("RGB")).convert("L")


def _bright_box(luma: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is not background; the whole image where all is background."""
    factor = max(1, min(4, *luma.size))  # averaging removes specks of noise and of lossy compression
    box = luma.reduce(factor).point(lambda value: 255 * (value > BACKGROUND)).getbbox()
    left, top, right, bottom = (side * factor for side in box or (0, 0, *luma.size))
    return left, top, min(right, luma.width), min(bottom, luma.height)


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow refuse what `max_pixels` refuses, rather than its own limit, and keep its warnings to itself."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


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
