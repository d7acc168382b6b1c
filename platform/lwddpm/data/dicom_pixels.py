"""Pixels of DICOM files: from native, deflated or compressed pixel data to numbers.

Compressed pictures are decoded by imagecodecs, which other formats need anyway. GDCM (python-gdcm) ends the process on
some damaged streams of every kind, and pydicom reads no 12-bit JPEG with it; pylibjpeg-libjpeg is under the GPL.
"""

import io
import itertools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lwddpm.data.dicom import BIG_ENDIAN, DEFLATED, Encoding, inflate
from lwddpm.data.sources import UnusableFile

NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", BIG_ENDIAN, DEFLATED}
JPEG = "1.2.840.10008.1.2.4."
# by UID: the codec of imagecodecs, and what people call it
COMPRESSED = {
    "1.2.840.10008.1.2.5": ("packbits", "RLE"),
    f"{JPEG}50": ("jpeg8", "JPEG Baseline"),
    f"{JPEG}51": ("jpeg8", "JPEG Extended"),
    f"{JPEG}57": ("jpegsof3", "JPEG Lossless"),
    f"{JPEG}70": ("jpegsof3", "JPEG Lossless SV1"),
    f"{JPEG}80": ("jpegls", "JPEG-LS"),
    f"{JPEG}81": ("jpegls", "JPEG-LS near-lossless"),
    f"{JPEG}90": ("jpeg2k", "JPEG 2000 lossless"),
    f"{JPEG}91": ("jpeg2k", "JPEG 2000"),
}
SIZES_OF_JPEG = {0xC0, 0xC1, 0xC2, 0xC3, 0xF7}  # markers before the size of a picture
INFLATED_SLACK = 1 << 20  # of a deflated file, beyond its pixel data


class Place(NamedTuple):
    """Where a picture lies in a file, see `dicom.Header`."""

    offset: int
    length: int
    frame: int
    num_frames: int


def is_readable(encoding: Encoding) -> bool:
    return encoding.syntax in NATIVE or encoding.syntax in COMPRESSED


def read_pictures(path: Path, encoding: Encoding, places: Sequence[Place]) -> list[np.ndarray]:
    """Some pictures of a file as its numbers [rows, columns], low bits alone, with sign, not inverted.

    Raises:
        UnusableFile: one is damaged or is not as the header says.
    """
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters of them becomes a reason
        source: Any = file
        if encoding.syntax == DEFLATED:
            source = io.BytesIO(inflate(file, places[0].offset + _num_bytes(encoding, places[0]) + INFLATED_SLACK))
        if places[0].length < 0:
            return _decode(source, encoding, places)
        if encoding.syntax not in NATIVE:
            raise UnusableFile("damaged: its pixel data are said to be compressed, and are not")
        return [_native(source, encoding, place) for place in places]


def _num_bytes(encoding: Encoding, place: Place) -> int:
    return encoding.rows * encoding.columns * encoding.allocated // 8 * place.num_frames


def _native(source: Any, encoding: Encoding, place: Place) -> np.ndarray:
    size = _num_bytes(encoding, place) // place.num_frames
    source.seek(place.offset + place.frame * size)
    content = source.read(size)
    if len(content) < size:
        raise UnusableFile("truncated: its header promises more pixels than it has")
    order = ">" if encoding.syntax == BIG_ENDIAN else "<"
    numbers = np.frombuffer(content, f"{order}u{encoding.allocated // 8}")
    return _values(numbers.astype(numbers.dtype.newbyteorder("=")), encoding)


def _decode(source: Any, encoding: Encoding, places: Sequence[Place]) -> list[np.ndarray]:
    from pydicom.encaps import generate_frames

    if encoding.syntax not in COMPRESSED:
        raise UnusableFile("compressed in a way that is not read")
    wanted = {place.frame: number for number, place in enumerate(places)}
    pictures: dict[int, np.ndarray] = {}
    source.seek(places[0].offset)
    for frame, stream in enumerate(generate_frames(source, number_of_frames=places[0].num_frames)):
        if frame in wanted:
            pictures[wanted[frame]] = _picture(stream, encoding)
        if len(pictures) == len(wanted):
            break
    if len(pictures) < len(wanted):
        raise UnusableFile(f"truncated: {len(pictures)} of {len(wanted)} frames are there")
    return [pictures[number] for number in range(len(places))]


def _picture(stream: bytes, encoding: Encoding) -> np.ndarray:
    import imagecodecs

    codec, name = COMPRESSED[encoding.syntax]
    shape = (encoding.rows, encoding.columns)
    if codec == "packbits":
        return _values(_unpack(stream, encoding), encoding)
    stream = stream[:-1] if stream[-3:-1] == b"\xff\xd9" else stream  # padded to an even length
    if codec != "jpeg2k" and not stream.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise UnusableFile(f"truncated: its picture ({name}) has no end")  # on which CharLS never ends
    if (said := _size(stream, codec)) != shape:
        size = f"{said[1]} x {said[0]}" if said else "no"
        raise UnusableFile(f"damaged: its header says {shape[1]} x {shape[0]} pixels, its picture ({name}) {size}")
    decode: Callable[..., np.ndarray] = getattr(imagecodecs, f"{codec}_decode")
    picture = decode(stream)
    if picture.shape != shape or picture.dtype.kind not in "iu":
        raise UnusableFile(f"damaged: its picture ({name}) is no grey one of {shape[1]} x {shape[0]} pixels")
    if picture.dtype.kind == "i":  # JPEG 2000 says itself which numbers have signs
        return picture.copy()
    return _values(picture.ravel(), encoding)


def _unpack(stream: bytes, encoding: Encoding) -> np.ndarray:
    """Numbers of an RLE stream (PS3.5 annex G): for each of their bytes, the highest first, a segment of PackBits."""
    import imagecodecs

    num, size = encoding.allocated // 8, encoding.rows * encoding.columns
    offsets = np.frombuffer(stream[:64], "<u4").tolist()
    edges = [64, *offsets[1 : num + 1], len(stream)]
    if len(stream) < 64 or offsets[0] != num or edges != sorted(edges):
        raise UnusableFile("damaged: its picture (RLE) has no segments")
    planes = np.empty((size, num), np.uint8)
    for place, (start, end) in enumerate(itertools.pairwise(edges[1:])):
        plane = imagecodecs.packbits_decode(stream[start:end])
        if len(plane) < size:
            raise UnusableFile("truncated: its picture (RLE) ends too early")
        planes[:, num - 1 - place] = np.frombuffer(plane[:size], np.uint8)
    return planes.reshape(-1).view(f"<u{num}")


def _size(stream: bytes, codec: str) -> tuple[int, int] | None:
    """Rows and columns that a compressed picture says to have, before anything is decoded."""
    if codec == "jpeg2k":
        at = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
        columns, rows, left, top = (int.from_bytes(stream[at + 8 + 4 * i : at + 12 + 4 * i], "big") for i in range(4))
        return (rows - top, columns - left) if at >= 0 else None
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        if stream[at + 1] in SIZES_OF_JPEG:
            return int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(stream[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def _values(numbers: np.ndarray, encoding: Encoding) -> np.ndarray:
    """The stored bits of unsigned numbers, with their sign; what else is in the word (old overlays) is left out."""
    if numbers.size != encoding.rows * encoding.columns:
        raise UnusableFile(f"damaged: {numbers.size} numbers for {encoding.columns} x {encoding.rows} pixels")
    numbers = numbers.reshape(encoding.rows, encoding.columns)
    bits = 8 * numbers.dtype.itemsize
    if bits < encoding.stored:
        raise UnusableFile(f"damaged: numbers of {bits} bits where its header says {encoding.stored}")
    above = bits - 1 - min(encoding.high, bits - 1)
    numbers = numbers << numbers.dtype.type(above)
    if encoding.signed:
        numbers = numbers.view(f"i{numbers.dtype.itemsize}")
    return numbers >> numbers.dtype.type(bits - encoding.stored)


def value_range(encoding: Encoding) -> tuple[int, int]:
    """The lowest and the highest number that the stored bits can hold."""
    if encoding.signed:
        return -(2 ** (encoding.stored - 1)), 2 ** (encoding.stored - 1) - 1
    return 0, 2**encoding.stored - 1
