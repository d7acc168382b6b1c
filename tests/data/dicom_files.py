"""Series of the phantom head as scanners and archives would write them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

Encode = Callable[[np.ndarray], bytes]


def _j2k(picture: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(picture, codecformat="j2k", reversible=True, level=0))


CODECS: dict[str, tuple[str, Encode | None]] = {
    "explicit": (uid.ExplicitVRLittleEndian, None),
    "implicit": (uid.ImplicitVRLittleEndian, None),
    "big endian": (uid.ExplicitVRBigEndian, None),
    "deflated": (uid.DeflatedExplicitVRLittleEndian, None),
    "RLE": (uid.ExplicitVRLittleEndian, None),  # by pydicom, below
    "JPEG Lossless": (uid.JPEGLosslessSV1, lambda picture: bytes(imagecodecs.ljpeg_encode(picture))),
    "JPEG-LS": (uid.JPEGLSLossless, lambda picture: bytes(imagecodecs.jpegls_encode(picture))),
    "JPEG 2000": (uid.JPEG2000Lossless, _j2k),
}


def dataset(
    picture: np.ndarray,
    position: tuple[float, ...],
    *,
    number: int,
    codec: str = "explicit",
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    spacing: tuple[float, float] = (2.0, 2.0),
    bits: int | None = None,
    series: str = "1.2.3",
    patient: str = "P1",
    **fields: Any,
) -> Dataset:
    """One picture [rows, columns] of an integer type; frames of an enhanced file [frames, rows, columns]."""
    syntax, encode = CODECS[codec]
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = uid.MRImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    made.SeriesInstanceUID, made.StudyInstanceUID, made.PatientID = series, f"9.{series}", patient
    made.Modality, made.ImageType, made.SeriesDescription = "MR", ["ORIGINAL", "PRIMARY", "M"], "t1_mprage_sag"
    made.InstanceNumber = number
    made.ImagePositionPatient, made.ImageOrientationPatient = list(position), list(orientation)
    made.PixelSpacing, made.SliceThickness = list(spacing), 2.0
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = picture.shape[-2:]
    made.BitsAllocated = 8 * picture.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(picture.dtype.kind == "i")
    if encode is None:
        order = ">" if codec == "big endian" else "<"
        made.PixelData = picture.astype(picture.dtype.newbyteorder(order)).tobytes()
    else:
        unsigned = picture.view(f"u{picture.dtype.itemsize}")  # codecs but JPEG 2000 know no signs
        frames = [picture if codec == "JPEG 2000" else unsigned] if picture.ndim == 2 else list(unsigned)
        made.PixelData = encapsulate([encode(frame) for frame in frames])
        made["PixelData"].VR = "OB"
    if codec == "RLE":
        made.compress(uid.RLELossless, generate_instance_uid=False)
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def save(made: Dataset, file: Path, *, whole: bool = True) -> Path:
    """With a preamble and a group of meta elements or, with `whole=False`, without."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if whole:
        made.save_as(file, enforce_file_format=True)
    else:
        del made.file_meta
        made.save_as(file, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return file


def series_of(values: np.ndarray, first: tuple[float, ...], spacing_mm: float, **settings: Any) -> list[Dataset]:
    """Axial pictures of voxels [X, Y, Z] with axes to the right, the front and the top.

    Args:
        values: of an integer type.
        first: where the first voxel lies, in mm to the right, the front and the top.
        spacing_mm: distance of voxels.
    """
    columns, rows, slices = values.shape
    left, back = -(first[0] + (columns - 1) * spacing_mm), -(first[1] + (rows - 1) * spacing_mm)
    settings = {"spacing": (spacing_mm, spacing_mm)} | settings
    pictures = np.ascontiguousarray(values[::-1, ::-1].transpose(2, 1, 0))
    return [
        dataset(pictures[k], (left, back, first[2] + k * spacing_mm), number=k + 1, **settings) for k in range(slices)
    ]
