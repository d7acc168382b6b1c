"""Values of the fields of DICOM headers that are looked at, whatever is written there.

This list of technical fields is all that is read. The UIDs and the PatientID, which say what belongs together, and
descriptions, which are looked through for known sequences, do not leave the process.
"""

import math
from functools import lru_cache
from typing import Any

from lwddpm.data.sources import UnusableFile

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


@lru_cache(maxsize=1)
def tags() -> dict[str, tuple[Any, str]]:
    """Tag and VR of every field that is looked at."""
    from pydicom.tag import Tag

    return {key: (Tag(key), vr) for vr, keys in FIELDS.items() for key in keys}


def value_of(dataset: Any, key: str) -> Any:
    """The value of a field; None where there is none.

    Plain ones at the top of a header are read here: pydicom's classes for them would take half of the time of a scan.
    """
    tag, vr = tags().get(key, (None, "SQ"))
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


def texts_of(dataset: Any, key: str) -> list[str]:
    """The parts of a field of texts; none where there is no such field."""
    value = value_of(dataset, key)
    if value is None or value == "":
        return []
    return [str(part).strip() for part in ([value] if isinstance(value, str) else value)]


def text_of(dataset: Any, key: str) -> str:
    """A field as one text; empty where there is none."""
    value = value_of(dataset, key)
    return "" if value is None else str(value).strip("\0 ")


def int_of(dataset: Any, key: str, default: int) -> int:
    """A field of one whole number; the default where it is missing or empty.

    Raises:
        UnusableFile: it is no number.
    """
    value = value_of(dataset, key)
    if value is None or value == "":
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UnusableFile(f"damaged: its {key} is no number") from None


def float_of(dataset: Any, key: str, default: float = 0.0) -> float:
    """A field of one number; the default where it has none that is finite."""
    values = floats_of(dataset, key, 1)
    return values[0] if values else default


def floats_of(dataset: Any, key: str, num: int) -> tuple[float, ...]:
    """Some numbers of a field; none where it has none or another number of them."""
    value = value_of(dataset, key)
    if value is None or value == "":
        return ()
    try:
        values = tuple(float(part) for part in (value if num > 1 and not isinstance(value, str) else [value]))
    except (TypeError, ValueError):
        return ()
    return values if len(values) == num and all(map(math.isfinite, values)) else ()
