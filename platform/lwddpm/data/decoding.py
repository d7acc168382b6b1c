"""Image files of any size, depth and mode become one uint8 greyscale slice.

- colour becomes luma (ITU-R BT.601); what is transparent becomes black;
- unsigned integers of at most 8 bits are read by Pillow and taken as they are;
- numbers of more bits, with signs or fractions become grey as `data.intensity` says (`intensity.py`): 12-bit scans in
  16-bit files would be nearly black on the full range of 16 bits;
- low values are bright where a TIFF says so (WhiteIsZero); the EXIF orientation is applied;
- of an animation or a multi-page file one page is read;
- resampling is Lanczos with antialiasing.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

from lwddpm.data.high_depth import (
    ORIENTATION,
    check_size,
    has_deep_colour,
    is_8_bit,
    num_tiff_pictures,
    open_tiff,
    read_deep_pixels,
    read_tiff_page,
    tiff_pages,
)
from lwddpm.data.intensity import Intensity, Samples, to_grey, value_range
from lwddpm.data.sources import UnusableFile

BACKGROUND = 20  # of 255: darker than this after 4x4 averaging is no head
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation


class Page(NamedTuple):
    """One page of a file as it was read.

    Attributes:
        picture: 8-bit luma (mode L), or numbers that are not scaled yet.
        orientation: how it is to be turned, as in EXIF; 1 where it is upright.
        num_pages: pages of the file; 1 where they were not asked for.
    """

    picture: Image.Image | Samples
    orientation: int = 1
    num_pages: int = 1


def decode(
    path: Path, max_pixels: int, intensity: Intensity = "percentiles", page: int | None = None
) -> tuple[Image.Image, int]:
    """Read a page of an image file as 8-bit luma (mode L), upright.

    Args:
        path: the file.
        max_pixels: larger pictures are refused unread.
        intensity: how numbers of more than 8 bits become grey, see `data.intensity`.
        page: number of the page, from 0; None for the first, and to count them. Pages share one range of values, from
            the lowest to the highest of their percentiles (or values), as slices of one scan should.

    Returns:
        The picture, and the number of pages (1 where they were not counted).

    Raises:
        UnusableFile: the file is empty, no image, damaged, unreadable, or larger than `max_pixels`.
    """
    with _saying_what_is_wrong(path, max_pixels):
        picture, orientation, num_pages = _read_page(path, max_pixels, page)
        if isinstance(picture, Samples):
            low, high = value_range(picture, intensity)
            if page is not None and not isinstance(intensity, tuple):
                status = path.stat()
                low, high = _range_of_all_pages(path, status.st_size, status.st_mtime_ns, max_pixels, intensity)
            picture = to_grey(picture, low, high)
        return picture.transpose(TURNS[orientation]) if orientation in TURNS else picture, num_pages


@contextmanager
def _saying_what_is_wrong(path: Path, max_pixels: int | None) -> Iterator[None]:
    """What decoders raise becomes an UnusableFile with the reason; Pillow refuses what `max_pixels` refuses."""
    try:
        with _pillow_limit(max_pixels):
            yield
    except UnusableFile:
        raise
    except Image.DecompressionBombError:
        raise UnusableFile(f"more pixels than data.max_pixels = {max_pixels}") from None
    except UnidentifiedImageError:
        raise UnusableFile("empty file" if path.stat().st_size == 0 else "not an image of a known format") from None
    except Exception as error:  # on damaged files decoders raise anything from SyntaxError to struct.error
        if isinstance(error, OSError) and error.errno is not None:
            raise UnusableFile(f"unreadable: {os.strerror(error.errno)}") from None
        raise UnusableFile(f"damaged or truncated: {error or type(error).__name__}") from None


def _read_page(path: Path, max_pixels: int, page: int | None) -> Page:
    with open_tiff(path) as tiff:
        num_pages = None
        if tiff is not None:
            num_pages = num_tiff_pictures(tiff) if page is None else 1
            tiff_page = tiff.pages[page or 0].aspage()
            if not is_8_bit(tiff_page):
                return Page(*read_tiff_page(tiff_page, max_pixels), num_pages)
    with Image.open(path) as image:
        if page:
            image.seek(page)
        check_size(image.width, image.height, max_pixels)
        turned = image.getexif().get(ORIENTATION, 1)
        picture: Image.Image | Samples | None = read_deep_pixels(path, image)
        if picture is None:
            image.draft("L", None)  # JPEG: leave the colour planes undecoded; convert("L") gives the same but rounding
            image.load()
            turned = image.getexif().get(ORIENTATION, 1) if turned != 1 else 1  # loading a TIFF turns it
            picture = _samples_or_luma(image)
        if num_pages is None:
            num_pages = 1
            if page is None:
                with suppress(Exception):  # a later page is damaged
                    num_pages = _num_frames(image)
        return Page(picture, turned, num_pages)


@lru_cache(maxsize=4)  # the slices of a file are read one after the other
def _range_of_all_pages(path: Path, size: int, time: int, max_pixels: int, intensity: Intensity) -> tuple[float, float]:
    """The range of values that the pages of a file share; `size` and `time` tell an earlier file of that name apart."""
    ranges = []
    for page in picture_pages(path, size, time):
        with suppress(UnusableFile), _saying_what_is_wrong(path, max_pixels):
            picture = _read_page(path, max_pixels, page).picture
            if isinstance(picture, Samples):
                ranges.append(value_range(picture, intensity))
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def is_deep(path: Path) -> bool:
    """Whether a file has more than 8 bits, signs or fractions, as far as its header tells."""
    with suppress(Exception), _pillow_limit(None):
        with open_tiff(path) as tiff:
            if tiff is not None:
                return not is_8_bit(tiff.pages[0].aspage())
        with Image.open(path) as image:
            return image.mode in ("I", "F") or image.mode.startswith("I;16") or has_deep_colour(path, image)
    return False


class ImageHeader(NamedTuple):
    """What the header of an image file says, as far as it is asked for."""

    width: int
    height: int
    is_deep: bool
    num_pages: int


def read_image_header(path: Path) -> ImageHeader | str:
    """The header of an image file, or why it cannot be used; decodes nothing."""
    try:
        with _saying_what_is_wrong(path, None):
            pages = len(list_pages(path))
            with open_tiff(path) as tiff:
                if tiff is not None:
                    page = tiff.pages[0].aspage()
                    return ImageHeader(page.imagewidth, page.imagelength, not is_8_bit(page), pages)
            with Image.open(path) as image:
                return ImageHeader(image.width, image.height, is_deep(path), pages)
    except UnusableFile as error:
        return str(error)


@lru_cache(maxsize=100_000)  # a source is scanned several times
def picture_pages(path: Path, size: int, time: int) -> tuple[int, ...]:
    """Numbers of the pages of a file that are pictures, from 0; the first where `list_pages` says what is wrong.

    Args:
        path: the file.
        size, time: its size and time, which tell an earlier file of that name apart.
    """
    try:
        return list_pages(path)
    except UnusableFile:
        return (0,)


def list_pages(path: Path) -> tuple[int, ...]:
    """Numbers of the pages of a file that are pictures, from 0.

    Raises:
        UnusableFile: the file is no image, unreadable, or damaged behind its first page.
    """
    with _saying_what_is_wrong(path, None):
        with open_tiff(path) as tiff:
            if tiff is not None:
                return tuple(tiff_pages(tiff))
        with Image.open(path) as image:
            return tuple(range(_num_frames(image)))


def _num_frames(image: Image.Image) -> int:
    """Pages of a file that Pillow has opened; the layers of a Photoshop file make one picture."""
    return 1 if image.format == "PSD" else getattr(image, "n_frames", 1)


def _samples_or_luma(image: Image.Image) -> Image.Image | Samples:
    if image.mode == "L" and not image.has_transparency_data:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Samples(np.asarray(image, dtype=np.float64))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return ImageChops.multiply(image.convert("RGB").convert("L"), image.getchannel("A"))
    return (image if image.mode in ("1", "RGB") else image.convert("RGB")).convert("L")


def resample(luma: Image.Image, size: int, fit: str, crop_background: bool) -> np.ndarray:
    """Bring a luma image to uint8 [size, size].

    Args:
        luma: mode L, any size.
        size: side in pixels.
        fit: "pad" keeps the aspect ratio on a black square, "stretch" does not.
        crop_background: first crop to the bounding box of what is brighter than the background.
    """
    if crop_background:
        luma = luma.crop(bright_box(luma))
    scale = size / max(luma.size)
    width, height = (size, size) if fit == "stretch" else (max(1, round(side * scale)) for side in luma.size)
    # Averaging whole pixels down to twice the target first halves the time, and dims only the finest details a slice
    # can hold, by a tenth (sinc(1/4) = 0.90 at its Nyquist frequency).
    resized = np.asarray(luma.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0))
    return on_square(resized, size)


def on_square(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture [H, W], neither side longer than `size`, in the middle of a black square: uint8 [size, size]."""
    height, width = picture.shape
    square = np.zeros((size, size), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = picture
    return square


def bright_box(luma: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is not background; the whole image where all is background."""
    factor = max(1, min(4, *luma.size))  # averaging removes specks of noise and of lossy compression
    box = luma.reduce(factor).point(lambda value: 255 * (value > BACKGROUND)).getbbox()
    left, top, right, bottom = (side * factor for side in box or (0, 0, *luma.size))
    return left, top, min(right, luma.width), min(bottom, luma.height)


@contextmanager
def _pillow_limit(max_pixels: int | None) -> Iterator[None]:
    """Let Pillow refuse what `max_pixels` refuses, rather than its own limit, and keep its warnings to itself."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
