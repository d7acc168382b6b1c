"""DICOM files: what of their headers is looked at, which is a list of technical fields, and why a file is not taken.

Names, dates, texts and private fields of a header are never read out, with these exceptions that do not leave the
process: the UIDs and the PatientID say what belongs together, and descriptions are looked through for known sequences.
"""

import io
import logging
import math
import operator
import os
import warnings
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from lwddpm.data.canonical import check_num_voxels
from lwddpm.data.sequences import sequence_of_scan
from lwddpm.data.sources import CLOSED_FOLDER, UnusableFile
from lwddpm.marks.mark import SYNTHETIC, drawn_by

SUFFIXES = (".dcm", ".dicom", ".ima")  # most have none
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
MR, ENHANCED, CONVERTED = (f"1.2.840.10008.5.1.4.1.1.4{last}" for last in ("", ".1", ".4"))
SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
DICOMDIR = "1.2.840.10008.1.3.10"
MAX_SIDE = 8192  # of one picture
HEADER_BYTES = 64 << 20  # of a deflated file: what its header may inflate to

NO_DICOM, INDEX = "files that are no DICOM", "indexes (DICOMDIR)"
LOCALIZER, DERIVED = "localizers", "derived pictures (ImageType)"
SECONDARY, COLOUR = "secondary captures and screenshots", "colour pictures"
BURNED_IN, PHASE = "pictures with text in them (BurnedInAnnotation)", "phase, real and imaginary parts (ImageType)"

# what is looked at, by how it is written (VR)
FIELDS = {
    "UI": ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    "LO": ("PatientID", "SeriesDescription", "ProtocolName"),
    "SH": ("SequenceName",),
    "CS": (
        "ImageType", "BurnedInAnnotation", "ScanningSequence", "AcquisitionContrast", "PhotometricInterpretation",
    ),
    "DS": (
        "EchoTime", "RepetitionTime", "InversionTime", "ImagePositionPatient", "ImageOrientationPatient",
        "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept",
    ),
    "IS": ("TemporalPositionIdentifier", "AcquisitionNumber", "InstanceNumber", "NumberOfFrames"),
    "US": (
        "SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    ),
    "FD": ("DiffusionBValue",),
    "LT": ("ImageComments",),  # of synthetic slices alone, whose mark it is
    "SQ": ("ModalityLUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
}  # fmt: skip


class Encoding(NamedTuple):
    """How a file stores numbers."""

    syntax: str  # UID of the transfer syntax
    rows: int
    columns: int
    allocated: int
    stored: int
    high: int
    signed: bool
    inverted: bool  # MONOCHROME1: low values are bright


class Frame(NamedTuple):
    """Where a picture lies, in mm to the left, the back and the top (DICOM's axes), and what its numbers mean.

    `order` tells pictures at one position apart: time, echo, diffusion weighting, number.
    """

    number: int  # in its file
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]  # between rows, between columns
    distance: float  # of slices, as the header says; 0 where it does not
    slope: float
    intercept: float
    order: tuple[float, ...]


class Header(NamedTuple):
    """A file that may be taken."""

    series: tuple[str, str, str]  # patient, study, series
    instance: str
    sequence: str | None
    encoding: Encoding
    offset: int  # of the value of its pixel data, in the inflated file if that is deflated
    length: int  # of it; -1 where it is encapsulated
    frames: tuple[Frame, ...]


class NotRead(NamedTuple):
    """A file that is not taken.

    Attributes:
        reason: why.
        damaged: the file is refused, as something is wrong with it; otherwise it is passed over as none of the wanted.
        series: patient, study and series, as far as they are known.
    """

    reason: str
    damaged: bool = False
    series: tuple[str, str, str] = ("", "", "")


def read_header(path: Path) -> Header | NotRead:
    """What a file's header says, or why it is not taken. Never raises because of what is in the file."""
    try:
        size = path.stat().st_size
        with _File(path, size) as file:
            start = file.read(132)
            if not _looks_like_dicom(start):
                named = path.name.lower().endswith(SUFFIXES)
                reason = "empty file" if size == 0 else "not a DICOM file, or a damaged one"
                return NotRead(reason, damaged=True) if named else NotRead(NO_DICOM)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they repeat values
                return _read(file, size, marked=start[128:132] == b"DICM")
    except IsADirectoryError:
        return NotRead(CLOSED_FOLDER, damaged=True)
    except Exception as error:
        return NotRead(reason_of(error), damaged=True)


class _File(io.BufferedReader):
    """A file of which no more is asked for than it holds: lengths in damaged headers are up to 4 GiB."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(io.FileIO(path))
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None or size < self._size else self._size)


def reason_of(error: BaseException) -> str:
    """Why a file cannot be used. Messages of the libraries are not repeated: they name files and values."""
    if isinstance(error, UnusableFile):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return f"unreadable: {os.strerror(error.errno)}"
    return "damaged or truncated"


def inflate(file: BinaryIO, limit: int) -> bytes:
    """The data set of a deflated file, of which `file` stands at the beginning; at most `limit` bytes of it."""
    head = file.read(144)
    if head[132:136] != b"\2\0\0\0" or head[136:138] != b"UL":
        raise UnusableFile("damaged: its header does not say where it is deflated")
    file.seek(144 + int.from_bytes(head[140:144], "little"))
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), limit)


def _looks_like_dicom(start: bytes) -> bool:
    """By its mark, or as files without one begin: with an element of group 2 or 8."""
    if start[128:132] == b"DICM":
        return True
    little, big = start[:2] in (b"\2\0", b"\x08\0"), start[:2] in (b"\0\2", b"\0\x08")
    return len(start) > 8 and ((little and start[3] == 0) or (big and start[2] == 0))


def _read(file: BinaryIO, size: int, *, marked: bool) -> Header | NotRead:
    dataset, syntax, offset, length = _dataset(file)
    patient, study, series = (_text(dataset, key) for key in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"))
    ids = (patient, study, series)
    try:
        if why := _passed_over(dataset, marked):
            return NotRead(why, series=ids)
        encoding, num_frames = _encoding(dataset, syntax)
        if length is None:
            raise UnusableFile("has no pixel data, or is cut before them")
        bits = encoding.allocated * encoding.rows * encoding.columns * num_frames
        end = offset + (-(-bits // 8) if length >= 0 else 8)
        if (syntax != DEFLATED and end > size) or 0 <= 8 * length < bits:
            raise UnusableFile("truncated: its header promises more pixels than it has")
        frames = _frames(dataset, num_frames)
    except UnusableFile as error:
        return NotRead(str(error), damaged=True, series=ids)
    if not series:
        return NotRead("says no SeriesInstanceUID", damaged=True, series=ids)
    instance = _text(dataset, "SOPInstanceUID")
    return Header(ids, instance, _sequence(dataset), encoding, offset, length, frames)


def _dataset(file: BinaryIO) -> tuple[Any, str, int, int | None]:
    """The header, its transfer syntax, and where pixel data begin and how long they are (-1: encapsulated)."""
    import pydicom  # takes 0.2 s, which folders of other formats do without
    from pydicom.filereader import read_dataset

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # values are checked where they are used
    wanted = [tag for tag, _ in _tags().values()]
    start = file.read(2048)
    file.seek(0)
    stream: BinaryIO = file
    if start[128:132] == b"DICM" and DEFLATED.encode() in start[132:]:
        stream = io.BytesIO(inflate(file, HEADER_BYTES))
        dataset = read_dataset(stream, False, True, stop_when=_is_pixels, specific_tags=wanted)
        syntax, implicit, little = DEFLATED, False, True
    else:
        dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=wanted)
        implicit, little = (bool(each) for each in dataset.original_encoding)
        syntax = str(dataset.file_meta.get("TransferSyntaxUID", "")) or "1.2.840.10008.1.2"
        if not little:
            syntax = BIG_ENDIAN
    element = stream.read(8 if implicit else 12)
    order: Literal["little", "big"] = "little" if little else "big"
    if len(element) < 8 or int.from_bytes(element[:2], order) != 0x7FE0:
        return dataset, syntax, 0, None
    length = int.from_bytes(element[-4:], order)
    return dataset, syntax, stream.tell(), -1 if length == 0xFFFFFFFF else length


@lru_cache(maxsize=1)
def _tags() -> dict[str, tuple[Any, str]]:
    """Tag and VR of every field that is looked at."""
    from pydicom.tag import Tag

    return {key: (Tag(key), vr) for vr, keys in FIELDS.items() for key in keys}


def _value(dataset: Any, key: str) -> Any:
    """The value of a field; None where there is none.

    Plain ones at the top of a header are read here: pydicom's classes for them would take half of the time of a scan.
    """
    tag, vr = _tags().get(key, (None, "SQ"))
    if vr in ("SQ", "FD") or not hasattr(dataset, "get_item"):
        return dataset.get(key)
    if tag not in dataset:
        return None
    element = dataset.get_item(tag)
    content = element.value
    if not isinstance(content, bytes) or element.VR not in (None, vr) or (vr != "US" and not content.isascii()):
        return dataset.get(key)
    if vr == "US":
        return int.from_bytes(content, "little" if element.is_little_endian else "big") if len(content) == 2 else None
    parts = [part.strip(" \0") for part in content.decode("ascii").split("\\")]
    return parts if len(parts) > 1 else parts[0]


def _is_pixels(tag: Any, vr: str | None, length: int) -> bool:
    return int(tag) >> 16 == 0x7FE0


def _passed_over(dataset: Any, marked: bool) -> str | None:
    """Why a file that is whole is none of the wanted pictures."""
    meta = getattr(dataset, "file_meta", {})
    kind = _text(dataset, "SOPClassUID") or _text(meta, "MediaStorageSOPClassUID")
    image_type = [part.upper() for part in _texts(dataset, "ImageType")]
    if kind == DICOMDIR:
        return INDEX
    if not kind and not marked:
        return NO_DICOM
    if not kind:
        raise UnusableFile("damaged: its header does not say what it is (SOPClassUID)")
    if kind.startswith(SECONDARY_CAPTURES):
        if _text(dataset, "SeriesDescription") == SYNTHETIC and SYNTHETIC in (mark := _text(dataset, "ImageComments")):
            raise UnusableFile(drawn_by(mark))
        return SECONDARY
    if kind not in (MR, ENHANCED, CONVERTED):
        return f"objects of another kind than MR images ({_name(kind)})"
    if _text(dataset, "BurnedInAnnotation").upper() == "YES":
        return BURNED_IN
    photometric = _text(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    if _int(dataset, "SamplesPerPixel", 1) != 1 or not photometric.startswith("MONOCHROME"):
        return COLOUR
    description = _text(dataset, "SeriesDescription").lower()
    if "LOCALIZER" in image_type or any(word in description for word in ("localizer", "localiser", "scout", "survey")):
        return LOCALIZER
    if "MOSAIC" in image_type:
        return None  # refused, see _frames
    if image_type[1:2] == ["SECONDARY"] and image_type[:1] != ["DERIVED"]:
        return SECONDARY
    if image_type[:1] == ["DERIVED"]:
        return DERIVED
    if {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"} & set(image_type[2:]):
        return PHASE
    return None


def _name(uid: str) -> str:
    from pydicom.uid import UID_dictionary

    return UID_dictionary[uid][0] if uid in UID_dictionary else "unknown"


def _encoding(dataset: Any, syntax: str) -> tuple[Encoding, int]:
    rows, columns, num_frames = (
        _int(dataset, key, default) for key, default in (("Rows", 0), ("Columns", 0), ("NumberOfFrames", 1))
    )
    if min(rows, columns, num_frames) < 1:
        raise UnusableFile("damaged: its header says no size")
    if max(rows, columns) > MAX_SIDE:
        raise UnusableFile(f"{columns} x {rows} pixels: more than {MAX_SIDE} along a side")
    check_num_voxels((columns, rows, num_frames))
    allocated = _int(dataset, "BitsAllocated", 0)
    stored = _int(dataset, "BitsStored", allocated)
    high = _int(dataset, "HighBit", stored - 1)
    if allocated not in (8, 16, 32) or not 1 <= stored <= high + 1 <= allocated:
        raise UnusableFile(f"its numbers have {stored} of {allocated} bits up to bit {high}: must be 8, 16 or 32")
    signed = _int(dataset, "PixelRepresentation", 0) == 1
    inverted = _text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    return Encoding(syntax, rows, columns, allocated, stored, high, signed, inverted), num_frames


def _frames(dataset: Any, num_frames: int) -> tuple[Frame, ...]:
    if "MOSAIC" in (part.upper() for part in _texts(dataset, "ImageType")):
        raise UnusableFile("a mosaic: slices side by side in one picture; export it as enhanced MR or slice by slice")
    if "ModalityLUTSequence" in dataset:
        raise UnusableFile("its numbers have a look-up table (Modality LUT) in place of slope and intercept")
    groups: Sequence[Any] = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared: Any = next(iter(dataset.get("SharedFunctionalGroupsSequence") or ()), {})
    if not groups:
        if num_frames > 1:
            raise UnusableFile(f"{num_frames} frames without positions")
        return (_frame(dataset, 0, dataset, dataset, dataset, dataset, _order(dataset)),)
    if len(groups) < num_frames:
        raise UnusableFile(f"damaged: {num_frames} frames, and positions of {len(groups)}")
    frames = []
    for number, group in enumerate(groups[:num_frames]):

        def of(name: str, group: Any = group) -> Any:
            return next(iter(group.get(name) or shared.get(name) or ()), {})

        content, echo, diffusion = of("FrameContentSequence"), of("MREchoSequence"), of("MRDiffusionSequence")
        order = (
            _float(content, "TemporalPositionIndex"), _float(echo, "EffectiveEchoTime"),
            _float(diffusion, "DiffusionBValue"), 0.0, float(number),
        )  # fmt: skip
        numbers = of("PixelValueTransformationSequence")
        places = of("PlanePositionSequence"), of("PlaneOrientationSequence"), of("PixelMeasuresSequence")
        frames.append(_frame(dataset, number, *places, numbers, order))
    return tuple(frames)


def _frame(
    dataset: Any, number: int, place: Any, plane: Any, measures: Any, numbers: Any, order: tuple[float, ...]
) -> Frame:
    position, orientation = _floats(place, "ImagePositionPatient", 3), _floats(plane, "ImageOrientationPatient", 6)
    spacing = _floats(measures, "PixelSpacing", 2)
    if not position or not orientation:
        raise UnusableFile("says no position or orientation in space")
    if not spacing or min(spacing) <= 0:
        raise UnusableFile("says no distance of pixels")
    row, column = orientation[:3], orientation[3:]
    lengths = math.hypot(*row), math.hypot(*column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(sum(map(operator.mul, row, column))) > 0.01:
        raise UnusableFile("its orientation in space is no pair of perpendicular directions")
    distance = _float(measures, "SpacingBetweenSlices") or _float(measures, "SliceThickness")
    slope, intercept = _float(numbers, "RescaleSlope", 1.0), _float(numbers, "RescaleIntercept")
    if slope == 0:
        raise UnusableFile("its slope is 0 (RescaleSlope)")
    return Frame(number, position, orientation, spacing, abs(distance), slope, intercept, order)


def _order(dataset: Any) -> tuple[float, ...]:
    keys = ("TemporalPositionIdentifier", "EchoTime", "DiffusionBValue", "AcquisitionNumber", "InstanceNumber")
    return tuple(_float(dataset, key) for key in keys)


def _sequence(dataset: Any) -> str | None:
    times = [_float(dataset, key) or None for key in ("EchoTime", "RepetitionTime", "InversionTime")]
    texts = [_text(dataset, key) for key in ("SeriesDescription", "ProtocolName", "SequenceName")]
    technique = _texts(dataset, "ScanningSequence")
    return sequence_of_scan(texts, _text(dataset, "AcquisitionContrast"), technique, *times)


def _texts(dataset: Any, key: str) -> list[str]:
    value = _value(dataset, key)
    if value is None or value == "":
        return []
    return [str(part).strip() for part in ([value] if isinstance(value, str) else value)]


def _text(dataset: Any, key: str) -> str:
    value = _value(dataset, key)
    return "" if value is None else str(value).strip("\0 ")


def _int(dataset: Any, key: str, default: int) -> int:
    value = _value(dataset, key)
    if value is None or value == "":
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UnusableFile(f"damaged: its {key} is no number") from None


def _float(dataset: Any, key: str, default: float = 0.0) -> float:
    values = _floats(dataset, key, 1)
    return values[0] if values else default


def _floats(dataset: Any, key: str, num: int) -> tuple[float, ...]:
    """Some numbers of a field; none where it has none or another number of them."""
    value = _value(dataset, key)
    if value is None or value == "":
        return ()
    try:
        values = tuple(float(part) for part in (value if num > 1 and not isinstance(value, str) else [value]))
    except (TypeError, ValueError):
        return ()
    return values if len(values) == num and all(map(math.isfinite, values)) else ()
