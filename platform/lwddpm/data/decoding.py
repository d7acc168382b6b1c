"""Image files of any size and mode become one uint8 greyscale slice.

- colour becomes luma (ITU-R BT.601); what is transparent becomes black;
- integers of more than 8 bits and floats are scaled linearly from their own range to 0..255, because 12-bit
  scans in 16-bit files would be nearly black on the full range (16-bit RGB is the exception: Pillow keeps only the
  high byte);
- the EXIF orientation is applied; of an animation or a multi-page file the first frame is read;
- resampling is Lanczos with antialiasing.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from lwddpm.data.sources import UnusableFile

BACKGROUND = 20  # of 255: darker than this after 4x4 averaging is no head
ORIENTATION = 0x0112  # the EXIF tag


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
