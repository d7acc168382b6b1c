"""What Pillow cannot read, rescales, or reads the upper or lower 8 bits of: TIFF of any depth, 16-bit colour.

Depth, sign and photometric sense are what the file says. TIFF is read by tifffile, with imagecodecs for compressed
ones; colour of PNG and all of JPEG 2000 by imagecodecs.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageFile

from lwddpm.data.intensity import Samples, samples_of
from lwddpm.data.sources import UnusableFile

if TYPE_CHECKING:
    import tifffile

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
ORIENTATION = 0x0112  # the EXIF tag, and TIFF's
MAX_CHANNELS = 8  # of a pixel, and planes of a volumetric page: more than that is no picture but a bomb
ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 1, 2  # TIFF's ExtraSamples; others are no opacity


@contextmanager
def open_tiff(path: Path) -> "Iterator[tifffile.TiffFile | None]":
    """The file where it is a TIFF whose pages can be listed, else None.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        is_tiff = file.read(4) in TIFF_STARTS
    if not is_tiff:
        yield None
        return
    import tifffile  # takes 0.2 s, which folders of other formats do without

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is the reason it is rejected
    try:
        tiff = tifffile.TiffFile(path)
        tiff.pages[0].aspage()
    except Exception:  # Pillow says what is wrong, or reads it
        yield None
        return
    with tiff:
        yield tiff


def tiff_pages(tiff: "tifffile.TiffFile") -> list[int]:
    """Numbers of the pages that are pictures of their own, from 0: neither thumbnails nor masks of others."""
    pages = [page.aspage() for page in tiff.pages]
    return [i for i, page in enumerate(pages) if i == 0 or not (page.is_reduced or page.is_mask)]


def num_tiff_pictures(tiff: "tifffile.TiffFile") -> int:
    """Number of pictures, with those of volumes that are written as one page; 1 where the file is damaged behind it."""
    try:
        depths = [tiff.pages[page].aspage().imagedepth for page in tiff_pages(tiff)]
        described = 1
        if len(depths) == 1 and tiff.pages[0].aspage().description:  # ImageJ's above 4 GiB
            described = tiff.series[0].size // tiff.pages[0].size
        return max(sum(depths), described)
    except Exception:
        return 1


def is_8_bit(page: "tifffile.TiffPage") -> bool:
    """Whether Pillow reads all of a page: unsigned integers of at most 8 bits."""
    return page.dtype is None or (page.dtype.kind in "bu" and page.dtype.itemsize == 1)


def read_tiff_page(page: "tifffile.TiffPage", max_pixels: int) -> tuple[Samples, int]:
    """The numbers of a page, and its orientation as in EXIF.

    Raises:
        UnusableFile: it is larger than `max_pixels`, or has colours of a kind that is not read.
    """
    import tifffile

    check_size(page.imagewidth, page.imagelength, max_pixels)
    if page.size > MAX_CHANNELS * max_pixels:
        most = f"{MAX_CHANNELS} times data.max_pixels = {max_pixels}"
        raise UnusableFile(f"{page.size:,} numbers in one page: more than {most}")
    photometric = tifffile.PHOTOMETRIC(page.photometric)
    num_colours = 3 if photometric == tifffile.PHOTOMETRIC.RGB else 1
    known = (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
    if photometric not in known or page.dtype is None or page.dtype.kind not in "iuf":
        raise UnusableFile(
            f"{photometric.name} of {page.bitspersample} bits ({page.dtype}) is not read; save it as grey or RGB"
        )
    # [separate planes, depth, height, width, channels] -> [height, width, all channels]
    planes = page.asarray(maxworkers=1).reshape(page.shaped)[:, 0]
    channels = np.moveaxis(planes, 0, 2).reshape(*planes.shape[1:3], -1)
    extra = list(page.extrasamples)
    alphas = [i for i, kind in enumerate(extra, num_colours) if kind in (ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA)]
    samples = samples_of(
        channels,
        num_colours,
        alpha=alphas[0] if alphas else None,
        premultiplied=ASSOCIATED_ALPHA in extra,
    )
    tag = page.tags.get(ORIENTATION)
    orientation = int(tag.value) if tag is not None else 1
    return samples._replace(low_is_white=photometric == tifffile.PHOTOMETRIC.MINISWHITE), orientation


def read_deep_pixels(path: Path, image: ImageFile.ImageFile) -> Samples | None:
    """The numbers of a picture that Pillow has opened and would cut to 8 bits or rescale; None for all others."""
    match image.format:
        case "PNG" if image.mode in ("LA", "RGB", "RGBA"):
            return _read_deep_png(path, image)
        case "JPEG2000":
            content = path.read_bytes()
            return _by_imagecodecs("jpeg2k_decode", content) if _jpeg2000_depth(content) > 8 else None
        case "PPM":
            return _read_deep_pnm(path, image)
        case "FITS" if image.mode == "I;16":  # they have a sign
            return Samples(np.asarray(image).astype(np.int16).astype(np.float64))
    return None


def has_deep_colour(path: Path, image: ImageFile.ImageFile) -> bool:
    """Whether Pillow shows a PNG, JPEG 2000 or PPM in a mode of 8 bits that has more."""
    match image.format:
        case "PNG":
            with path.open("rb") as file:
                return file.read(25)[24:] == b"\x10"  # the bit depth in IHDR
        case "JPEG2000":
            return _jpeg2000_depth(path.read_bytes()) > 8
        case "PPM":
            return _largest_number(image) > 255
    return False


def _read_deep_png(path: Path, image: ImageFile.ImageFile) -> Samples | None:
    if not has_deep_colour(path, image):
        return None
    if getattr(image, "n_frames", 1) > 1:
        raise UnusableFile("an animation of more than 8 bits is not read; save its frames one by one")
    return _by_imagecodecs("png_decode", path.read_bytes())


def _by_imagecodecs(decoder: str, content: bytes) -> Samples:
    import imagecodecs

    decoded: np.ndarray = getattr(imagecodecs, decoder)(content)
    channels = decoded if decoded.ndim == 3 else decoded[..., None]
    num_colours = 3 if channels.shape[-1] >= 3 else 1
    return samples_of(channels, num_colours, alpha=num_colours if channels.shape[-1] > num_colours else None)


def _read_deep_pnm(path: Path, image: ImageFile.ImageFile) -> Samples | None:
    """PGM and PPM of two bytes a number; Pillow rescales them by the largest one that the header allows."""
    if _largest_number(image) <= 255:
        return None
    shape = image.height, image.width, 3 if image.mode == "RGB" else 1
    with path.open("rb") as file:
        file.seek(image.tile[0].offset)
        numbers = np.fromfile(file, ">u2", count=math.prod(shape))
    return samples_of(numbers.reshape(shape), shape[2])


def _largest_number(image: ImageFile.ImageFile) -> int:
    """What the header of a binary PGM or PPM allows; 0 for other kinds, which Pillow reads as they are."""
    codec, _, _, args = image.tile[0]
    if codec == "ppm" and isinstance(args, tuple):
        return int(args[1])
    return 65535 if args == "I;16B" else 0


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises UnusableFile for a picture of too many pixels."""
    if width * height > max_pixels:
        raise UnusableFile(f"{width} x {height}: more pixels than data.max_pixels = {max_pixels}")


def _jpeg2000_depth(content: bytes) -> int:
    """Bits of the deepest channel, from the codestream's SIZ marker; 8 where there is none."""
    sizes = content.find(b"\xff\x4f\xff\x51")
    if sizes < 0 or len(content) < sizes + 43:
        return 8
    num = int.from_bytes(content[sizes + 40 : sizes + 42], "big")
    return max((depth & 0x7F) + 1 for depth in content[sizes + 42 : sizes + 42 + 3 * num : 3])
